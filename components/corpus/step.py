"""The corpus step: gather pristine clips and prompts, split both, publish them."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from components.corpus.dataset import SOURCES, SPLITS, ClipRecord, RecordedClip, write_corpus, write_rows
from components.corpus.folder import STILL, take_folder
from components.corpus.footage import (
    FootageReport,
    FootageSource,
    changes,
    detail,
    draw_clips,
    footage_records,
    packaged_sources,
    share,
)
from components.corpus.params import ClipCounts, CorpusParams
from components.corpus.prompts import Prompt, read_prompts, world_prompts
from components.corpus.world.render import render
from components.corpus.world.scene import all_scenes
from components.corpus.world.splits import clip_split_of, slug
from components.runtime.artifacts.publish import StepResult, publish
from components.runtime.compute.devices import configure_threads
from components.runtime.compute.seeds import derive, numpy_rng
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from components.runtime.progress import Progress
from components.runtime.tracking.step_run import track
from components.video.clip import Clip
from components.video.contact_sheets import contact_sheet

SHEET_CLIPS = 2  # rows of the contact sheet for each split and source


def run(params: CorpusParams, *, out: str | Path) -> StepResult:
    """Build a corpus and publish it at `out`.

    Raises:
        InputError: nothing readable where footage was named, a bad list of prompts, or a split left without
            clips.
    """
    configure_threads()
    prompts = read_prompts(params.prompts) if params.prompts else world_prompts()
    with track("corpus", params) as tracked:
        inputs = {"footage": params.footage, "prompts": params.prompts}
        with publish(out, step="corpus", params=params, inputs=inputs) as workspace, StopSignal() as stop:
            clips, reports = gather(params, stop)
            header = {name: getattr(params, name) for name in ("fps", "frames", "height", "width")}
            write_corpus(workspace.dir, header, clips, prompts)
            write_rows(workspace.dir / "footage.jsonl", [asdict(report) for report in reports])
            (workspace.dir / "plots").mkdir(exist_ok=True)
            sheet = contact_sheet(*_rows_of_sheet(clips, params.fps), title=_title(clips, params), cell=72)
            sheet.save(workspace.dir / "plots" / "corpus.png")
            metrics = measure(clips, prompts, reports)
            workspace.write_metrics(metrics)
        published = workspace.published or Path(out)
        tracked.finish(published)
    return StepResult(published, metrics)


def gather(params: CorpusParams, stop: StopSignal) -> tuple[list[RecordedClip], list[FootageReport]]:
    """Every clip of the corpus and what became of each footage file.

    Raises:
        InputError: no clip at all in the train split, or footage named by the user that gives none.
    """
    clips: list[RecordedClip] = []
    reports: list[FootageReport] = []
    # The user's videos first: what is wrong with them is then said at once.
    if params.footage is not None:
        clips, reports = take_folder(params.footage, params, after_each=stop.raise_if_requested)
    with Progress(len(clips) + _expected(params), "corpus: clips", start=len(clips)) as progress:
        if "world" in params.sources:
            for item in world_clips(params):
                clips.append(item)
                progress.update(1)
                stop.raise_if_requested()
        if "packaged" in params.sources:
            sources: list[FootageSource] = []
            unusable: list[FootageReport] = []
            for entry in packaged_sources(params):
                if isinstance(entry, FootageSource):
                    sources.append(entry)
                else:
                    unusable.append(entry)
                stop.raise_if_requested()
            for source, count in _with_counts(sources, params.footage_clips):
                drawn = draw_clips(source, count, params.run.seed)
                clips += footage_records(source.content, source.split, drawn)
                reason = STILL if count and not drawn else None
                name = source.content.split("/", 1)[1]
                reports.append(FootageReport(name, "packaged", source.split, len(drawn), reason))
                progress.update(count)
                stop.raise_if_requested()
            reports += unusable
    for report in reports:
        if report.reason is not None:
            # A file's name may hold line ends and terminal codes; this is one line of plain text.
            line = f"corpus: left out {report.name}: {report.reason}"
            print("".join(sign if sign.isprintable() else "?" for sign in line), file=sys.stderr)
    if not any(record.split == "train" for record, _ in clips):
        raise InputError(
            "corpus: no clip for the train split; check corpus.sources, corpus.footage and the counts"
        )
    return clips, reports


def world_clips(params: CorpusParams) -> Iterator[RecordedClip]:
    """Pristine clips of the miniature world: each split its own scenes, each clip its own named seed."""
    for split, count in params.world_clips:
        scenes = [scene for scene in all_scenes() if clip_split_of(scene) == split]
        order = numpy_rng(params.run.seed, "corpus", "world", split).permutation(len(scenes))
        for index in range(count):
            # Scenes repeat, each time with another seed, only once all of the split's have been used.
            take, scene = index // len(scenes), scenes[int(order[index % len(scenes)])]
            seed = derive(params.run.seed, "corpus", "world", scene.caption, take)
            frames = render(scene, seed, frames=params.frames, size=params.height)
            content = f"world/{slug(scene)}/{take}"
            yield ClipRecord(content, "world", content, split, scene.caption), frames


def measure(
    clips: list[RecordedClip], prompts: list[Prompt], reports: list[FootageReport]
) -> dict[str, float]:
    """The corpus in flat numbers."""
    metrics: dict[str, float] = {"clips": float(len(clips))}
    contents: dict[str, set[str]] = {}
    for split in SPLITS:
        contents[split] = {record.content for record, _ in clips if record.split == split}
        for source in SOURCES:
            metrics[f"clips_{split}_{source}"] = float(
                sum(record.split == split and record.source == source for record, _ in clips)
            )
        metrics[f"contents_{split}"] = float(len(contents[split]))
    seen = Counter(content for split in SPLITS for content in contents[split])
    metrics["contents_in_two_splits"] = float(sum(times > 1 for times in seen.values()))
    for source in SOURCES:
        frames = [frames for record, frames in clips if record.source == source]
        if frames:
            metrics[f"{source}_motion"] = sum(float(changes(item).mean()) for item in frames) / len(frames)
            metrics[f"{source}_detail"] = sum(detail(item) for item in frames) / len(frames)
    metrics["footage_files_left_out"] = float(sum(report.reason is not None for report in reports))
    for split in ("train", "heldout"):
        metrics[f"prompts_{split}"] = float(sum(prompt.split == split for prompt in prompts))
    return metrics


def _with_counts(sources: list[FootageSource], counts: ClipCounts) -> Iterator[tuple[FootageSource, int]]:
    for split, total in counts:
        chosen = [source for source in sources if source.split == split]
        yield from zip(chosen, share([source.weight for source in chosen], total), strict=True)


def _expected(params: CorpusParams) -> int:
    counts = {"world": params.world_clips, "packaged": params.footage_clips}
    return sum(number for source in params.sources for _, number in counts[source])


def _rows_of_sheet(clips: list[RecordedClip], fps: float) -> tuple[list[Clip], list[str]]:
    shown: list[Clip] = []
    labels: list[str] = []
    for split in SPLITS:
        for source in SOURCES:
            group = [item for item in clips if item[0].split == split and item[0].source == source]
            step = max(1, len(group) // SHEET_CLIPS)
            for record, frames in group[step // 2 :: step][:SHEET_CLIPS]:
                shown.append(Clip(frames, fps))
                text = record.caption or record.content
                labels.append("\n".join([f"{split}, {source}", *textwrap.wrap(text, 30)]))
    return shown, labels


def _title(clips: list[RecordedClip], params: CorpusParams) -> str:
    numbers = Counter(record.split for record, _ in clips)
    parts = ", ".join(f"{numbers[split]} {split}" for split in SPLITS)
    size = f"{params.width} x {params.height}"
    return f"Corpus: {parts} clips of {params.frames} frames, {size}, {params.fps:g} fps"
