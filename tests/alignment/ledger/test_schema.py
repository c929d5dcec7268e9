"""What rows say, which latents are kept, and under which names."""

from __future__ import annotations

import hashlib

import pytest
import torch

from components.alignment.candidates.pairs import Candidate, PairDecision
from components.alignment.candidates.rollout import Group
from components.alignment.ledger import LedgerOrigin, kept_latents
from components.alignment.ledger.schema import content_digest, rows_of
from tests.alignment.ledger.made import PROMPTS, group

DECISION = PairDecision("p0", 2, 0, 2.0, "accepted")


def test_a_row_says_who_drew_and_who_judged() -> None:
    groups, origin = [group(PROMPTS[0], [0.0, 1.0, 2.0])], LedgerOrigin(8, 1, 2, "d")
    rows = rows_of(3, groups, [DECISION], origin, {("p0", 2): "x"}, trained=True)
    assert [row["role"] for row in rows] == ["loser", "", "winner"]
    assert [row["latents"] for row in rows] == ["", "", "x"]
    assert [row["used"] for row in rows] == [[3], [], [3]]
    last = rows[-1]
    assert (last["policy_version"], last["reference_version"], last["reward_version"]) == (8, 1, 2)
    assert last["reward_digest"] == "d" and last["seed"] == 72 and last["iteration"] == 3
    assert last["reward"] == 2.0 and last["reward_spread"] == 0.2 and last["aspect_codec"] == 4.0


def test_groups_may_be_of_several_origins() -> None:
    groups = [group(prompt, [0.0, 2.0]) for prompt in PROMPTS[:2]]
    decisions = [PairDecision(g.prompt.id, 1, 0, 2.0, "accepted") for g in groups]
    origins = [LedgerOrigin(0, 0, 0, "a"), LedgerOrigin(9, 3, 1, "b")]
    rows = rows_of(0, groups, decisions, origins, {}, trained=False)
    assert not any(row["used"] for row in rows)
    told = [(row["policy_version"], row["reference_version"], row["reward_digest"]) for row in rows]
    assert told == [(0, 0, "a")] * 2 + [(9, 3, "b")] * 2


def test_the_digest_is_of_type_shape_and_bytes() -> None:
    clip = torch.tensor([[1.5, -2.0]])
    by_hand = hashlib.sha256(b"torch.float32 (1, 2)\n" + clip.numpy().tobytes()).hexdigest()
    assert content_digest(clip) == by_hand
    others = [clip.half(), clip.reshape(2), clip + 1e-6, clip.bfloat16()]
    assert len({by_hand, *(content_digest(other) for other in others)}) == 5
    # How a tensor lies in memory is not its content.
    assert content_digest(torch.stack([clip, clip], dim=-1)[..., 0]) == by_hand


@pytest.mark.parametrize(("keep", "names"), [("none", []), ("pairs", [0, 2]), ("all", [0, 1, 2])])
def test_what_is_kept(keep: str, names: list[int]) -> None:
    own = group(PROMPTS[0], [0.0, 1.0, 2.0])
    kept = kept_latents([own], [DECISION], keep)  # type: ignore[arg-type]
    assert sorted(kept) == [("p0", index) for index in names]
    assert all(torch.equal(clip, own.latents[index]) for (_, index), clip in kept.items())


def test_nothing_is_kept_of_a_group_without_a_pair() -> None:
    decision = PairDecision("p0", None, None, 0.0, "gap_too_small")
    assert kept_latents([group(PROMPTS[0], [1.0, 1.0])], [decision], "pairs") == {}


def test_latents_follow_the_candidate_and_not_its_number() -> None:
    candidates = [Candidate("p0", index, index, float(index), 1.0) for index in (4, 2)]
    own = Group(PROMPTS[0], torch.tensor([[40.0], [20.0]]), candidates)
    kept = kept_latents([own], [PairDecision("p0", 4, 2, 2.0, "accepted")], "pairs")
    assert kept["p0", 4].item() == 40.0 and kept["p0", 2].item() == 20.0


def test_half_takes_half_the_bytes_and_rounds() -> None:
    own = group(PROMPTS[0], [0.0, 1.0, 2.0])
    kept = kept_latents([own], [DECISION], "pairs", half=True)
    assert all(clip.dtype == torch.float16 for clip in kept.values())
    assert torch.equal(kept["p0", 2], own.latents[2].half())
    # A clip takes its own memory with it, not its group's.
    assert kept["p0", 2].untyped_storage().nbytes() == own.latents[2].numel() * 2
