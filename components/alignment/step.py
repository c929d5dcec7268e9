"""The alignment step: open what comes before, run online DPO, publish the LoRA with its ledger and curves."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from components.alignment.ledger import join_parts
from components.alignment.online import CURVE, OnlineDPO
from components.alignment.pairs import REASONS
from components.alignment.params import AlignmentParams
from components.corpus import Corpus
from components.generator import Generator
from components.reward.interface import open_reward
from components.reward.refresh import Refresher
from components.reward.versions import digest_of
from components.runtime.artifacts import open_artifact, publish
from components.runtime.devices import configure_determinism, configure_threads, resolve
from components.runtime.distributed import process_group
from components.runtime.errors import InputError
from components.runtime.seeds import derive
from components.runtime.tracking import track
from components.video.clip import Clip
from components.video.sheets import contact_sheet

#: Training prompts shown before and after on the contact sheet.
SHOWN = 6


@dataclass(frozen=True)
class AlignmentResult:
    """Where the LoRA lies, and its figures."""

    out: Path
    metrics: dict[str, float]


def run(
    params: AlignmentParams, *, corpus: str | Path, generator: str | Path, reward: str | Path, out: str | Path
) -> AlignmentResult:
    """Align the generator to the reward and publish the LoRA at ``out``.

    Runs on 1 .. N processes under torchrun.

    Raises:
        InputError: an input is missing, altered or refused by its gate, there are fewer training prompts than
            an iteration needs, or the reward is to be refreshed and cannot be.
        Interrupted: told to stop; the same command goes on from the last checkpoint.
    """
    configure_threads()
    configure_determinism()
    device = resolve(params.run.device)
    artifacts = {
        "corpus": open_artifact(corpus, step="corpus"),
        "generator": open_artifact(generator, step="generator"),
        "reward": open_artifact(reward, step="reward"),
    }
    prompts = Corpus.open(artifacts["corpus"].path).prompts("train")
    if len(prompts) < params.prompts:
        raise InputError(
            f"alignment.prompts = {params.prompts}: the corpus has {len(prompts)} training prompts; "
            "at most that many are allowed"
        )
    judge = open_reward(artifacts["reward"], device)
    refresher = Refresher.open(artifacts["reward"], judge) if params.refresh_reward_every else None
    reward_files = {name: entry.sha256 for name, entry in artifacts["reward"].manifest.files.items()}
    with (
        process_group(str(device)) as ranks,
        track("alignment", params) as tracked,
        publish(out, step="alignment", params=params, inputs=artifacts) as workspace,
    ):
        policy_generator = Generator.load(artifacts["generator"].path, device)
        trainer = OnlineDPO(
            policy_generator,
            judge,
            prompts,
            params,
            reward_digest=digest_of(reward_files),
            refresher=refresher,
            checkpoints=workspace.checkpoints,
            ranks=ranks,
            on_iteration=lambda row: tracked.metrics(row, at=int(row["iteration"])),
        )
        trainer.run()
        metrics = _summary(trainer)
        if ranks.is_main:
            trainer.policy.save(workspace.dir / "lora")
            join_parts(trainer.ledger, params.iterations, workspace.dir / "ledger.parquet")
            trainer.reward.publish(workspace.dir / "reward")
            _write_curve(trainer.curve, workspace.dir / "plots" / "training.csv")
            _draw_sheet(trainer, [p.text for p in prompts], workspace.dir / "plots" / "before_after.png")
            (workspace.dir / "timing.json").write_text(json.dumps(dict(trainer.seconds), indent=2) + "\n")
            workspace.about_run.add("timing.json")
            workspace.write_metrics(metrics)
    assert workspace.published is not None
    return AlignmentResult(workspace.published, metrics)


def _summary(trainer: OnlineDPO) -> dict[str, float]:
    """Figures of the run; the first and the last quarter of the iterations show what training did."""
    curve = trainer.curve
    quarter = max(1, len(curve) // 4)

    def mean(name: str, rows: Sequence[dict[str, float]]) -> dict[str, float]:
        values = [row[name] for row in rows if name in row]
        return {name: sum(values) / len(values)} if values else {}

    metrics: dict[str, float] = {}
    for label, rows in (("first", curve[:quarter]), ("last", curve[-quarter:])):
        for name in ("reward_mean", "motion_mean"):
            metrics |= {f"{name}_{label}": value for value in mean(name, rows).values()}
    for name in (
        "accuracy",
        "winner_error",
        "loser_error",
        "winner_above_reference",
        "saturated",
        "drift_from_base",
    ):
        metrics |= mean(name, curve[-quarter:])
    for name in ("pairs", *REASONS[1:]):
        metrics[name] = sum(row[name] for row in curve)
    metrics["updates"] = float(trainer.updates)
    metrics["reference_refreshes"] = float(trainer.refreshes)
    later = trainer.reward.versions[1:]
    metrics["reward_versions_adopted"] = float(sum(version.adopted for version in later))
    metrics["reward_versions_refused"] = float(sum(not version.adopted for version in later))
    return metrics


def _write_curve(curve: Sequence[dict[str, float]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, CURVE, restval="")
        writer.writeheader()
        writer.writerows(curve)


@torch.no_grad()
def _draw_sheet(trainer: OnlineDPO, prompts: Sequence[str], path: Path) -> None:
    """Draw the same prompts and seeds from the base and from the policy, row under row."""
    generator, seed = trainer.generator, trainer.params.run.seed
    shown = list(prompts[:: max(1, len(prompts) // SHOWN)][:SHOWN])
    seeds = [derive(seed, "alignment sheet", text) for text in shown]
    with trainer.policy.base():
        before = generator.sample(shown, seeds)[0]
    after = generator.sample(shown, seeds)[0]
    clips, labels = [], []
    for index, text in enumerate(shown):
        for name, frames in (("base", before[index]), ("aligned", after[index])):
            clips.append(Clip(frames, generator.fps))
            labels.append(f"{name}\n{text}")
    contact_sheet(clips, labels, title="Before and after alignment, same prompts and seeds").save(path)
