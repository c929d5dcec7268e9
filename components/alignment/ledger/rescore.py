"""A ledger scored again by another reward: where the two agree, and which pairs are reversed.

Clips whose latents were kept are decoded; clips that the base sampled are sampled again from their seeds.
What later policies sampled without keeping the latents is lost, and is counted. The result is a ledger to
train on.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from scipy import stats
from torch import Tensor

from components.alignment.candidates.pairs import PairDecision, count_reasons, pair_groups
from components.alignment.candidates.rollout import Group, grouped
from components.alignment.ledger.reader import LedgerReader, Row, grouped_rows, read_rows
from components.alignment.ledger.schema import LedgerOrigin, kept_latents
from components.alignment.ledger.writer import LEDGER, LedgerWriter
from components.corpus.prompts import Prompt
from components.generator.generator import Generator
from components.reward.base import Reward, digest_of
from components.reward.scoring.load import open_reward
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.publish import StepResult, publish
from components.runtime.compute.devices import resolve
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from components.runtime.params import StepParams
from components.runtime.progress import Progress

FLIPS = "flips.csv"
FLIP_COLUMNS = ("iteration", "prompt_id", "winner", "loser", "gap", "gap_again", "verdict_again", "prompt")
THRESHOLDS = ("min_gap", "motion_floor", "noise_gap")


class RescoreParams(StepParams):
    """The thresholds of pairing, equal to those of the run that sampled the candidates."""

    min_gap: float = Field(ge=0, description="see alignment.min_gap")
    motion_floor: float = Field(ge=0, le=1, description="see alignment.motion_floor")
    noise_gap: float = Field(ge=0, description="see alignment.noise_gap")


def rescore(
    ledger: str | Path, *, generator: str | Path, reward: str | Path, out: str | Path, device: str = "auto"
) -> StepResult:
    """Score a ledger's clips by another reward and publish the ledger that it would have written.

    Runs in one process. Continues after the last whole iteration when it was interrupted.

    Args:
        ledger: published by alignment or by another rescore.
        generator: the base that sampled its candidates.
        reward: the reward to score by.
        out: where to publish: `ledger.parquet`, latents of its winners and losers, `flips.csv` and metrics:
            "agreement" (share of compared pairs that the new reward orders alike, a tie counting half),
            "flips", "ties", "compared"; "rank_correlation" (Spearman's within groups of three clips or more,
            mean over groups, where there are any); "pairs" and the reasons of groups without one; "redrawn"
            and "lost" clips.

    Raises:
        InputError: an input is missing, altered or refused by its gate; the ledger is of another base, or
            none of its clips is available.
        Interrupted: told to stop; the same command continues.
    """
    base = open_artifact(generator, step="generator")
    first = LedgerReader.open(ledger, base)
    judge = open_artifact(reward, step="reward")
    recorded = first.artifact.manifest.params
    missing = [name for name in THRESHOLDS if name not in recorded]
    if missing:
        raise InputError(f"{ledger}: its manifest does not have {', '.join(missing)}; not a ledger's params")
    params = RescoreParams.model_validate(
        {name: recorded[name] for name in THRESHOLDS} | {"run": {**recorded.get("run", {}), "device": device}}
    )
    if not any(map(_available, first.rows)):
        raise InputError(
            f"{ledger}: no clip is available: no latents are kept (alignment.keep_latents = none), and "
            "none was sampled by the base itself"
        )
    inputs = {"ledger": first.artifact, "generator": base, "reward": judge}
    digest = digest_of({name: entry.sha256 for name, entry in judge.manifest.files.items()})
    place = resolve(device)
    with publish(out, step="ledger", params=params, inputs=inputs) as workspace:
        writer = LedgerWriter(workspace.checkpoints / "ledger")
        network, scorer = Generator.load(base.path, place), open_reward(judge, place)
        with StopSignal() as stop, Progress(first.iterations, "ledger: rescore") as progress:
            for iteration in range(first.iterations):
                if not writer.has(iteration):
                    rows = [row for row in first.rows if row["iteration"] == iteration]
                    # An iteration of which no clip is available becomes an empty part.
                    groups = _groups(network, scorer, first, [row for row in rows if _available(row)])
                    candidates = [group.candidates for group in groups]
                    decisions = pair_groups(candidates, params.min_gap, params.motion_floor, params.noise_gap)
                    of = {row["prompt_id"]: LedgerOrigin.of(row) for row in rows}
                    origins = [
                        replace(of[group.prompt.id], reward_version=0, reward_digest=digest)
                        for group in groups
                    ]
                    half = network.settings.precision == "half"
                    kept = kept_latents(groups, decisions, "pairs", half=half)
                    writer.write(iteration, groups, decisions, origins, kept, trained=False)
                progress.update(1)
                stop.raise_if_requested()
        writer.publish(workspace.dir, first.iterations)
        flips, metrics = compare(first.rows, read_rows(workspace.dir / LEDGER))
        with (workspace.dir / FLIPS).open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, FLIP_COLUMNS)
            table.writeheader()
            table.writerows(flips)
        workspace.write_metrics(metrics)
    assert workspace.published is not None
    return StepResult(workspace.published, metrics)


def compare(first: Sequence[Row], again: Sequence[Row]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return the pairs of the first ledger that the second reward reverses, and the figures of `rescore`.

    A pair is compared where both its clips have a finite reward in both ledgers.
    """
    new = {_key(row): row for row in again}
    flips, correlations = [], []
    compared = ties = 0
    for group in grouped_rows(first).values():
        known = [
            (row, new[_key(row)])
            for row in group
            if _key(row) in new and math.isfinite(row["reward"]) and math.isfinite(new[_key(row)]["reward"])
        ]
        if len(known) > 2:
            before, after = [old["reward"] for old, _ in known], [now["reward"] for _, now in known]
            if len(set(before)) > 1 and len(set(after)) > 1:
                correlations.append(float(stats.spearmanr(before, after).statistic))
        sides = {old["role"]: (old, now) for old, now in known if old["role"]}
        if len(sides) < 2:
            continue
        (winner, winner_now), (loser, loser_now) = sides["winner"], sides["loser"]
        gap = winner_now["reward"] - loser_now["reward"]
        compared, ties = compared + 1, ties + (gap == 0)
        if gap < 0:
            flip = (
                winner["iteration"], winner["prompt_id"], winner["candidate"], loser["candidate"],
                winner["gap"], gap, winner_now["verdict"], winner["prompt"],
            )  # fmt: skip
            flips.append(dict(zip(FLIP_COLUMNS, flip, strict=True)))
    verdicts = {(row["iteration"], row["prompt_id"]): row["verdict"] for row in again}
    reasons = count_reasons([PairDecision(prompt, None, None, 0.0, v) for (_, prompt), v in verdicts.items()])
    metrics = {
        "compared": float(compared),
        "flips": float(len(flips)),
        "ties": float(ties),
        "pairs": float(reasons.pop("accepted")),
        "lost": float(len(first) - len(again)),
        "redrawn": float(sum(not row["latents"] for row in first if _key(row) in new)),
        **{name: float(count) for name, count in reasons.items()},
    }
    if compared:
        metrics["agreement"] = (compared - len(flips) - ties / 2) / compared
    if correlations:
        metrics["rank_correlation"] = sum(correlations) / len(correlations)
    return flips, metrics


