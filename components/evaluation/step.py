"""The evaluation step: sample both models, measure, compare, report."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.corpus.dataset import Corpus
from components.evaluation.comparison.measure import NO_WORLD, Side, measure
from components.evaluation.comparison.results import as_results, pair_rows, video_names, write_videos
from components.evaluation.comparison.table import as_table
from components.evaluation.comparison.verdict import Verdict, as_json, flat_metrics, judge_pairs, put_to_gate
from components.evaluation.dimensions.classical_flow import workers
from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.evaluation.models import Shelf
from components.evaluation.params import EvaluationParams
from components.evaluation.report import (
    Material,
    choose_pairs,
    read_log,
    read_reward,
    read_versions,
    render,
    shown_pairs,
)
from components.evaluation.samples import Request, Sampler, requests, sample_side, spread
from components.evaluation.vbench.files import write_results
from components.evaluation.vbench.totals import totals
from components.reward.base import scoring_files
from components.reward.scoring.load import open_reward
from components.runtime.artifacts import provenance
from components.runtime.artifacts.artifact import Artifact, open_artifact
from components.runtime.artifacts.publish import Workspace, publish
from components.runtime.compute import devices
from components.runtime.compute.seeds import numpy_rng
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from components.runtime.gate.thresholds import SHIPPED, load_gate
from components.runtime.params import canonical_json
from components.runtime.progress import Progress
from components.runtime.stats import CONFIDENCE, Clusters
from components.runtime.tracking.step_run import flattened, track
from components.video.clip import Clip
from components.video.codec import write_video
from components.video.sheets import side_by_side

#: Where an alignment keeps what it trained, by what a digest of it is called: a LoRA, or all weights.
KINDS = {"lora_digest": "lora/", "weights_digest": "weights/"}
SIDES = ("base", "aligned")
NAMES = {"judge": "independent judge", "reward": "training reward"}


@dataclass(frozen=True)
class EvaluationResult:
    """Where the artifact is, its metrics, and the comparison as a table."""

    out: Path
    metrics: dict[str, float]
    table: str


@dataclass(frozen=True)
class Inputs:
    """The opened artifacts."""

    corpus: Artifact
    generator: Artifact
    reward: Artifact
    alignment: Artifact


@dataclass(frozen=True)
class Trained:
    """What an alignment trained: its folder, and a SHA-256 of its weights under the name for its kind."""

    folder: Path
    digest: dict[str, str]


def trained_by(alignment: Artifact) -> Trained:
    """Find a LoRA, or all of the denoiser's weights, in an alignment's artifact.

    Raises:
        InputError: it has neither.
    """
    for name, folder in KINDS.items():
        digests = [
            entry.sha256
            for file, entry in sorted(alignment.manifest.files.items())
            if file.startswith(folder) and file.endswith(".safetensors")
        ]
        if digests:
            whole = digests[0] if len(digests) == 1 else _digest(digests)
            return Trained(alignment.path / folder, {name: whole})
    raise InputError(f"{alignment.path}: no aligned weights in {' or '.join(KINDS.values())}")


def open_sampler(generator: Artifact, device: torch.device, aligned: Path | None) -> Sampler:
    """The base generator, or the aligned one when ``aligned`` is the folder of what was trained."""
    from components.generator.generator import Generator

    return Generator.load(generator.path, device=device, aligned=aligned)


def run(
    params: EvaluationParams,
    *,
    corpus: str | Path,
    generator: str | Path,
    reward: str | Path,
    alignment: str | Path,
    out: str | Path,
) -> EvaluationResult:
    """Compare the aligned generator with its base on held-out prompts, same seeds, and publish the report.

    Raises:
        InputError: an input is missing, altered, or has no held-out prompt; the gate file is wrong.
        Interrupted: stopped on request; sampled clips are kept and the same command goes on from them.
    """
    gate = load_gate(params.gate)
    opened = Inputs(
        corpus=open_artifact(corpus, step="corpus"),
        generator=open_artifact(generator, step="generator"),
        reward=open_artifact(reward, step="reward"),
        alignment=open_artifact(alignment, step="alignment"),
    )
    aligned_weights = trained_by(opened.alignment).folder
    fps = float(json.loads(opened.generator.file("generator.json").read_text(encoding="utf-8"))["fps"])
    asked = requests(Corpus(opened.corpus), params.prompts, params.seeds, params.run.seed)
    device = devices.resolve(params.run.device)
    inputs: dict[str, str | Path | Artifact] = {**vars(opened), "gate": params.gate or SHIPPED}
    with (
        track("evaluation", params) as tracked,
        publish(str(out), step="evaluation", params=params, inputs=inputs) as workspace,
    ):
        frames = _sample_both(opened, aligned_weights, asked, params, device, workspace)
        scorer = open_reward(opened.reward, device)
        prompts = [one.prompt for one in asked]
        flow_on = spread(asked, params.flow_pairs)
        shelf = Shelf(params.weights, device)
        with workers(2 * int(flow_on.sum())) as pool, Progress(2, "evaluation: measuring models") as progress:
            sides = []
            for name in SIDES:
                sides.append(
                    measure(
                        frames[name],
                        fps,
                        prompts,
                        scorer,
                        params.batch,
                        pool,
                        flow_on,
                        shelf,
                        bool(params.compat),
                    )
                )
                progress.update()
        base, aligned = sides
        rng = numpy_rng(params.run.seed, "evaluation", "sign flips")
        clusters = Clusters([one.prompt_id for one in asked], params.resamples, rng)
        verdict = judge_pairs(base, aligned, params, clusters)
        metrics = flat_metrics(verdict, base, aligned, len({one.prompt_id for one in asked}))
        others = {name: artifact.metrics() for name, artifact in vars(opened).items()}
        verdict = put_to_gate(verdict, gate, others | {"evaluation": metrics}, base.unavailable)
        metrics["rules_failed"] = float(len(verdict.broken))
        table = as_table(verdict, base.unavailable, CONFIDENCE)
        _write(workspace.dir, opened, params, asked, frames, fps, base, aligned, verdict, table)
        workspace.about_run.add("report.html")  # it names the code version
        workspace.write_metrics(metrics)
    tracked.finish(workspace.published or Path(out))
    return EvaluationResult(workspace.published or Path(out), metrics, table)


def _sample_both(
    opened: Inputs,
    aligned: Path,
    asked: list[Request],
    params: EvaluationParams,
    device: torch.device,
    workspace: Workspace,
) -> dict[str, Tensor]:
    """Both models' clips, one model in memory at a time."""
    frames: dict[str, Tensor] = {}
    with StopSignal() as stop, Progress(2 * len(asked), "evaluation: sampling clips") as progress:

        def after(done: int) -> None:
            progress.update(done)
            stop.raise_if_requested()

        for name, weights in zip(SIDES, (None, aligned), strict=True):
            sampler = open_sampler(opened.generator, device, weights)
            frames[name] = sample_side(sampler, asked, params.batch, workspace.checkpoints / name, after)
    return frames


