"""What a ledger records of a candidate, and under which name it keeps its latents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import torch
from torch import Tensor

if TYPE_CHECKING:
    # The network's libraries take seconds to load; reading a ledger does not need them.
    from components.alignment.candidates.pairs import PairDecision
    from components.alignment.candidates.rollout import Group

KeepLatents = Literal["none", "pairs", "all"]
#: Clean latents (C, T, h, w) on the host by prompt id and candidate.
Latents = Mapping[tuple[str, int], Tensor]

#: The columns of every ledger, beside `USED`; a float64 column `aspect_<name>` for each aspect comes after.
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
ASPECT = "aspect_"
#: Iterations in which the candidate's pair was trained on, in order; empty for candidates of no pair.
USED = pa.field("used", pa.list_(pa.int32()))


@dataclass(frozen=True)
class LedgerOrigin:
    """What sampled and scored a group of candidates; each attribute is a column.

    Attributes:
        policy_version: optimizer steps of the policy that sampled them; 0 is the base itself.
        reference_version: syncs of the reference by then.
        reward_version: number of the reward's version.
        reward_digest: of what decides its scores.
    """

    policy_version: int
    reference_version: int
    reward_version: int
    reward_digest: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> LedgerOrigin:
        """Return a row's origin."""
        return cls(*(row[field.name] for field in fields(cls)))


def content_digest(latents: Tensor) -> str:
    """Return the SHA-256 over a tensor's dtype, shape and bytes: the name that a ledger keeps it under."""
    flat = latents.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{flat.dtype} {tuple(flat.shape)}\n".encode())
    digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def kept_latents(
    groups: Sequence[Group], decisions: Sequence[PairDecision], keep: KeepLatents, *, half: bool = False
) -> dict[tuple[str, int], Tensor]:
    """Return the latents worth keeping, on the host, by prompt id and candidate.

    A clip's latents are C T h w numbers, 2 bytes each with `half`, else 4. With Wan 2.1 at 480 x 832 px and
    81 frames that is 4.2 MB a clip in half precision, 67 MB an iteration of 8 pairs and 13 GB in 200 of them;
    the miniature's clip is 41 kB.

    Args:
        groups: this process's; row i of a group's latents belongs to its i-th candidate.
        decisions: of at least these groups, in any order.
        keep: "pairs" keeps winners and losers, "all" every candidate, "none" nothing.
        half: round to float16, for a network in 16 bits.
    """
    sides = {decision.prompt_id: {decision.winner, decision.loser} for decision in decisions}
    dtype = torch.float16 if half else torch.float32
    return {
        # Cloned: a view would carry the whole group's memory with it to the other processes.
        (group.prompt.id, candidate.index): clip.detach().to("cpu", dtype).clone()
        for group in (groups if keep != "none" else ())
        for candidate, clip in zip(group.candidates, group.latents, strict=True)
        if keep == "all" or candidate.index in sides[group.prompt.id]
    }


def rows_of(
    iteration: int,
    groups: Sequence[Group],
    decisions: Sequence[PairDecision],
    origin: LedgerOrigin | Sequence[LedgerOrigin],
    digests: Mapping[tuple[str, int], str],
    *,
    trained: bool,
) -> list[dict[str, Any]]:
    """Return an iteration's rows, one per candidate; `role` is winner, loser or empty.

    Args:
        origin: of all groups, or of each.
        digests: the names that latents are kept under, by prompt id and candidate.
        trained: whether the iteration trains on its pairs.
    """
    origins = [origin] * len(groups) if isinstance(origin, LedgerOrigin) else origin
    return [
        {
            "iteration": iteration,
            "prompt_id": group.prompt.id,
            "prompt": group.prompt.text,
            "candidate": candidate.index,
            "seed": candidate.seed,
            "reward": candidate.reward,
            "reward_spread": candidate.uncertainty,
            "motion": candidate.motion,
            "role": (role := {decision.winner: "winner", decision.loser: "loser"}.get(candidate.index, "")),
            "gap": decision.gap,
            "verdict": decision.reason,
            **asdict(group_origin),
            "latents": digests.get((group.prompt.id, candidate.index), ""),
            **{f"{ASPECT}{name}": value for name, value in candidate.aspects.items()},
            USED.name: [iteration] if role and trained else [],
        }
        for group, decision, group_origin in zip(groups, decisions, origins, strict=True)
        for candidate in group.candidates
    ]
