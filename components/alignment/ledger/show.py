"""A ledger's counts, gaps and rewards at a glance."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from components.alignment.ledger.reader import LedgerReader
from components.alignment.ledger.schema import SCHEMA, USED
from components.alignment.ledger.writer import LATENTS
from components.runtime.tables import columns

QUANTILES = {"least": 0.0, "quarter": 0.25, "median": 0.5, "three quarters": 0.75, "most": 1.0}
#: Prompts shown.
TOP = 10


def summary(ledger: LedgerReader) -> dict[str, Any]:
    """Return counts, gaps and rewards as JSON values; rewards and gaps are in units of the reward.

    A figure of nothing (no accepted pair, no finite reward) is None.
    """
    rows = pd.DataFrame(ledger.rows, columns=[*SCHEMA.names, USED.name]).replace(
        [math.inf, -math.inf], math.nan
    )
    rows["uses"] = rows["used"].map(len)
    rows["winner"] = rows["reward"].where(rows["role"] == "winner")
    rows["loser"] = rows["reward"].where(rows["role"] == "loser")
    groups = rows.groupby(["iteration", "prompt_id"], sort=False).agg(
        prompt=("prompt", "first"), verdict=("verdict", "first"), uses=("uses", "max")
    )
    groups["accepted"] = groups["verdict"] == "accepted"
    prompts = groups.groupby("prompt_id", as_index=False).agg(
        prompt=("prompt", "first"), groups=("prompt", "size"), pairs=("accepted", "sum"), uses=("uses", "sum")
    )
    rewards = rows.groupby(["reward_version", "reward_digest"], as_index=False).agg(
        first_iteration=("iteration", "min"),
        last_iteration=("iteration", "max"),
        clips=("seed", "size"),
        mean=("reward", "mean"),
        deviation=("reward", lambda values: values.std(ddof=0)),
        winners=("winner", "mean"),
        losers=("loser", "mean"),
        not_finite=("reward", lambda values: values.isna().sum()),
    )
    motion = rows.groupby("role")["motion"].mean().reindex(["winner", "loser", ""])
    gaps = pd.Series([pair.gap for pair in ledger.pairs], dtype=float).quantile(list(QUANTILES.values()))
    files = ledger.artifact.manifest.files
    latents = [entry.bytes for name, entry in files.items() if name.startswith(LATENTS)]
    most_used = prompts.sort_values(["uses", "groups", "prompt_id"], ascending=[False, False, True])
    return {
        "iterations": ledger.iterations,
        "candidates": len(rows),
        "groups": len(groups),
        "pairs": len(ledger.pairs),
        "verdicts": _plain(groups["verdict"].value_counts(), "index"),
        "gaps": _plain(gaps.set_axis(list(QUANTILES)), "index"),
        "motion": _plain(motion.set_axis(["winner", "loser", "neither"]), "index"),
        "rewards": _plain(
            rewards.rename(columns={"reward_version": "version", "reward_digest": "digest"}), "records"
        ),
        "policy_versions": rows["policy_version"].nunique(),
        "reference_versions": rows["reference_version"].nunique(),
        "prompts": len(prompts),
        "most_used_prompts": _plain(most_used.head(TOP), "records"),
        "latents": {
            "clips": int((rows["latents"] != "").sum()), "files": len(latents), "bytes": sum(latents),
        },
    }  # fmt: skip


def table(figures: Mapping[str, Any]) -> str:
    """Return a summary as text for a person."""
    lines = [
        f"{figures['candidates']} candidates of {figures['prompts']} prompts in {figures['groups']} groups, "
        f"{figures['iterations']} iterations; {figures['policy_versions']} versions of the policy, "
        f"{figures['reference_versions']} of the reference"
    ]
    for title, key in (
        ("groups by verdict", "verdicts"),
        ("gap of accepted pairs, in units of the reward", "gaps"),
        ("motion", "motion"),
    ):
        lines += [
            "",
            title,
            *columns([(name, _number(value)) for name, value in figures[key].items()], indent=2),
        ]
    head = ("version", "digest", "iterations", "clips", "mean", "deviation", "winners", "losers", "broken")
    rewards = [
        (
            v["version"], v["digest"][:12], f"{v['first_iteration']}-{v['last_iteration']}", v["clips"],
            *(_number(v[key]) for key in ("mean", "deviation", "winners", "losers")), v["not_finite"],
        )
        for v in figures["rewards"]
    ]  # fmt: skip
    lines += ["", "rewards", *columns([head, *rewards], indent=2)]
    top = [(p["groups"], p["pairs"], p["uses"], p["prompt"]) for p in figures["most_used_prompts"]]
    lines += [
        "",
        "most used prompts",
        *columns([("drawn", "pairs", "used", "prompt"), *top], left=[3], indent=2),
    ]
    kept = figures["latents"]
    lines += ["", f"latents of {kept['clips']} clips kept, {kept['bytes'] / 2**20:.1f} MiB"]
    return "\n".join(lines)


def _plain(data: Any, orient: str) -> Any:
    """Return a frame or series as JSON values, NaN as None."""
    return json.loads(data.to_json(orient=orient, double_precision=15))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
