"""Scoring video files: decoding runs ahead of scoring, the order of results is the order of the files.

Memory is bounded whatever the files are: a clip is decoded at most at the size a reward looks at, at most
`LONGEST` frames and `CLIP_PIXELS` of it, and only a few clips wait at any time.
"""

from __future__ import annotations

import json
import math
import os
import stat
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

import torch

from components.reward.base import InputSpec, Reward, input_spec_of
from components.runtime.compute.devices import available_cpus
from components.runtime.errors import InputError, one_line
from components.runtime.io import storage
from components.video.clip import Clip
from components.video.codec import read_video
from components.video.decode.container import probe
from components.video.names import is_video_name

#: Frames read from one file; a longer video is judged by its beginning.
LONGEST = 512
#: Pixels of one decoded clip over all its frames; a longer or wider one is decoded at a smaller size.
CLIP_PIXELS = 64_000_000
#: Decoded clips that are scored together, in bytes; as many again may wait behind them.
WAITING_BYTES = 256 * 2**20
#: Most decoding threads; the decoder lets go of the interpreter, so threads are enough.
WORKERS = 4
DIGITS = 6

Task = TypeVar("Task")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Source:
    """One file to score.

    Attributes:
        name: as a result calls it.
        problem: why it cannot be read at all, where that is known already.
    """

    name: str
    problem: str | None = None


@dataclass(frozen=True)
class FileScore:
    """What came of one file: a rating, or the one line that says why there is none."""

    path: str
    score: float | None = None
    uncertainty: float | None = None
    aspects: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    def json_line(self) -> str:
        """{"path", "score", "uncertainty", "aspects"} as one line of ASCII.

        A path that is not UTF-8 keeps its odd bytes as Python does (U+DC80 to U+DCFF), so that os.fsencode of
        the parsed path is the file's name again.
        """
        fields = {name: value for name, value in vars(self).items() if name != "error"}
        return json.dumps(fields, allow_nan=False)


def sources(arguments: Iterable[str]) -> list[Source]:
    """The files that arguments name: a file, an object, the videos under a folder or prefix.

    What counts as a video is told by its name (`is_video_name`); a file that is named itself is always tried.
    A folder's files come in order of their paths; links to folders are not followed. Nothing is left out
    because it came before.
    """
    files: list[Source] = []
    for argument in arguments:
        try:
            files += _of(argument)
        except InputError as error:
            files.append(Source(argument, _line(argument, argument, error)))
    return files


def score_files(
    reward: Reward, files: Sequence[Source], prompts: Sequence[str] | None = None
) -> Iterator[FileScore]:
    """A result for every file, in their order, as soon as it and those before it are known.

    Args:
        prompts: one text for each file, for rewards that read it.
    """
    # One window of clips is scored in a thread while the next one fills.
    windows = _windows(files, input_spec_of(reward))
    for scores in _ahead(lambda window: _scored(reward, files, window, prompts), windows, 1, "score"):
        yield from scores


