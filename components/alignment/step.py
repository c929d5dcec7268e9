"""The alignment step: open what comes before, align, publish the aligned weights, their ledger and curves."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from components.alignment.candidates.pairs import REASONS
from components.alignment.ledger import LedgerReader, read_pairs
from components.alignment.loop import CURVE, AlignmentLoop
from components.alignment.monitor.heldout_judge import HeldOutJudge, choose_judge, hold_back
from components.alignment.params import AlignmentParams
from components.corpus.dataset import Corpus
from components.corpus.prompts import Prompt
from components.generator.generator import Generator
from components.reward.base import digest_of
from components.reward.refresh.refresher import Refresher
from components.reward.scoring.load import open_reward
from components.runtime.artifacts.artifact import Artifact, open_artifact
from components.runtime.artifacts.publish import StepResult, publish
from components.runtime.compute.devices import (
    configure_determinism,
    configure_threads,
    resolve,
    resolve_second,
)
from components.runtime.compute.distributed import process_group
from components.runtime.compute.seeds import derive
from components.runtime.errors import GateRefused, InputError
from components.runtime.tracking.step_run import track
from components.video.clip import Clip
from components.video.contact_sheets import contact_sheet

#: Training prompts shown before and after on the contact sheet.
SHOWN = 6


def run(
    params: AlignmentParams,
    *,
    corpus: str | Path,
    generator: str | Path,
    reward: str | Path,
    out: str | Path,
    judge: str | Path | None = None,
    ledger: str | Path | None = None,
) -> StepResult:
    """Align the generator to the reward and publish the aligned weights at ``out``.

    Runs on 1 .. N processes under torchrun.

    Args:
        judge: another reward, for the readings on held-back prompts; without it the miniature world's judge
            takes them where the prompts are its captions.
        ledger: an earlier alignment, or a replayed ledger, whose pairs an offline run trains on.

    Raises:
        InputError: an input is missing, altered or refused by its gate, there are fewer training prompts than
            an iteration needs, the reward is to be refreshed and cannot be, or the judge or the ledger have
            no place in what the params ask for.
        GateRefused: no update was made, or the run broke before a policy was known to be good; the base is
            published, marked as refused, with the ledger and the curve that tell why.
        Interrupted: told to stop; the same command goes on from the last checkpoint.
    """
    _check_options(params, judge, ledger)
    configure_threads()
    configure_determinism()
    device, beside = resolve(params.run.device), None
    if params.reward_device is not None:
        beside = resolve_second(params.reward_device, "alignment.reward_device")
    artifacts = {
        "corpus": open_artifact(corpus, step="corpus"),
        "generator": open_artifact(generator, step="generator"),
        "reward": open_artifact(reward, step="reward"),
    }
    if judge is not None:
        artifacts["judge"] = open_artifact(judge, step="reward")
    pairs: LedgerReader | None = None
    if ledger is not None:
        pairs = read_pairs(ledger, artifacts["generator"])
        artifacts["ledger"] = pairs.artifact
    prompts, held_back = _prompts(params, artifacts["corpus"])
    scorer = open_reward(artifacts["reward"], beside or device)
    refresher = Refresher.open(artifacts["reward"], scorer) if params.refresh_reward_every else None
    reward_digest = digest_of({n: entry.sha256 for n, entry in artifacts["reward"].manifest.files.items()})
    judging = None
    if params.guards.every:
        judging = choose_judge(held_back, artifacts.get("judge"), reward_digest, device)
    if params.reference == "judged" and judging is None:
        raise InputError(
            "alignment.reference = judged: nothing judges here: give --judge, and a corpus with enough "
            "training prompts to hold some back"
        )
    with (
        process_group(str(device)) as ranks,
        track("alignment", params) as tracked,
        publish(out, step="alignment", params=params, inputs=artifacts) as workspace,
    ):
        # A base that is going to be shared need not fit one GPU: its shares travel from the host.
        shared = params.shard and ranks.size > 1
        policy_generator = Generator.load(artifacts["generator"].path, "cpu" if shared else device)
        reader = None
        if held_back:
            reader = HeldOutJudge(
                policy_generator, held_back, judging, clips=params.guards.clips, seed=params.run.seed,
                ranks=ranks,
            )  # fmt: skip
        trainer = AlignmentLoop(
            policy_generator,
            scorer,
            prompts,
            params,
            reward_digest=reward_digest,
            refresher=refresher,
            judge=reader,
            ledger=pairs,
            checkpoints=workspace.checkpoints,
            ranks=ranks,
            on_iteration=lambda row: tracked.metrics(row, at=int(row["iteration"])),
        )
        trainer.run()
        chosen = trainer.take_kept()
        if trainer.guards.stop is not None and ranks.is_main:
            print(f"ended early: {trainer.guards.stop}; published is {chosen}", file=sys.stderr)
        metrics = _summary(trainer)
        with trainer.policy.in_step():
            if ranks.is_main:
                _draw_sheet(trainer, [p.text for p in prompts], workspace.dir / "plots" / "before_after.png")
        trainer.policy.save(workspace.dir, ranks)
        if ranks.is_main:
            trainer.ledger.publish(workspace.dir, trainer.done)
            trainer.reward.publish(workspace.dir / "reward")
            _write_curve(trainer.curve, workspace.dir / "plots" / "training.csv")
            (workspace.dir / "timing.json").write_text(json.dumps(dict(trainer.seconds), indent=2) + "\n")
            workspace.about_run.add("timing.json")
            workspace.write_metrics(metrics)
        if trainer.untrained is not None:
            workspace.publish_on_refusal = True
            raise GateRefused(trainer.untrained)
    assert workspace.published is not None
    return StepResult(workspace.published, metrics)


def _check_options(params: AlignmentParams, judge: str | Path | None, ledger: str | Path | None) -> None:
    """Refuse what would silently have no effect."""
    if judge is not None and not params.guards.every:
        raise InputError(f"--judge {judge}: takes no readings with alignment.guards.every = 0; leave it out")
    if ledger is not None and params.strategy != "offline":
        raise InputError(
            f"--ledger {ledger}: alignment.strategy = {params.strategy} draws its own candidates; "
            "offline is allowed"
        )


def _prompts(params: AlignmentParams, corpus: Artifact) -> tuple[list[Prompt], list[Prompt]]:
    """Training prompts, and those that are held back from them for the judge.

    Raises:
        InputError: fewer are left to train on than an iteration needs.
    """
    prompts = list(Corpus.open(corpus.path).prompts("train"))
    held_back: list[Prompt] = []
    if params.guards.every:
        prompts, held_back = hold_back(prompts, params.guards.clips, params.run.seed)
    if len(prompts) < params.prompts:
        raise InputError(
            f"alignment.prompts = {params.prompts}: the corpus has {len(prompts)} training prompts"
            + (f" beside the {len(held_back)} held back for the judge" if held_back else "")
            + "; at most that many are allowed"
        )
    return prompts, held_back


def _summary(trainer: AlignmentLoop) -> dict[str, float]:
    """Figures of the run; the first and the last quarter of the iterations show what training did."""
    curve = trainer.curve
    quarter = max(1, len(curve) // 4)

    def mean(name: str, rows: Sequence[dict[str, float]]) -> dict[str, float]:
        # An iteration without an update has no figures of one.
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
        metrics |= mean(name, [row for row in curve if name in row][-quarter:])
    for name in ("clips", "pairs", "refilled", "candidates_not_finite", *REASONS[1:]):
        metrics[name] = sum(row[name] for row in curve)
    metrics["iterations"] = float(trainer.done)
    metrics["updates"] = float(trainer.updates)
    metrics["reference_refreshes"] = float(trainer.reference.version)
    metrics["reference_refused"] = float(trainer.reference.refused)
    later = trainer.reward.versions[1:]
    metrics["reward_versions_adopted"] = float(sum(version.adopted for version in later))
    metrics["reward_versions_refused"] = float(sum(not version.adopted for version in later))
    return metrics | trainer.guards.metrics()


def _write_curve(curve: Sequence[dict[str, float]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, CURVE, restval="")
        writer.writeheader()
        writer.writerows(curve)


@torch.no_grad()
def _draw_sheet(trainer: AlignmentLoop, prompts: Sequence[str], path: Path) -> None:
    """Draw the same prompts and seeds from the base and from the policy, row under row."""
    path.parent.mkdir(parents=True, exist_ok=True)
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
