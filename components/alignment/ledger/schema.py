"""What a ledger says of a candidate, and under which name it keeps its latents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import torch
from torch import Tensor

if TYPE_CHECKING:
    # The network's libraries take seconds to load; reading a ledger does not need them.
    from components.alignment.candidates.pairs import Verdict
    from components.alignment.candidates.rollout import Group

Keep = Literal["none", "pairs", "all"]
Latents = Mapping[tuple[str, int], Tensor]
"""Clean latents (C, T, h, w) on the host by prompt id and candidate."""

SCHEMA = pa.schema(
    [
        ("iteration", pa.int32()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("candidate", pa.int32()),
        ("seed", pa.int64()),
        ("reward", pa.float64()),
        ("reward_spread", pa.float64()),
        ("motion", pa.float64()),
        ("role", pa.string()),
        ("gap", pa.float64()),
        ("verdict", pa.string()),
        ("policy_version", pa.int32()),
        ("reference_version", pa.int32()),
        ("reward_version", pa.int32()),
        ("reward_digest", pa.string()),
        ("latents", pa.string()),
    ]
)
"""What every part has. A reward that gives aspects adds a float64 column `aspect_<name>` for each; the
published ledger adds ``USED``."""

ASPECT = "aspect_"
USED = pa.field("used", pa.list_(pa.int32()))
"""Iterations in which the candidate's pair was trained on, in order; empty for candidates of no pair."""


@dataclass(frozen=True)
class Origin:
    """What drew and judged a group of candidates.

    Attributes:
        policy: optimizer steps behind the policy that drew them; 0 is the base itself.
        reference: refreshes of the reference by then.
        reward: number of the reward's version.
        reward_digest: of what decides its scores.
    """

    policy: int
    reference: int
    reward: int
    reward_digest: str


def content_digest(latents: Tensor) -> str:
    """SHA-256 over a tensor's type, shape and bytes: the name that a ledger keeps it under."""
    flat = latents.detach().cpu().contiguous()
    found = hashlib.sha256(f"{flat.dtype} {tuple(flat.shape)}\n".encode())
    found.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def kept_latents(
    groups: Sequence[Group], verdicts: Sequence[Verdict], keep: Keep, *, half: bool = False
) -> dict[tuple[str, int], Tensor]:
    """Return the latents worth keeping, on the host, by prompt id and candidate.

    A clip is its latents: C T h w numbers, 2 bytes each with ``half``, else 4. With Wan 2.1 at 480 x 832
    px and 81 frames that is 4.2 MB a clip in half precision, 67 MB an iteration of 8 pairs and 13 GB in 200
    of them; the miniature's clip is 41 kB.

    Args:
        groups: this process's; row i of a group's latents belongs to its i-th candidate.
        verdicts: of at least these groups, in any order.
        keep: "pairs" keeps winners and losers, "all" every candidate, "none" nothing.
        half: round to float16, which is finer than what a network in 16 bits makes of them.
    """
    if keep == "none":
        return {}
    by_prompt = {verdict.prompt_id: verdict for verdict in verdicts}
    found = {}
    for group in groups:
        verdict = by_prompt[group.prompt.id]
        wanted = {verdict.winner, verdict.loser}
        for place, candidate in enumerate(group.candidates):
            if keep == "all" or candidate.index in wanted:
                clip = group.latents[place].detach().to("cpu", torch.float16 if half else torch.float32)
                # A view would carry the whole group's memory with it to the other processes.
                found[group.prompt.id, candidate.index] = clip.clone()
    return found


def rows_of(
    iteration: int,
    groups: Sequence[Group],
    verdicts: Sequence[Verdict],
    origin: Origin | Sequence[Origin],
    digests: Mapping[tuple[str, int], str],
) -> list[dict[str, Any]]:
    """Return an iteration's rows, one per candidate; ``role`` is winner, loser or empty.

    Args:
        origin: of all groups, or of each.
        digests: the names that latents are kept under, by prompt id and candidate.
    """
    origins = [origin] * len(groups) if isinstance(origin, Origin) else origin
    rows = []
    for group, verdict, own in zip(groups, verdicts, origins, strict=True):
        for candidate in group.candidates:
            role = {verdict.winner: "winner", verdict.loser: "loser"}.get(candidate.index, "")
            rows.append(
                {
                    "iteration": iteration,
                    "prompt_id": group.prompt.id,
                    "prompt": group.prompt.text,
                    "candidate": candidate.index,
                    "seed": candidate.seed,
                    "reward": candidate.reward,
                    "reward_spread": candidate.spread,
                    "motion": candidate.motion,
                    "role": role,
                    "gap": verdict.gap,
                    "verdict": verdict.reason,
                    "policy_version": own.policy,
                    "reference_version": own.reference,
                    "reward_version": own.reward,
                    "reward_digest": own.reward_digest,
                    "latents": digests.get((group.prompt.id, candidate.index), ""),
                    **{f"{ASPECT}{name}": value for name, value in candidate.aspects.items()},
                }
            )
    return rows