def _write(
    folder: Path,
    opened: Inputs,
    params: EvaluationParams,
    asked: list[Request],
    frames: dict[str, Tensor],
    fps: float,
    base: Side,
    aligned: Side,
    verdict: Verdict,
    table: str,
) -> None:
    names = video_names(asked)
    for name, side in zip(SIDES, (base, aligned), strict=True):
        write_videos(folder / "videos" / name, frames[name], fps, names)
        paths = [f"videos/{name}/{video}" for video in names]
        write_results(
            folder / "results" / f"{name}_eval_results.json", as_results(side, paths, bool(params.compat))
        )
    rows = pair_rows(asked, base, aligned)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "table.txt").write_text(table, encoding="utf-8")
    comparison = as_json(verdict) | _setting(opened, asked) | {"unavailable": base.unavailable}
    if verdict.judge is None:
        comparison["unavailable"] = {"judge": NO_WORLD} | base.unavailable
    (folder / "comparison.json").write_text(json.dumps(comparison, indent=1) + "\n", encoding="utf-8")
    _write_plots(folder / "plots", verdict)

    figures = {"reward": (base.reward, aligned.reward)}
    if base.judge is not None and aligned.judge is not None:
        figures = {"judge": (base.judge, aligned.judge)} | figures
    chosen_by, (before, after) = next(iter(figures.items()))
    rng = numpy_rng(params.run.seed, "evaluation", "shown")
    places = choose_pairs(after - before, params.report_pairs, rng)
    shown = shown_pairs(places, [one.prompt for one in asked], [one.index for one in asked], figures)
    (folder / "clips").mkdir(exist_ok=True)
    for number, one in enumerate(shown):
        pair = [Clip(frames[name][one.place], fps) for name in SIDES]
        write_video(
            side_by_side(pair, SIDES),
            folder / "clips" / f"{number:02d}-{one.group}.mp4",
        )

    log = opened.alignment.path / "plots" / "training.csv"
    page = render(
        Material(
            verdict=verdict,
            dimensions={
                name: {"group": used.group, "definition": used.definition, "method": used.method}
                for name, used in base.used.items()
            },
            unavailable=({"independent judge": NO_WORLD} if verdict.judge is None else {}) | base.unavailable,
            shown=shown,
            chosen_by=f"the change of the {NAMES[chosen_by]}",
            log=read_log(log),
            reward=read_reward(opened.reward.path, opened.reward.metrics()),
            versions=read_versions(opened.alignment.path),
            totals=_totals_in_words(base, bool(params.compat)),
            provenance=_provenance(opened, params, asked),
            sources={name: artifact.manifest for name, artifact in vars(opened).items()},
            setting=_in_words(asked),
            diversity_of=base.compared,
            motion_by=base.moved,
            confidence=CONFIDENCE,
        ),
        frames["base"],
        frames["aligned"],
        fps,
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _setting(opened: Inputs, asked: list[Request]) -> dict[str, Any]:
    """Digests of what two evaluations must share to be comparable, and of what was evaluated."""
    files = opened.reward.manifest.files
    reward_files = {name: files[name].sha256 for name in scoring_files(files)}
    return {
        "requests_digest": _digest([asdict(one) for one in asked]),
        "reward_digest": _digest(reward_files),
        "generator_digest": opened.generator.manifest.digest,
    } | trained_by(opened.alignment).digest


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _write_plots(folder: Path, verdict: Verdict) -> None:
    """A table that plotting tools read: one row for each dimension and model."""
    folder.mkdir(exist_ok=True)
    with (folder / "dimensions.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["dimension", "model", "score"])
        for name, paired in verdict.dimensions.items():
            writer.writerows([[name, "base", paired.base_mean], [name, "aligned", paired.aligned_mean]])


def _totals_in_words(side: Side, compat: bool) -> str:
    own = {
        name: float(np.nanmean(scores))
        for name, scores in side.scores.items()
        if not side.used[name].method and (compat or not side.used[name].variant)
    }
    missing = totals(own).missing
    if not missing:
        found = totals(own)
        figures = f"quality {found.quality:.4f}, semantic {found.semantic:.4f}, total {found.total:.4f}"
        return f"VBench of the base model: {figures}."
    number = len(QUALITY + SEMANTIC)
    return (
        f"No VBench total: {len(missing)} of its {number} dimensions are unavailable here "
        "or not measured in VBench's way, and a total of the rest would not be comparable."
    )


def _in_words(asked: list[Request]) -> str:
    prompts = len({one.prompt_id for one in asked})
    seeds = len(asked) // prompts
    return (
        f"{len(asked)} pairs of clips, {prompts} held-out prompts x {seeds} seeds, the same for both models"
    )


def _provenance(opened: Inputs, params: EvaluationParams, asked: list[Request]) -> list[tuple[str, str]]:
    version, dirty = provenance.code_version()
    libraries = provenance.library_versions()
    sampler = json.loads(opened.generator.file("generator.json").read_text(encoding="utf-8"))
    setting = _setting(opened, asked)
    return [
        ("code", f"{version}{' with uncommitted changes' if dirty else ''}"),
        ("run seed", str(params.run.seed)),
        ("first and last sampling seed", f"{asked[0].seed}, {asked[-1].seed}"),
        ("prompts and seeds", f"sha256 {setting['requests_digest']}"),
        ("reward", f"sha256 {setting['reward_digest']}"),
        ("aligned weights", f"sha256 {next(iter(trained_by(opened.alignment).digest.values()))}"),
        ("sampler", _named(sampler)),
        ("evaluation params", _named(params.model_dump(mode="json", exclude={"run"}))),
        ("libraries", ", ".join(f"{name} {libraries[name]}" for name in sorted(libraries))),
    ]


def _named(values: dict[str, Any]) -> str:
    """``steps 8, guidance 1.0``; what is nested gets its place's name."""
    flat = flattened(values)
    return ", ".join(f"{name} {value if value != '' else 'none'}" for name, value in flat.items())
