"""The alignment step: open its inputs, align, publish the aligned weights, their ledger and curves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from components.alignment.ledger import LedgerReader, read_pairs
from components.alignment.loop import AlignmentLoop
from components.alignment.monitor import curve
from components.alignment.monitor.heldout_judge import HeldOutJudge, choose_judge, hold_back
from components.alignment.outcome import draw_sheet, load_best, metrics_of, refusal_of
from components.alignment.params import AlignmentParams
from components.alignment.policy import policy_of
from components.alignment.strategies import Setting
from components.alignment.versioned_reward import VersionedReward
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
from components.runtime.errors import GateRefused, InputError
from components.runtime.tracking.step_run import track


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
    """Align the generator to the reward and publish the aligned weights at `out`.

    Runs on 1 .. N processes under torchrun.

    Args:
        judge: another reward, for the readings on held-back prompts; without it the oracle judge
            takes them where the prompts are its captions.
        ledger: an earlier alignment, or a rescored ledger, whose pairs an offline run trains on.

    Raises:
        InputError: an input is missing, altered or refused by its gate, there are fewer training prompts than
            an iteration needs, the reward is to be refreshed and cannot be, or the params leave no use for
            the judge or the ledger.
        GateRefused: no update was made, or the run broke before a policy was known to be good; the base is
            published, marked as refused, with the ledger and the curve that show why.
        Interrupted: told to stop; the same command continues from the last checkpoint.
    """
    _check_options(params, judge, ledger)
    configure_threads()
    configure_determinism()
    device = resolve(params.run.device)
    reward_device = device
    if params.reward_device is not None:
        reward_device = resolve_second(params.reward_device, "alignment.reward_device")
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
    scorer = open_reward(artifacts["reward"], reward_device)
    refresher = Refresher.open(artifacts["reward"], scorer) if params.refresh_reward_every else None
    reward_digest = digest_of({n: entry.sha256 for n, entry in artifacts["reward"].manifest.files.items()})
    clip_scorer = None
    if params.guards.every:
        clip_scorer = choose_judge(held_back, artifacts.get("judge"), reward_digest, device)
    if params.reference == "judged" and clip_scorer is None:
        raise InputError(
            "alignment.reference = judged: there is no held-out judge; give --judge, and a corpus with "
            "enough training prompts to hold some back"
        )
    with (
        process_group(str(device)) as ranks,
        track("alignment", params) as tracked,
        publish(out, step="alignment", params=params, inputs=artifacts) as workspace,
    ):
        # A base that will be sharded need not fit one GPU: its shares are loaded from the host.
        sharded = params.fsdp and ranks.size > 1
        base = Generator.load(artifacts["generator"].path, "cpu" if sharded else device)
        policy = policy_of(base.family, params, ranks)
        versions = VersionedReward(scorer, reward_digest, workspace.checkpoints / "reward", ranks, refresher)
        heldout = None
        if held_back:
            heldout = HeldOutJudge(
                base, held_back, clip_scorer, clips=params.guards.clips, seed=params.run.seed, ranks=ranks
            )
        loop = AlignmentLoop(
            Setting(base, policy, prompts, params, ranks, pairs),
            versions,
            workspace.checkpoints,
            heldout,
            on_iteration=lambda row: tracked.metrics(row, at=int(row["iteration"])),
        )
        loop.run()
        published = load_best(loop)
        if loop.guards.stop is not None and ranks.is_main:
            print(f"ended early: {loop.guards.stop}; published is {published}", file=sys.stderr)
        with policy.uneven_inputs():
            if ranks.is_main:
                draw_sheet(loop.setting, workspace.dir / "plots" / "before_after.png")
        policy.save(workspace.dir, ranks)
        metrics = metrics_of(loop)
        if ranks.is_main:
            loop.ledger.publish(workspace.dir, loop.done)
            versions.publish(workspace.dir / "reward")
            curve.write(loop.curve, workspace.dir / "plots" / "training.csv")
            (workspace.dir / "timing.json").write_text(json.dumps(dict(loop.seconds), indent=2) + "\n")
            workspace.about_run.add("timing.json")
            workspace.write_metrics(metrics)
        if (reason := refusal_of(loop)) is not None:
            workspace.publish_on_refusal = True
            raise GateRefused(reason)
    assert workspace.published is not None
    return StepResult(workspace.published, metrics)


def _check_options(params: AlignmentParams, judge: str | Path | None, ledger: str | Path | None) -> None:
    """Refuse options that would silently have no effect."""
    if judge is not None and not params.guards.every:
        raise InputError(f"--judge {judge}: no effect with alignment.guards.every = 0; leave it out")
    if ledger is not None and params.strategy != "offline":
        raise InputError(
            f"--ledger {ledger}: alignment.strategy = {params.strategy} samples its own candidates; "
            "offline is allowed"
        )


def _prompts(params: AlignmentParams, corpus: Artifact) -> tuple[list[Prompt], list[Prompt]]:
    """Return training prompts, and those held back from them for the judge.

    Raises:
        InputError: fewer are left to train on than an iteration needs.
    """
    prompts = list(Corpus.open(corpus.path).prompts("train"))
    held_back: list[Prompt] = []
    if params.guards.every:
        prompts, held_back = hold_back(prompts, params.guards.clips, params.run.seed)
    if len(prompts) < params.prompts_per_iteration:
        raise InputError(
            f"alignment.prompts_per_iteration = {params.prompts_per_iteration}: the corpus has "
            f"{len(prompts)} training prompts"
            + (f" beside the {len(held_back)} held back for the judge" if held_back else "")
            + "; at most that many are allowed"
        )
    return prompts, held_back
