"""The reward step: ladders, training, card, gate."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from components.corpus.dataset import Corpus
from components.reward import card as cards
from components.reward import gate, plots
from components.reward.card import Card
from components.reward.distortions import REGISTRY
from components.reward.ladders import seen_types
from components.reward.markdown import as_markdown
from components.reward.material import gather, judge_of
from components.reward.params import RewardParams
from components.reward.scorer import Scorer
from components.reward.shards import ShardFolder, plan_of
from components.reward.training import train
from components.runtime.artifacts import cache_dir, open_artifact, publish
from components.runtime.devices import configure_threads, resolve
from components.runtime.distributed import is_node_leader, process_group
from components.runtime.errors import GateRefused, InputError
from components.runtime.interrupts import StopSignal
from components.runtime.tracking import track


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
    device = resolve(params.run.device)
    corpus_artifact, generator_artifact = Corpus.open(corpus), open_artifact(generator, step="generator")
    inputs = {"corpus": corpus, "generator": generator}
    refused: list[str] = []
    metrics: dict[str, float] = {}
    with process_group(str(device)) as ranks, track("reward", params) as tracked:
        try:
            with publish(out, step="reward", params=params, inputs=inputs) as workspace, StopSignal() as stop:
                material = gather(corpus_artifact, generator_artifact, params.card.prompts, params.run.seed)
                plan = plan_of(material, params.ladders, params.run.seed, cache=cache_dir() / "labels")
                # Hidden, so not published; beside the checkpoints, not among them: those are copied
                # elsewhere.
                shards = ShardFolder(workspace.dir / ".shards", plan, stop, builds=is_node_leader())
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
                    card, held, scores = cards.measure(
                        scorer.score_prepared, material, params,
                        stop=stop, device=device, judged=judge_of(material.samples_card),
                    )  # fmt: skip
                    checks = gate.checks(card, params.gate)
                    refused = gate.refusals(checks)
                    scorer.save(workspace.dir, params.network)
                    (workspace.dir / "plots").mkdir(exist_ok=True)
                    plots.draw(workspace.dir / "plots", card, held, scores, curve)
                    metrics = _write(workspace.dir, card, checks, refused, len(plan))
                    timing |= cards.throughput(scorer.score_prepared, held.frames[:, 0])
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


def _write(
    folder: Path, card: Card, checks: list[gate.Check], refused: list[str], ladders: int
) -> dict[str, float]:
    """card.json, card.md and metrics.json."""
    verdict = {
        "passed": not refused,
        "reasons": refused,
        "checks": [{**asdict(check), "passed": check.passed, "line": check.line()} for check in checks],
    }
    text = json.dumps({**card.as_json(), "gate": verdict}, indent=2)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8")
    (folder / "card.md").write_text(as_markdown(card, checks, refused), encoding="utf-8")
    metrics = {**card.metrics(), "training_ladders": float(ladders), "gate_passed": float(not refused)}
    (folder / "metrics.json").write_text(
        json.dumps(metrics, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    return metrics
