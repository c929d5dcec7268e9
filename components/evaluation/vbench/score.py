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

from components.evaluation.dimensions.base import Dimension, LeftOut, Measured, Outcome, Video
from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.models import Shelf
from components.evaluation.vbench.files import METHOD, OURS, SEED, VARIANT, Result, VideoResult
from components.evaluation.vbench.folder import Found, Problem, counts, find_videos
from components.evaluation.vbench.sample_record import read_record
from components.evaluation.vbench.suites import Suite
from components.evaluation.vbench.totals import totals
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
class Task:
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
        silent: by dimension, videos that its definition leaves out, with the reason.
    """

    results: dict[str, Result] = field(default_factory=dict)
    used: dict[str, Dimension] = field(default_factory=dict)
    origins: dict[str, dict[str, str]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    silent: dict[str, dict[str, str]] = field(default_factory=dict)


def score(
    suite: Suite, folder: Path, shelf: Shelf, settings: Settings, keep: Path, ranks: Ranks | None = None
) -> Scores:
    """Measure every video of a suite in ``folder``, with every dimension the suite asks for.

    What is measured of a video is kept in ``keep`` at once; a stopped run goes on from there, and ``keep`` is
    removed at the end. Videos are dealt out to the processes in turn, and every process returns the same.

    Raises:
        InputError: no such folder, no dimension can be measured, no video of the suite is there, or none can
            be read.
        Interrupted: stopped on request.
    """
    ranks = ranks or Ranks()
    found = find_videos(suite, folder)
    scores = Scores(problems=list(found.problems))
    _choose(suite, shelf, settings.compat, scores)
    if not scores.used:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in scores.unavailable.items())
        raise InputError(f"no dimension of suite {suite.name} can be measured: {reasons}")
    tasks = _tasks(suite, found, folder, settings)
    if not tasks:
        raise InputError(
            f"videos {folder}: none of the {len(suite.wanted())} prompts of {suite.name} has one"
        )
    mine: dict[int, dict[str, Any]] = {}
    with StopSignal() as stop, Progress(len(ranks.mine(len(tasks))), "measuring videos") as progress:
        for place in ranks.mine(len(tasks)):
            if stop.requested:
                break
            mine[place] = _measured(tasks[place], scores, shelf, settings, keep)
            progress.update()
        gathered = ranks.all_gather_object((mine, stop.requested))
    if any(stopped for _, stopped in gathered):
        raise Interrupted
    together: dict[int, dict[str, Any]] = {}
    for part, _ in gathered:
        together |= part
    _refuse_all_broken(folder, tasks, together, keep, ranks)
    _collect(suite, found, tasks, together, scores, settings)
    ranks.barrier()
    if ranks.is_main:
        drop_kept(keep)
    return scores


def drop_kept(keep: Path) -> None:
    """Remove what was measured along the way, and the folder if nothing else is in it."""
    for file in (*keep.glob("*.json"), *keep.glob("*.new")):
        if _KEPT.fullmatch(file.name):
            file.unlink(missing_ok=True)
    with suppress(OSError):  # not there, or with a file of somebody else's in it
        keep.rmdir()


def _refuse_all_broken(
    folder: Path, tasks: Sequence[Task], measured: Mapping[int, Mapping[str, Any]], keep: Path, ranks: Ranks
) -> None:
    """Nothing was measured where no video can be read: that is no result, and no success."""
    reasons = [
        f"{task.path.name}: {measured[place]['broken']}"
        for place, task in enumerate(tasks)
        if "broken" in measured[place]
    ]
    if len(reasons) < len(tasks):
        return
    ranks.barrier()
    if ranks.is_main:
        drop_kept(keep)
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    raise InputError(
        f"videos {folder}: none of the {len(reasons)} can be read ({'; '.join(reasons[:3])}{more})"
    )


def _choose(suite: Suite, shelf: Shelf, compat: bool, scores: Scores) -> None:
    """The first provider of each dimension whose weights are there, and why the others have none."""
    wanted = {name for entry in suite.entries for name in entry.dimensions}
    for name, providers in catalogue().items():
        if name not in wanted:
            continue
        reasons = []
        for provider in providers:
            reason = None if provider.needs != "world" else "made for the miniature world"
            reason = reason or provider.missing(shelf, compat)
            if reason is None:
                scores.used[name] = provider
                scores.origins[name] = {model: shelf.origin(model) for model in provider.opens(compat)}
                break
            reasons += [reason] if provider.needs != "world" else []
        else:
            scores.unavailable[name] = "; ".join(reasons)


def _tasks(suite: Suite, found: Found, folder: Path, settings: Settings) -> list[Task]:
    """Each file once, in the suite's order; duplicated prompts ask for the same files."""
    record = {composed(name): noted for name, noted in read_record(folder).items()}
    facts: dict[str, dict[str, Any]] = {}
    for entry in suite.entries:
        facts.setdefault(entry.prompt, {}).update(entry.facts())
    return [
        Task(
            path,
            prompt,
            facts[prompt],
            settings.fps or float(record.get(composed(path.name), {}).get("fps", 0.0)),
            record.get(composed(path.name), {}).get("seed"),
        )
        for prompt, paths in found.videos.items()
        for path in paths
    ]


