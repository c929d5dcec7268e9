"""A ledger judged again by another reward: where the two agree, and which pairs turn round.

Clips whose latents were kept are decoded; clips that the base itself drew are drawn again from their seeds.
What later policies drew and nobody kept is gone, and is counted. The outcome is a ledger to train from.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from scipy import stats
from torch import Tensor

from components.alignment.candidates.pairs import (
    Candidate,
    Verdict,
    count_reasons,
    judge_iteration,
    motion_of,
)
from components.alignment.candidates.rollout import Group
from components.alignment.ledger.reader import LedgerReader, read_rows
from components.alignment.ledger.schema import Origin, kept_latents
from components.alignment.ledger.writer import LEDGER, LedgerWriter
from components.corpus.prompts import Prompt
from components.generator.generator import Generator
from components.reward.base import Reward, digest_of
from components.reward.scoring.load import open_reward
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.publish import publish
from components.runtime.compute.devices import resolve
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from components.runtime.params import StepParams
from components.runtime.progress import Progress

FLIPS = "flips.csv"
THRESHOLDS = ("min_gap", "motion_floor", "noise_gap")
Row = Mapping[str, Any]


class ReplayParams(StepParams):
    """The rules of pairing: those of the run that drew the candidates, so that only the reward differs."""

    min_gap: float = Field(ge=0, description="see alignment.min_gap")
    motion_floor: float = Field(ge=0, le=1, description="see alignment.motion_floor")
    noise_gap: float = Field(ge=0, description="see alignment.noise_gap")


@dataclass(frozen=True)
class Replayed:
    """Where the new ledger lies, and how the rewards compare."""

    out: Path
    metrics: dict[str, float]


def replay(
    ledger: str | Path, *, generator: str | Path, reward: str | Path, out: str | Path, device: str = "auto"
) -> Replayed:
    """Judge a ledger's clips by another reward and publish the ledger that it would have written.

    Runs in one process. Goes on after the last whole iteration when it was interrupted.

    Args:
        ledger: what alignment or another replay published.
        generator: the base that drew its candidates.
        reward: the reward to judge by.
        out: where to publish: `ledger.parquet`, latents of its winners and losers, `flips.csv` and metrics:
            "agreement" (share of compared pairs that the new reward orders alike, a tie counting half),
            "flips", "ties", "compared"; "rank_correlation" (Spearman's within groups of three clips or more,
            mean over groups, where there are any); "pairs" and the reasons of groups without one; "redrawn"
            and "lost" clips.

    Raises:
        InputError: an input is missing, altered or refused by its gate; the ledger is of another base, or
            none of its clips can be had.
        Interrupted: told to stop; the same command goes on.
    """
    base = open_artifact(generator, step="generator")
    first = LedgerReader.open(ledger, base)
    judge = open_artifact(reward, step="reward")
    told = first.artifact.manifest.params
    missing = [name for name in THRESHOLDS if name not in told]
    if missing:
        raise InputError(f"{ledger}: its manifest does not say {', '.join(missing)}; not a ledger's params")
    params = ReplayParams.model_validate(
        {name: told[name] for name in THRESHOLDS} | {"run": {**told.get("run", {}), "device": device}}
    )
    if not any(row["latents"] or row["policy_version"] == 0 for row in first.rows):
        raise InputError(
            f"{ledger}: no clip can be had again: no latents are kept (alignment.keep_latents = none), and "
            "none was drawn by the base itself"
        )
    inputs = {"ledger": first.artifact, "generator": base, "reward": judge}
    digest = digest_of({name: entry.sha256 for name, entry in judge.manifest.files.items()})
    place = resolve(device)
    with publish(out, step="ledger", params=params, inputs=inputs) as workspace:
        writer = LedgerWriter(workspace.checkpoints / "ledger")
        again = _Replay(Generator.load(base.path, place), open_reward(judge, place), digest, params)
        with StopSignal() as stop, Progress(first.iterations, "ledger: replay") as progress:
            for iteration in range(first.iterations):
                if not writer.has(iteration):
                    again.write(first, iteration, writer)
                progress.update(1)
                stop.raise_if_requested()
        writer.publish(workspace.dir, first.iterations)
        flips, metrics = compare(first.rows, read_rows(workspace.dir / LEDGER))
        _write_flips(workspace.dir / FLIPS, flips)
        workspace.write_metrics(metrics)
    assert workspace.published is not None
    return Replayed(workspace.published, metrics)


def compare(first: Sequence[Row], again: Sequence[Row]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return the pairs of the first ledger that the second reward turns round, and the figures of `replay`.

    A pair is compared where both its clips have a finite reward in both ledgers.
    """
    new = {_key(row): row for row in again}
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in first:
        groups.setdefault((row["iteration"], row["prompt_id"]), []).append(row)
    flips, correlations = [], []
    compared = ties = 0
    for group in groups.values():
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
            flips.append(
                {
                    "iteration": winner["iteration"], "prompt_id": winner["prompt_id"],
                    "winner": winner["candidate"], "loser": loser["candidate"], "gap": winner["gap"],
                    "gap_again": gap, "verdict_again": winner_now["verdict"], "prompt": winner["prompt"],
                }
            )  # fmt: skip
    verdicts = {(row["iteration"], row["prompt_id"]): row["verdict"] for row in again}
    reasons = count_reasons([Verdict(prompt, None, None, 0.0, v) for (_, prompt), v in verdicts.items()])
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


