"""What a ledger tells at a glance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from components.alignment.ledger.reader import LedgerReader
from components.alignment.ledger.writer import LATENTS

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
TOP = 10
"""Prompts shown."""


def summary(ledger: LedgerReader) -> dict[str, Any]:
    """Return counts, gaps and rewards as JSON values; rewards and gaps are in units of the reward.

    A figure of nothing (no accepted pair, no finite reward) is None.
    """
    rows, groups = ledger.rows, ledger.groups()
    pairs = ledger.pairs
    latents = {
        name: e.bytes for name, e in ledger.artifact.manifest.files.items() if name.startswith(LATENTS)
    }
    by_version: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_version.setdefault((row["reward_version"], row["reward_digest"]), []).append(row)
    return {
        "iterations": ledger.iterations,
        "candidates": len(rows),
        "groups": len(groups),
        "pairs": len(pairs),
        "verdicts": dict(Counter(group[0]["verdict"] for group in groups.values()).most_common()),
        "gaps": _quantiles(pair.gap for pair in pairs),
        "motion": {
            role or "neither": _mean(row["motion"] for row in rows if row["role"] == role)
            for role in ("winner", "loser", "")
        },
        "rewards": [_version(number, digest, own) for (number, digest), own in sorted(by_version.items())],
        "policy_versions": len({row["policy_version"] for row in rows}),
        "reference_versions": len({row["reference_version"] for row in rows}),
        "prompts": len({row["prompt_id"] for row in rows}),
        "most_used_prompts": _prompts(groups),
        "latents": {
            "clips": sum(bool(row["latents"]) for row in rows),
            "files": len(latents),
            "bytes": sum(latents.values()),
        },
    }


def table(found: Mapping[str, Any]) -> str:
    """Return a summary as text for a person."""
    lines = [
        f"{found['candidates']} candidates of {found['prompts']} prompts in {found['groups']} groups, "
        f"{found['iterations']} iterations; {found['policy_versions']} versions of the policy, "
        f"{found['reference_versions']} of the reference",
        "",
        "groups by verdict",
    ]
    lines += _aligned([(name, count) for name, count in found["verdicts"].items()])
    lines += ["", "gap of accepted pairs, in units of the reward"]
    lines += _aligned([(name, _number(value)) for name, value in found["gaps"].items()])
    lines += ["", "motion"]
    lines += _aligned([(name, _number(value)) for name, value in found["motion"].items()])
    lines += ["", "rewards"]
    head = ("version", "digest", "iterations", "clips", "mean", "deviation", "winners", "losers", "broken")
    lines += _aligned(
        [head]
        + [
            (
                v["version"],
                v["digest"][:12],
                f"{v['first_iteration']}-{v['last_iteration']}",
                v["clips"],
                *(_number(v[key]) for key in ("mean", "deviation", "winners", "losers")),
                v["not_finite"],
            )
            for v in found["rewards"]
        ]
    )
    lines += ["", "most used prompts"]
    top = [(p["groups"], p["pairs"], p["uses"], p["prompt"]) for p in found["most_used_prompts"]]
    lines += _aligned([("drawn", "pairs", "used", "prompt"), *top], left=-1)
    kept = found["latents"]
    lines += ["", f"latents of {kept['clips']} clips kept, {kept['bytes'] / 2**20:.1f} MiB"]
    return "\n".join(lines)


def _version(number: int, digest: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rewards = np.array([row["reward"] for row in rows if math.isfinite(row["reward"])])
    return {
        "version": number,
        "digest": digest,
        "first_iteration": min(row["iteration"] for row in rows),
        "last_iteration": max(row["iteration"] for row in rows),
        "clips": len(rows),
        "mean": float(rewards.mean()) if len(rewards) else None,
        "deviation": float(rewards.std()) if len(rewards) else None,
        "winners": _mean(row["reward"] for row in rows if row["role"] == "winner"),
        "losers": _mean(row["reward"] for row in rows if row["role"] == "loser"),
        "not_finite": len(rows) - len(rewards),
    }


def _prompts(groups: Mapping[tuple[int, str], Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The prompts whose pairs were used in most iterations, then those drawn most often."""
    found: dict[str, dict[str, Any]] = {}
    for (_, prompt_id), group in groups.items():
        new = {"prompt_id": prompt_id, "prompt": group[0]["prompt"], "groups": 0, "pairs": 0, "uses": 0}
        entry = found.setdefault(prompt_id, new)
        entry["groups"] += 1
        entry["pairs"] += group[0]["verdict"] == "accepted"
        entry["uses"] += max(len(row["used"]) for row in group)
    ordered = sorted(found.values(), key=lambda e: (-e["uses"], -e["groups"], e["prompt_id"]))
    return ordered[:TOP]


def _quantiles(values: Iterable[float]) -> dict[str, float | None]:
    found = list(values)
    names = ("least", "quarter", "median", "three quarters", "most")
    if not found:
        return dict.fromkeys(names)
    return {name: float(np.quantile(found, at)) for name, at in zip(names, QUANTILES, strict=True)}


def _mean(values: Iterable[float]) -> float | None:
    found = [value for value in values if math.isfinite(value)]
    return sum(found) / len(found) if found else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _aligned(rows: Sequence[Sequence[object]], left: int = 0) -> list[str]:
    """Rows of cells as columns to the right; column ``left`` stands to the left."""
    if not rows:
        return ["  none"]
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        "  " + "  ".join(
            cell.ljust(width) if place == left % len(widths) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    ]  # fmt: skip