def _measured(task: Task, scores: Scores, shelf: Shelf, settings: Settings, keep: Path) -> dict[str, Any]:
    """One file's outcomes by dimension, or ``broken``; read back where they were kept."""
    digest = sha256_file(task.path)
    identity = [digest, task.prompt, task.facts, task.fps, asdict(settings)]
    chosen = {
        name: [provider.method, {model: shelf.version(model) for model in scores.origins[name]}]
        for name, provider in scores.used.items()
        if name in task.facts
    }
    text = json.dumps([identity, chosen], sort_keys=True, default=str)
    file = keep / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    if file.is_file():
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return kept
    result = _measure(task, {name: scores.used[name] for name in chosen}, shelf, settings)
    write_atomically(file, json.dumps(result))
    return result


def _measure(task: Task, chosen: Mapping[str, Dimension], shelf: Shelf, settings: Settings) -> dict[str, Any]:
    try:
        frames, rate = open_frames(task.path)
    except InputError as error:
        return {"broken": str(error).removeprefix(f"{task.path}: ")}
    video = Video(frames, task.fps or rate, task.prompt, task.facts, task.path.name, rate)
    outcomes: dict[str, Any] = {}
    silent: dict[str, str] = {}
    for name, dimension in chosen.items():
        outcome = dimension.of(video, shelf, settings.compat)
        if isinstance(outcome, LeftOut):
            silent[name] = outcome.reason
        else:
            outcomes[name] = [outcome.value, outcome.weight, dict(outcome.details)]
    return {"outcomes": outcomes, "silent": silent}


def _collect(
    suite: Suite,
    found: Found,
    tasks: Sequence[Task],
    measured: Mapping[int, Mapping[str, Any]],
    scores: Scores,
    settings: Settings,
) -> None:
    """Put outcomes together in the suite's order, whichever process they come from."""
    by_path = {task.path: (task, measured[place]) for place, task in enumerate(tasks)}
    for task, record in by_path.values():
        if "broken" in record:
            scores.problems.append(Problem("broken", task.path.name, str(record["broken"])))
    for name in list(scores.used):  # those with nothing to say leave it
        rows: list[Measured] = []
        for entry in suite.entries:
            for path in found.videos[entry.prompt] if name in entry.dimensions else []:
                task, record = by_path[path]
                outcome = record.get("outcomes", {}).get(name)
                if outcome is None:
                    reason = record.get("silent", {}).get(name)
                    if reason is not None:
                        scores.silent.setdefault(name, {})[path.name] = reason
                    continue
                value, weight, details = outcome
                seed = {} if task.seed is None else {SEED: task.seed}
                rows.append(Measured(str(path), entry.prompt, Outcome(value, weight, details | seed)))
        _summarise(name, rows, scores, settings.compat)
    for entry in suite.entries:
        paths = [str(path) for path in found.videos[entry.prompt]]
        info = {"prompt_en": entry.prompt, "dimension": list(entry.dimensions)}
        auxiliary = {"auxiliary_info": dict(entry.auxiliary)} if entry.auxiliary else {}
        scores.entries.append(info | auxiliary | {"video_list": paths})


def _summarise(name: str, rows: list[Measured], scores: Scores, compat: bool) -> None:
    dimension = scores.used[name]
    value, counted = dimension.total(rows, compat)
    if not counted:
        del scores.used[name]
        scores.unavailable[name] = "no video that could be measured counts in it"
        return
    method = dimension.measured_by(scores.origins[name])
    about = {METHOD: method} if method else {}
    if dimension.variant and not compat:
        about[VARIANT] = OURS
    videos = tuple(
        VideoResult(row.name, row.outcome.value, {**row.outcome.details, **about}) for row in counted
    )
    scores.results[name] = Result(value, videos)


def notes(suite: Suite, scores: Scores, settings: Settings) -> list[dict[str, Any]]:
    """What a reader of the scores must know, a line each: the whole, each dimension, each problem."""
    published = {n: one.score for n, one in scores.results.items() if not one.method and not one.variant}
    whole = totals(published)
    lines: list[dict[str, Any]] = [
        {
            "kind": "about",
            "suite": suite.name,
            "suite_digest": suite.digest,
            "prompts": len(suite.wanted()),
            "videos": sum(len(one["video_list"]) for one in scores.entries),
            "variant": "vbench" if settings.compat else "ours",
            "problems": counts(scores.problems),
            "quality": whole.quality,
            "semantic": whole.semantic,
            "total": whole.total,
        }
    ]
    wanted = {name for entry in suite.entries for name in entry.dimensions}
    for name in (name for name in catalogue() if name in wanted):
        line: dict[str, Any] = {"kind": "dimension", "dimension": name}
        if name in scores.unavailable:
            lines.append(line | {"unavailable": scores.unavailable[name]})
            continue
        dimension, result = scores.used[name], scores.results[name]
        line |= {"score": result.score, "videos": len(result.videos), "definition": dimension.definition}
        line |= {"weights": scores.origins[name]} if scores.origins[name] else {}
        line |= {"method": result.method} if result.method else {}
        if dimension.variant:
            line["variant"] = "as published" if settings.compat else dimension.variant
        lines.append(line | ({"left_out": scores.silent[name]} if name in scores.silent else {}))
    return lines + [asdict(problem) for problem in scores.problems]
