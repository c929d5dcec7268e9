"""The reward step: ladders, training, card, gate."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.corpus.dataset import Corpus
from components.reward.card import gate, plots
from components.reward.card import measure as measuring
from components.reward.card.markdown import as_markdown
from components.reward.card.measure import Measured
from components.reward.distortions import REGISTRY
from components.reward.ladders import replay
from components.reward.ladders.few_step import DrawnLadders, draw
from components.reward.ladders.ladder import seen_types
from components.reward.ladders.shards import ShardFolder, plan_of
from components.reward.ladders.sources import Material, gather, judge_of
from components.reward.model.training import Curve, train
from components.reward.params import RewardParams
from components.reward.scoring.trained import Scorer
from components.runtime.artifacts.artifact import Artifact, cache_dir, open_artifact, publish
from components.runtime.compute.devices import (
    available_cpus,
    configure_determinism,
    configure_threads,
    resolve,
)
from components.runtime.compute.distributed import Ranks, is_node_leader, process_group
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import GateRefused, InputError
from components.runtime.tracking.step_run import track

if TYPE_CHECKING:
    import torch

    from components.generator.generator import Generator

GENERATOR_SETTINGS = "generator.json"
"""In a generator's artifact, where it holds a model that can draw."""


@dataclass(frozen=True)
class RewardResult:
    """Where the reward is, and its flat metrics."""

    out: Path
    metrics: dict[str, float]


def run(params: RewardParams, *, corpus: str | Path, generator: str | Path, out: str | Path) -> RewardResult:
    """Trains a reward, measures it on held-out content and lets it pass the gate or not.

    Raises:
        InputError: bad inputs, or distortion names in the params that do not exist.
        GateRefused: the reward is published with its card, and its card fails a threshold.
        Interrupted: stopped; the same call resumes.
    """
    _check_names(params)
    configure_threads()
    configure_determinism()
    device = resolve(params.run.device)
    corpus_artifact, generator_artifact = Corpus.open(corpus), open_artifact(generator, step="generator")
    inputs = {"corpus": corpus, "generator": generator}
    refused: list[str] = []
    metrics: dict[str, float] = {}
    with process_group(str(device)) as ranks, track("reward", params) as tracked:
        try:
            with publish(out, step="reward", params=params, inputs=inputs) as workspace, StopSignal() as stop:
                material = gather(corpus_artifact, generator_artifact, params.card.prompts, params.run.seed)
                scratch = workspace.dir / ".shards"
                drawn = _few_steps(params, generator_artifact, material, device, scratch, stop, ranks)
                plan = plan_of(
                    material,
                    params.ladders,
                    params.run.seed,
                    drawn=drawn,
                    pixels=bool(params.network.backbone),
                    cache=cache_dir() / "labels",
                )
                # Hidden, so not published; beside the checkpoints, not among them: those are copied
                # elsewhere.
                shards = ShardFolder(scratch, plan, stop, builds=is_node_leader())
                began = time.monotonic()
                with shards.workers():
                    network, curve = train(
                        shards,
                        params,
                        checkpoints=workspace.checkpoints,
                        stop=stop,
                        device=device,
                        ranks=ranks,
                        report=tracked.metrics,
                    )
                timing = {
                    "train_seconds": time.monotonic() - began,
                    "train_waited_for_ladders": shards.waited,
                }
                if ranks.is_main:
                    scorer = Scorer(network, material.geometry, device)
                    began = time.monotonic()
                    judged = judge_of(material.samples_card)
                    measured = measuring.measure(
                        scorer.score_prepared, material, params.card,
                        heldout_types=params.ladders.heldout_types, seed=params.run.seed, stop=stop,
                        judged=judged, rate=scorer.rate_prepared,
                        generator=_drawing(generator_artifact, params, device),
                        cache=cache_dir() / "labels", workers=_workers(),
                    )  # fmt: skip
                    measured.card.data["training"] = {
                        pool.source: {"contents": len(set(pool.clips.contents)), "ladders": pool.ladders}
                        for pool in plan.pools
                    }
                    checks = gate.checks(measured.card, params.gate)
                    refused = gate.refusals(checks)
                    scorer.save(workspace.dir, params.network)
                    metrics = write_card(workspace.dir, measured, checks, refused, curve, len(plan))
                    timing["card_seconds"] = time.monotonic() - began
                    if network.backbone is None:
                        replay.keep(workspace.dir, shards, measured.ladders, material.samples_card, judged)
                    timing |= measuring.throughput(scorer.score_prepared, material.test)
                    (workspace.dir / "timing.json").write_text(json.dumps(timing, indent=2) + "\n")
                    workspace.about_run.add("timing.json")
                refused, metrics = ranks.broadcast_object((refused, metrics))
                if refused:
                    workspace.publish_on_refusal = True
                    raise GateRefused("reward gate: " + "; ".join(refused))
        finally:
            if refused and workspace.published is not None:
                tracked.finish(workspace.published)
        tracked.finish(workspace.published or Path(out))
    return RewardResult(workspace.published or Path(out), metrics)