class _Replay:
    """What judges a ledger's clips again."""

    def __init__(self, generator: Generator, reward: Reward, digest: str, params: ReplayParams) -> None:
        self.generator, self.reward, self.digest, self.params = generator, reward, digest, params

    def write(self, first: LedgerReader, iteration: int, writer: LedgerWriter) -> None:
        """Judge one iteration's clips and write its part; one of which no clip is left is an empty part."""
        rows = [row for row in first.rows if row["iteration"] == iteration]
        groups = self._groups(first, [row for row in rows if row["latents"] or row["policy_version"] == 0])
        verdicts = judge_iteration(
            [group.candidates for group in groups],
            self.params.min_gap,
            self.params.motion_floor,
            self.params.noise_gap,
        )
        versions = {row["prompt_id"]: (row["policy_version"], row["reference_version"]) for row in rows}
        origins = [Origin(*versions[group.prompt.id], 0, self.digest) for group in groups]
        half = self.generator.settings.precision == "half"
        kept = kept_latents(groups, verdicts, "pairs", half=half)
        writer.write(iteration, groups, verdicts, origins, kept)

    @torch.no_grad()
    def _groups(self, first: LedgerReader, rows: Sequence[Row]) -> list[Group]:
        if not rows:
            return []
        latents = self._latents(first, rows)
        texts = [row["prompt"] for row in rows]
        frames = self.generator.decode(latents)
        rating = self.reward.rate(frames, self.generator.fps, texts)
        scores, spreads, motions = (
            rating.score.tolist(),
            rating.uncertainty.tolist(),
            motion_of(frames).tolist(),
        )
        aspects = {name: values.tolist() for name, values in rating.aspects.items()}
        places: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row["prompt_id"], []).append(place)
        groups = []
        for prompt_id, own in places.items():
            candidates = [
                Candidate(
                    prompt_id, rows[place]["candidate"], rows[place]["seed"], scores[place], motions[place],
                    spreads[place], {name: values[place] for name, values in aspects.items()},
                )
                for place in own
            ]  # fmt: skip
            groups.append(Group(Prompt(prompt_id, texts[own[0]], "train"), latents[own], candidates))
        return groups

    def _latents(self, first: LedgerReader, rows: Sequence[Row]) -> Tensor:
        """Clean latents (N, C, T, h, w) of N rows, on the generator's device."""
        drawn = [place for place, row in enumerate(rows) if not row["latents"]]
        found: dict[int, Tensor] = {}
        if drawn:
            texts, seeds = (
                [rows[place]["prompt"] for place in drawn],
                [rows[place]["seed"] for place in drawn],
            )
            found |= dict(zip(drawn, self.generator.sample_latents(texts, seeds), strict=True))
        for place, row in enumerate(rows):
            if row["latents"]:
                found[place] = first.clip(row["iteration"], row["latents"]).to(self.generator.family.device)
        return torch.stack([found[place] for place in range(len(rows))])


def _key(row: Row) -> tuple[int, str, int]:
    return row["iteration"], row["prompt_id"], row["candidate"]


def _write_flips(file: Path, flips: Sequence[Mapping[str, Any]]) -> None:
    names = (
        "iteration", "prompt_id", "winner", "loser", "gap", "gap_again", "verdict_again", "prompt",
    )  # fmt: skip
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, names)
        writer.writeheader()
        writer.writerows(flips)
