"""The evaluation step: sample both models, measure, compare, report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from components.corpus.dataset import Corpus
from components.evaluation.comparison.measure import Side, measure
from components.evaluation.comparison.results import ModelComparison, write_comparison
from components.evaluation.comparison.verdict import flat_metrics, judge_pairs, put_to_gate
from components.evaluation.dimensions.base import VideoBatch
from components.evaluation.dimensions.classical_flow import workers
from components.evaluation.inputs import Inputs, trained_by
from components.evaluation.models import ModelStore
from components.evaluation.params import EvaluationParams
from components.evaluation.report.write import write_report
from components.evaluation.samples import Request, draw_requests, evenly_over_prompts, sample_both
from components.reward.scoring.load import open_reward
from components.runtime.artifacts.publish import publish
from components.runtime.compute import devices
from components.runtime.compute.seeds import numpy_rng
from components.runtime.gate.thresholds import SHIPPED, load_gate
from components.runtime.progress import Progress
from components.runtime.stats import Clusters
from components.runtime.tracking.step_run import track


@dataclass(frozen=True)
class EvaluationResult:
    """Where the artifact is, its metrics, and the comparison as a table."""

    out: Path
    metrics: dict[str, float]
    table: str


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
        Interrupted: stopped on request; sampled clips are kept and the same command resumes from them.
    """
    gate = load_gate(params.gate)
    inputs = Inputs.open(corpus=corpus, generator=generator, reward=reward, alignment=alignment)
    aligned = trained_by(inputs.alignment).folder
    requests = draw_requests(Corpus(inputs.corpus), params.prompts, params.seeds, params.run.seed)
    device = devices.resolve(params.run.device)
    read = {**vars(inputs), "gate": params.gate or SHIPPED}
    with (
        track("evaluation", params) as tracked,
        publish(str(out), step="evaluation", params=params, inputs=read) as workspace,
    ):
        frames = sample_both(inputs.generator, aligned, requests, params.batch, device, workspace.checkpoints)
        sides = _measure_both(frames, inputs, requests, params, device)
        rng = numpy_rng(params.run.seed, "evaluation", "sign flips")
        clusters = Clusters([request.prompt_id for request in requests], params.resamples, rng)
        verdict = judge_pairs(sides["base"], sides["aligned"], params, clusters)
        metrics = flat_metrics(verdict, sides["base"], sides["aligned"])
        all_metrics = {step: artifact.metrics() for step, artifact in vars(inputs).items()}
        all_metrics["evaluation"] = metrics
        verdict = put_to_gate(verdict, gate, all_metrics, sides["base"].unavailable)
        metrics["rules_failed"] = float(len(verdict.broken))
        comparison = ModelComparison(requests, frames, inputs.fps, sides, verdict, bool(params.compat))
        table = write_comparison(workspace.dir, comparison, inputs.digests(requests))
        write_report(workspace.dir, comparison, inputs, params)
        workspace.about_run.add("report.html")  # it names the code version
        workspace.write_metrics(metrics)
    tracked.finish(workspace.published or Path(out))
    return EvaluationResult(workspace.published or Path(out), metrics, table)


def _measure_both(
    frames: dict[str, Tensor],
    inputs: Inputs,
    requests: list[Request],
    params: EvaluationParams,
    device: torch.device,
) -> dict[str, Side]:
    """Each side's figures; flow, which is slow, is estimated in worker processes on some of the clips."""
    reward, store = open_reward(inputs.reward, device), ModelStore(params.weights, device)
    prompts = tuple(request.prompt for request in requests)
    flow_on = evenly_over_prompts(requests, params.flow_pairs)
    sides = {}
    with workers(2 * int(flow_on.sum())) as pool, Progress(2, "evaluation: measuring models") as progress:
        for name, clips in frames.items():
            videos = VideoBatch(clips, inputs.fps, prompts, pool, flow_on)
            sides[name] = measure(videos, reward, params.batch, store, bool(params.compat))
            progress.update()
    return sides