def _ahead(work: Callable[[Task], Done], tasks: Iterable[Task], threads: int, name: str) -> Iterator[Done]:
    """What `work` makes of each task, in their order; as many as there are threads are begun ahead."""
    ahead: deque[Future[Done]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    try:
        for task in tasks:
            ahead.append(pool.submit(work, task))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _windows(files: Sequence[Source], spec: InputSpec) -> Iterator[list[tuple[int, Clip | str]]]:
    """The clips or what is wrong with them, by their places, as many as are scored together."""
    window: list[tuple[int, Clip | str]] = []
    waiting = 0
    for place, clip in enumerate(_decoded(files, spec)):
        window.append((place, clip))
        waiting += 0 if isinstance(clip, str) else clip.frames.numel()
        if len(window) >= spec.batch or waiting >= WAITING_BYTES:
            yield window
            window, waiting = [], 0
    yield window


def shown(name: str) -> str:
    """A file's name on one printable line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def _of(argument: str) -> list[Source]:
    if storage.is_remote(argument):
        base = argument.rstrip("/")
        names = [file.name for file in storage.list_files(argument)]
        videos = [Source(f"{base}/{name}") for name in names if is_video_name(name)]
        if names and not videos:
            return [Source(argument, f"{shown(argument)}: no video under this prefix")]
        return videos or [Source(argument)]
    path = storage.local_path(argument)
    if not os.path.isdir(path):
        return [Source(str(path))]
    closed: list[OSError] = []
    files = [
        Source(os.path.join(folder, name))
        for folder, _, names in os.walk(path, onerror=closed.append)
        for name in names
        if is_video_name(name)
    ]
    files += [_unlisted(error) for error in closed]
    if not files:
        return [Source(str(path), f"{shown(str(path))}: no video in this folder")]
    return sorted(files, key=lambda file: Path(file.name).parts)


def _unlisted(error: OSError) -> Source:
    name = str(error.filename)
    return Source(name, f"{shown(name)}: cannot be listed ({(error.strerror or str(error)).lower()})")


def _decoded(files: Sequence[Source], spec: InputSpec) -> Iterator[Clip | str]:
    """Each file's clip, or the line that says what is wrong with it; a few are decoded ahead."""
    return _ahead(lambda file: _attempt(file, spec), files, min(WORKERS, available_cpus()), "decode")


def _attempt(file: Source, spec: InputSpec) -> Clip | str:
    if file.problem is not None:
        return file.problem
    try:
        if not storage.is_remote(file.name):
            return _read(storage.local_path(file.name), file.name, spec)
        with tempfile.TemporaryDirectory(prefix="onlinevpo-") as folder:
            # The ending may be all that tells a raw stream's format.
            local = Path(folder) / f"video{PurePosixPath(file.name).suffix}"
            storage.fetch_file(file.name, local)
            return _read(local, file.name, spec)
    except InputError as error:
        return _line(file.name, file.name, error)
    except Exception as error:
        # A file is untrusted: whatever a decoder makes of it must not cost the other files their scores.
        return _line(file.name, file.name, f"cannot be read ({type(error).__name__}: {error})")


def _read(path: Path, name: str, spec: InputSpec) -> Clip:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: not a regular file")
        path.open("rb").close()
        info = probe(path)
        frames = min(info.frames or LONGEST, LONGEST)
        least, most = sorted((info.height, info.width))
        fitting = math.isqrt(max(1, CLIP_PIXELS * least // (frames * most)))
        side = max(16, min(spec.short_side, fitting))
        clip = read_video(path, max_frames=LONGEST, max_pixels=2 * CLIP_PIXELS, short_side=side)
        if clip.num_frames < 2:
            raise InputError(f"{path}: has 1 frame only, a video to score needs 2 or more")
    except InputError as error:
        raise InputError(_line(name, str(path), error)) from error
    except OSError as error:
        raise InputError(_line(name, str(path), (error.strerror or str(error)).lower())) from error
    return clip


def _line(name: str, path: str, error: Exception | str) -> str:
    """One line that begins with the file's name, once, whatever path the error speaks of."""
    text = str(error).removeprefix(f"{path}: ").removeprefix(f"{shown(name)}: ")
    return f"{shown(name)}: {one_line(text)}"


def _scored(
    reward: Reward,
    files: Sequence[Source],
    window: Sequence[tuple[int, Clip | str]],
    prompts: Sequence[str] | None,
) -> list[FileScore]:
    """The window's results in order; clips of one shape and rate are scored together."""
    done: dict[int, FileScore] = {}
    alike: dict[tuple[tuple[int, ...], float], dict[int, Clip]] = {}
    for place, clip in window:
        if isinstance(clip, str):
            done[place] = FileScore(files[place].name, error=clip)
        else:
            alike.setdefault((tuple(clip.frames.shape), clip.fps), {})[place] = clip
    for clips in alike.values():
        try:
            done |= _rated(reward, files, clips, prompts)
        except InputError:
            for place, clip in clips.items():
                try:
                    done |= _rated(reward, files, {place: clip}, prompts)
                except InputError as error:
                    name = files[place].name
                    done[place] = FileScore(name, error=_line(name, name, error))
    return [done[place] for place, _ in window]


def _rated(
    reward: Reward, files: Sequence[Source], clips: dict[int, Clip], prompts: Sequence[str] | None
) -> dict[int, FileScore]:
    texts = None if prompts is None else [prompts[place] for place in clips]
    frames = torch.stack([clip.frames for clip in clips.values()])
    rating = reward.rate(frames, next(iter(clips.values())).fps, texts)
    scores = {}
    for row, place in enumerate(clips):
        name = files[place].name
        aspects = {aspect: round(float(values[row]), DIGITS) for aspect, values in rating.aspects.items()}
        score, std = (round(float(values[row]), DIGITS) for values in (rating.score, rating.uncertainty))
        if all(math.isfinite(figure) for figure in (score, std, *aspects.values())):
            scores[place] = FileScore(name, score, std, aspects)
        else:
            scores[place] = FileScore(name, error=f"{shown(name)}: the reward gives it no finite score")
    return scores