def _available(row: Row) -> bool:
    return bool(row["latents"]) or row["policy_version"] == 0


@torch.no_grad()
def _groups(generator: Generator, reward: Reward, ledger: LedgerReader, rows: Sequence[Row]) -> list[Group]:
    """Return an iteration's available clips, scored by the reward."""
    if not rows:
        return []
    latents = _latents(generator, ledger, rows)
    frames = generator.decode(latents)
    rating = reward.rate(frames, generator.fps, [row["prompt"] for row in rows])
    named = [(Prompt(row["prompt_id"], row["prompt"], "train"), row["candidate"]) for row in rows]
    return grouped(named, [row["seed"] for row in rows], latents, frames, generator.fps, rating)


def _latents(generator: Generator, ledger: LedgerReader, rows: Sequence[Row]) -> Tensor:
    """Return clean latents (N, C, T, h, w) of N rows, on the generator's device."""
    device = generator.family.device
    sampled = [row for row in rows if not row["latents"]]
    texts, seeds = [row["prompt"] for row in sampled], [row["seed"] for row in sampled]
    again = iter(generator.sample_latents(texts, seeds) if sampled else ())
    return torch.stack(
        [ledger.clip(r["iteration"], r["latents"]).to(device) if r["latents"] else next(again) for r in rows]
    )


def _key(row: Mapping[str, Any]) -> tuple[int, str, int]:
    return row["iteration"], row["prompt_id"], row["candidate"]
