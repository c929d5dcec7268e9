"""The reward step: ladders, training, card, gate."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from components.corpus.dataset import Corpus
from components.reward.card.measure import measure, throughput
from components.reward.card.write import write_measured
from components.reward.distortions import REGISTRY
from components.reward.ladders import replay
from components.reward.ladders.few_step import draw
from components.reward.ladders.ladder import seen_types
from components.reward.ladders.plan import plan_of
from components.reward.ladders.shards import ShardFolder
from components.reward.ladders.sources import LadderSources, Pool, gather
from components.reward.model.training import train
from components.reward.params import RewardParams
from components.reward.scoring.trained import TrainedReward
from components.runtime.artifacts.artifact import Artifact, cache_dir, open_artifact
from components.runtime.artifacts.publish import StepResult, publish, write_metrics
from components.runtime.compute.devices import configure_determinism, configure_threads, resolve
from components.runtime.compute.distributed import Ranks, is_node_leader, process_group
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import GateRefused, InputError
from components.runtime.tracking.step_run import track

if TYPE_CHECKING:
    import torch

    from components.generator.generator import Generator

#: File in a generator's artifact that holds a model, which can draw.
GENERATOR_SETTINGS = "generator.json"


def run(params: RewardParams, *, corpus: str | Path, generator: str | Path, out: str | Path) -> StepResult:
    """Train a reward, measure it on held-out content and let it pass the gate or not.

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
    timing: dict[str, float] = {}
    with process_group(str(device)) as ranks, track("reward", params) as tracked:
        try:
            with publish(out, step="reward", params=params, inputs=inputs) as workspace, StopSignal() as stop:
                sources = gather(corpus_artifact, generator_artifact, params.card.prompts, params.run.seed)
                # Hidden, so not published. Not among the checkpoints: those are copied elsewhere.
                scratch = workspace.dir / ".shards"
                drawn = _few_steps(params, generator_artifact, sources, device, scratch, stop, ranks)
                plan = plan_of(
                    sources, params.ladders, params.run.seed, drawn=drawn,
                    pixels=bool(params.network.backbone), cache=cache_dir() / "labels",
                )  # fmt: skip
                shards = ShardFolder(scratch, plan, stop, builds=is_node_leader())
                with _timed(timing, "train_seconds"), shards.workers():
                    network, curve = train(
                        shards, params, checkpoints=workspace.checkpoints, stop=stop, device=device,
                        ranks=ranks, report=tracked.metrics,
                    )  # fmt: skip
                timing["train_waited_for_ladders"] = shards.waited
                if ranks.is_main:
                    reward = TrainedReward(network, sources.geometry, device)
                    reward.save(workspace.dir, params.network)
                    with _timed(timing, "card_seconds"):
                        measured = measure(
                            reward.rate_prepared, sources, params.card,
                            heldout_types=params.ladders.heldout_types, seed=params.run.seed, stop=stop,
                            generator=_drawing(generator_artifact, params, device),
                            cache=cache_dir() / "labels",
                        )  # fmt: skip
                        measured.card.data["training"] = {
                            pool.source: {"contents": len(set(pool.clips.contents)), "ladders": pool.ladders}
                            for pool in plan.pools
                        }
                        refused = write_measured(workspace.dir, measured, params.gate, curve)
                        metrics = measured.card.metrics() | {"training_ladders": float(len(plan))}
                        write_metrics(workspace.dir, metrics)
                    if network.backbone is None:
                        replay.keep(
                            workspace.dir, shards, measured.ladders, sources.samples_card, measured.judged
                        )
                    timing |= throughput(reward.score_prepared, sources.test)
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
    return StepResult(workspace.published or Path(out), metrics)


@contextmanager
def _timed(timing: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    timing[name] = time.monotonic() - began


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
    sources: LadderSources,
    device: torch.device,
    folder: Path,
    stop: StopSignal,
    ranks: Ranks,
) -> Pool | None:
    """Ladders that the generator draws, on one process of each machine, and the others read."""
    counts = params.ladders
    if not counts.few_steps:
        return None

    def drawn(generator: Generator | None) -> Pool:
        return draw(
            generator, sources.prompts_train, counts.few_steps, counts.clips_per_ladder, sources.geometry,
            params.run.seed, folder / "drawn.safetensors", stop,
        )  # fmt: skip

    if is_node_leader():
        from components.generator.generator import Generator

        drawn(Generator.load(artifact.path, device))
    ranks.barrier()
    return drawn(None)


def _drawing(artifact: Artifact, params: RewardParams, device: torch.device) -> Generator | None:
    """The generator of an artifact that holds one and is to draw attacks."""
    if not params.card.generator_attacks or not (artifact.path / GENERATOR_SETTINGS).is_file():
        return None
    from components.generator.generator import Generator

    return Generator.load(artifact.path, device)
