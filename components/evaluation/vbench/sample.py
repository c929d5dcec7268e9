"""Sample the videos of a suite into one flat folder under VBench's names; existing videos are kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.evaluation.samples import Request, Sampler
from components.evaluation.vbench.files import video_name
from components.evaluation.vbench.sample_record import read_record, record_file, write_record
from components.evaluation.vbench.suites import Suite
from components.generator.sampling import require_finite
from components.runtime.compute.distributed import Ranks
from components.runtime.compute.seeds import derive
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError, Interrupted
from components.runtime.io import storage
from components.runtime.io.files import atomic_file
from components.runtime.progress import Progress
from components.video.clip import Clip
from components.video.codec import read_video, write_video


def suite_requests(suite: Suite, seed: int) -> list[Request]:
    """Every video of a suite with a seed of its own, which depends on its prompt and number alone."""
    return [
        Request(prompt, prompt, index, derive(seed, "evaluation", "suite", prompt, index))
        for prompt, number in suite.wanted().items()
        for index in range(number)
    ]


def sample_suite(
    sampler: Sampler,
    requests: Sequence[Request],
    folder: Path,
    fps: float,
    batch: int,
    model: str,
    ranks: Ranks | None = None,
    augmented: Mapping[str, str] | None = None,
) -> int:
    """Write the missing videos of ``requests`` to ``folder`` and return how many there were.

    A video appears under its name when it is whole, so a stopped run resumes; one that cannot be read is
    sampled again. Beside the folder, ``FOLDER.samples.jsonl`` notes the model, and each file's prompt, seed
    and rate.

    Args:
        sampler: the model.
        requests: the videos that are wanted.
        folder: made if it does not exist.
        fps: frames per second that the model draws.
        batch: videos sampled in one call; does not change them.
        model: what tells this model from others (a digest).
        ranks: the processes that share the work; they must share the folder.
        augmented: by prompt, the text to sample from in its place; names and seeds stay the prompt's.

    Raises:
        InputError: the folder holds another model's videos, or the same ones with other seeds or texts.
        Interrupted: stopped on request.
    """
    ranks, augmented = ranks or Ranks(), augmented or {}
    lines: dict[str, dict[str, Any]] = {}
    for one in requests:
        name = video_name(one.prompt, one.index)
        lines[name] = {"file": name, "prompt": one.prompt, "index": one.index, "seed": one.seed}
        lines[name] |= {"fps": fps, "model": model}
        lines[name] |= {"augmented": augmented[one.prompt]} if one.prompt in augmented else {}
    names = list(lines)
    if ranks.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        _note(folder, dict(lines), model)
    ranks.barrier()
    mine = [names[place] for place in ranks.mine(len(names))]
    missing = [lines[name] for name in mine if not _is_whole(folder / name)]
    with StopSignal() as stop, Progress(len(missing), "sampling videos") as progress:
        for start in range(0, len(missing), batch):
            if stop.requested:
                break
            part = missing[start : start + batch]
            texts = [line.get("augmented", line["prompt"]) for line in part]
            drawn, latents = sampler.sample(texts, [line["seed"] for line in part])
            require_finite(latents)
            for line, frames in zip(part, drawn, strict=True):
                with atomic_file(folder / line["file"]) as aside:
                    write_video(Clip(frames.cpu(), fps), aside, scale=1)
            progress.update(len(part))
        stopped = any(ranks.all_gather_object(stop.requested))
    if stopped:
        raise Interrupted
    return sum(ranks.all_gather_object(len(missing)))


def _note(folder: Path, lines: dict[str, dict[str, Any]], model: str) -> None:
    """Write the note, adding to what an earlier run for other prompts noted."""
    earlier = read_record(folder)
    foreign = [name for name in lines if (folder / name).exists() and name not in earlier]
    known = record_file(folder).name
    broken = [name for name in foreign if not _is_whole(folder / name)]
    if broken:
        raise InputError(
            f"{folder / broken[0]}: cannot be read, and {known} does not know it, so it is not drawn again; "
            "move it away or take an empty folder"
        )
    if foreign:
        print(f"{folder}: {len(foreign)} videos that {known} does not know are kept", file=sys.stderr)
    for name, line in earlier.items():
        if (folder / name).exists() and line != lines.get(name, line):
            raise InputError(
                f"{folder}: {name} was drawn by another model, with another seed or from another text; take "
                "an empty folder"
            )
        if line.get("model", model) != model:
            raise InputError(f"{folder}: holds videos of another model; take an empty folder")
    for name in foreign:
        del lines[name]
    write_record(folder, (earlier | lines).values())


def _is_whole(file: Path) -> bool:
    try:
        return file.is_file() and len(read_video(file).frames) > 0
    except InputError:
        return False


def videos_folder(place: str) -> Path:
    """The local folder of videos that is named, absolute: ``a:b`` is no protocol then.

    Raises:
        InputError: it is an s3:// place: videos are drawn and measured on a disk.
    """
    if storage.is_remote(place):
        raise InputError(f"{place}: videos are drawn and measured in a local folder; copy it here first")
    return Path(os.path.abspath(storage.local_path(place)))
