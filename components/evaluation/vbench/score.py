"""Measure a folder of videos: each video alone, so that neither order nor the number of processes matters."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.evaluation.dimensions.base import Dimension, LeftOut, ScoredVideo, Video, VideoScore
from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.models import ModelStore
from components.evaluation.vbench.files import OURS, SEED, VBenchResult, VideoResult
from components.evaluation.vbench.folder import FolderVideos, Problem, find_videos
from components.evaluation.vbench.sample_record import read_record
from components.evaluation.vbench.suites import Suite
from components.runtime.compute.distributed import Ranks
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError, Interrupted
from components.runtime.io.files import sha256_file, write_atomically
from components.runtime.progress import Progress
from components.video.decode.frames import open_frames
from components.video.names import composed

_KEPT = re.compile(r"[0-9a-f]{64}\.(json|new)")


@dataclass(frozen=True)
class Settings:
    """How videos are measured.

    Attributes:
        compat: the published variant of each dimension where ours differs.
        fps: frames per second that the model sampled at; 0: as recorded beside the videos, else as each file
            declares.
    """

    compat: bool = False
    fps: float = 0.0


@dataclass(frozen=True)
class VideoTask:
    """One file with the prompt it was sampled for and the dimensions that want it."""

    path: Path
    prompt: str
    facts: Mapping[str, Any]
    fps: float
    seed: int | None


@dataclass
class Scores:
    """Everything that was measured of one folder.

    Attributes:
        results: by dimension, its score and its videos' values, as VBench's result file has them.
        used: by dimension, what measured it.
        origins: by dimension, the weights in use and where they come from.
        unavailable: by dimension of the suite, why it has no score.
        problems: videos that are missing, extra, misnamed or broken.
        entries: the suite with the videos that were looked at, as in VBench's full info.
        left_out: by dimension, videos that its definition leaves out, with the reason.
    """

    results: dict[str, VBenchResult] = field(default_factory=dict)
    used: dict[str, Dimension] = field(default_factory=dict)
    origins: dict[str, dict[str, str]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)


def score(
    suite: Suite, folder: Path, store: ModelStore, settings: Settings, keep: Path, ranks: Ranks | None = None
) -> Scores:
    """Measure every video of a suite in ``folder``, with every dimension the suite asks for.

    What is measured of a video is kept in ``keep`` at once; a stopped run resumes from there, and ``keep`` is
    removed at the end. The processes take the videos in turn, and every process returns the same.

    Raises:
        InputError: no such folder, no dimension can be measured, no video of the suite is there, or none can
            be read.
        Interrupted: stopped on request.
    """
    ranks = ranks or Ranks()
    videos = find_videos(suite, folder)
    scores = Scores(problems=list(videos.problems))
    _choose_providers(suite, store, settings.compat, scores)
    if not scores.used:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in scores.unavailable.items())
        raise InputError(f"no dimension of suite {suite.name} can be measured: {reasons}")
    tasks = _tasks(suite, videos, folder, settings)
    if not tasks:
        raise InputError(
            f"videos {folder}: none of the {len(suite.wanted())} prompts of {suite.name} has one"
        )
    mine: dict[int, dict[str, Any]] = {}
    with StopSignal() as stop, Progress(len(ranks.mine(len(tasks))), "measuring videos") as progress:
        for index in ranks.mine(len(tasks)):
            if stop.requested:
                break
            mine[index] = _measured(tasks[index], scores, store, settings, keep)
            progress.update()
        gathered = ranks.all_gather_object((mine, stop.requested))
    if any(stopped for _, stopped in gathered):
        raise Interrupted
    records = {index: record for part, _ in gathered for index, record in part.items()}
    ranks.barrier()
    if ranks.is_main:
        drop_kept(keep)
    by_path = {task.path: (task, records[index]) for index, task in enumerate(tasks)}
    broken = [
        Problem("broken", path.name, str(record["broken"]))
        for path, (_, record) in by_path.items()
        if "broken" in record
    ]
    if len(broken) == len(tasks):
        more = f"; and {len(broken) - 3} more" if len(broken) > 3 else ""
        first = "; ".join(f"{one.name}: {one.about}" for one in broken[:3])
        raise InputError(f"videos {folder}: none of the {len(broken)} can be read ({first}{more})")
    scores.problems += broken
    _collect(suite, videos, by_path, scores, settings.compat)
    return scores


def drop_kept(keep: Path) -> None:
    """Remove what was measured along the way, and the folder if nothing else is in it."""
    for file in (*keep.glob("*.json"), *keep.glob("*.new")):
        if _KEPT.fullmatch(file.name):
            file.unlink(missing_ok=True)
    with suppress(OSError):  # not there, or with a file of somebody else's in it
        keep.rmdir()


def _choose_providers(suite: Suite, store: ModelStore, compat: bool, scores: Scores) -> None:
    """The first provider of each dimension whose weights are there, and why the others have none."""
    for name in suite.dimensions:
        reasons = []
        for provider in catalogue()[name]:
            if provider.world:
                continue
            if (reason := provider.missing(store, compat)) is None:
                scores.used[name] = provider
                scores.origins[name] = {model: store.origin(model) for model in provider.opens(compat)}
                break
            reasons.append(reason)
        else:
            scores.unavailable[name] = "; ".join(reasons)


def _tasks(suite: Suite, videos: FolderVideos, folder: Path, settings: Settings) -> list[VideoTask]:
    """Each file once, in the suite's order; duplicated prompts ask for the same files."""
    record = {composed(name): noted for name, noted in read_record(folder).items()}
    facts: dict[str, dict[str, Any]] = {}
    for entry in suite.entries:
        facts.setdefault(entry.prompt, {}).update(entry.facts())
    tasks = []
    for prompt, paths in videos.videos.items():
        for path in paths:
            noted = record.get(composed(path.name), {})
            fps = settings.fps or float(noted.get("fps", 0.0))
            tasks.append(VideoTask(path, prompt, facts[prompt], fps, noted.get("seed")))
    return tasks