def _check_names(params: RewardParams) -> None:
    for key in ("stressed", "heldout_types"):
        unknown = [name for name in getattr(params.ladders, key) if name not in REGISTRY]
        if unknown:
            raise InputError(
                f"reward.ladders.{key}: unknown distortion {', '.join(unknown)}; "
                f"known: {', '.join(sorted(REGISTRY))}"
            )
    if not seen_types(params.ladders.heldout_types):
        raise InputError(
            "reward.ladders.heldout_types holds out every distortion; nothing is left to train on"
        )


def _few_steps(
    params: RewardParams,
    artifact: Artifact,
    material: Material,
    device: torch.device,
    folder: Path,
    stop: StopSignal,
    ranks: Ranks,
) -> DrawnLadders | None:
    """Ladders that the generator draws, on one process of each machine, and the others read."""
    counts = params.ladders
    if not counts.few_steps:
        return None

    def drawn(generator: Generator | None) -> DrawnLadders:
        return draw(
            generator, material.prompts_train, counts.few_steps, counts.rungs, material.geometry,
            params.run.seed, folder / "drawn.safetensors", stop,
        )  # fmt: skip

    if is_node_leader():
        from components.generator.generator import Generator

        drawn(Generator.load(artifact.path, device))
    ranks.barrier()
    return drawn(None)


def _workers() -> int:
    """Processes that build the card's ladders: one for every core, none where there is one."""
    cores = available_cpus()
    return cores if cores > 1 else 0


def _drawing(artifact: Artifact, params: RewardParams, device: torch.device) -> Generator | None:
    """The generator of an artifact that holds one and is to draw attacks."""
    if not params.card.generator_attacks or not (artifact.path / GENERATOR_SETTINGS).is_file():
        return None
    from components.generator.generator import Generator

    return Generator.load(artifact.path, device)


def write_card(
    folder: Path,
    measured: Measured,
    checks: Sequence[gate.Check],
    refused: Sequence[str],
    curve: Curve | None = None,
    ladders: int | None = None,
) -> dict[str, float]:
    """Writes card.json, card.md, metrics.json and plots/ into an existing folder.

    Args:
        checks, refused: of the gate.
        curve: of the training, where there was one.
        ladders: number of training ladders.

    Returns:
        The flat metrics.
    """
    card = measured.card
    card.gate = gate.result(list(checks))
    text = json.dumps(card.as_json(), indent=2)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8")
    (folder / "card.md").write_text(as_markdown(card, checks, refused), encoding="utf-8")
    (folder / "plots").mkdir(exist_ok=True)
    plots.draw(folder / "plots", measured, curve, checks)
    metrics = {**card.metrics(), "gate_passed": float(not refused)}
    room = gate.least_room(list(checks))
    if room is not None:
        metrics["gate_room"] = room
    if ladders is not None:
        metrics["training_ladders"] = float(ladders)
    (folder / "metrics.json").write_text(
        json.dumps(metrics, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    return metrics