def _measured(
    task: VideoTask, scores: Scores, store: ModelStore, settings: Settings, keep: Path
) -> dict[str, Any]:
    """One file's scores by dimension, or ``broken``; read back where they were kept."""
    identity = [sha256_file(task.path), task.prompt, task.facts, task.fps, asdict(settings)]
    chosen = {
        name: [provider.method, {model: store.version(model) for model in scores.origins[name]}]
        for name, provider in scores.used.items()
        if name in task.facts
    }
    text = json.dumps([identity, chosen], sort_keys=True, default=str)
    file = keep / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    if file.is_file():
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return kept
    record = _measure(task, {name: scores.used[name] for name in chosen}, store, settings)
    write_atomically(file, json.dumps(record))
    return record


def _measure(
    task: VideoTask, chosen: Mapping[str, Dimension], store: ModelStore, settings: Settings
) -> dict[str, Any]:
    try:
        frames, rate = open_frames(task.path)
    except InputError as error:
        return {"broken": str(error).removeprefix(f"{task.path}: ")}
    video = Video(frames, task.fps or rate, task.prompt, task.facts, task.path.name, rate)
    scores: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, dimension in chosen.items():
        found = dimension.of(video, store, settings.compat)
        if isinstance(found, LeftOut):
            left_out[name] = found.reason
        else:
            scores[name] = [found.value, found.weight, dict(found.details)]
    return {"scores": scores, "left_out": left_out}


def _collect(
    suite: Suite,
    videos: FolderVideos,
    by_path: Mapping[Path, tuple[VideoTask, Mapping[str, Any]]],
    scores: Scores,
    compat: bool,
) -> None:
    """Put the scores together in the suite's order, whichever process they come from."""
    for name in list(scores.used):  # those without a score leave it
        scored: list[ScoredVideo] = []
        for entry in suite.entries:
            for path in videos.videos[entry.prompt] if name in entry.dimensions else []:
                task, record = by_path[path]
                if name in record.get("scores", {}):
                    value, weight, details = record["scores"][name]
                    details |= {} if task.seed is None else {SEED: task.seed}
                    scored.append(ScoredVideo(str(path), entry.prompt, VideoScore(value, weight, details)))
                elif name in record.get("left_out", {}):
                    scores.left_out.setdefault(name, {})[path.name] = record["left_out"][name]
        _summarise(name, scored, scores, compat)
    for entry in suite.entries:
        paths = [str(path) for path in videos.videos[entry.prompt]]
        info = {"prompt_en": entry.prompt, "dimension": list(entry.dimensions)}
        auxiliary = {"auxiliary_info": dict(entry.auxiliary)} if entry.auxiliary else {}
        scores.entries.append(info | auxiliary | {"video_list": paths})


def _summarise(name: str, scored: Sequence[ScoredVideo], scores: Scores, compat: bool) -> None:
    dimension = scores.used[name]
    value, counted = dimension.total(scored, compat)
    if not counted:
        del scores.used[name]
        scores.unavailable[name] = "no video that could be measured counts in it"
        return
    scores.results[name] = VBenchResult(
        value,
        tuple(VideoResult(one.name, one.score.value, one.score.details) for one in counted),
        dimension.measured_by(scores.origins[name]),
        OURS if dimension.variant and not compat else "",
    )
