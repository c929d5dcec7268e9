"""The reference follows the policy by its rule: worked out on the weights themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.alignment.params import GuardParams, ReferenceKind
from components.alignment.policy import POLICY, REFERENCE, LoraPolicy, Policy
from components.alignment.policy.reference import Reference
from components.generator.generator import Generator
from tests.alignment.tiny import PARAMS, Killed, kill_after, make_trainer, same


@torch.no_grad()
def follow(
    policy: Policy, kind: ReferenceKind, every: int, agrees: tuple[bool, ...]
) -> tuple[Reference, list[float]]:
    """Set the policy's weights to 1, 2, 3 .. by updates; return what the reference's are after each."""
    reference = Reference(policy, kind, every)
    for value in policy.parameters(REFERENCE).values():
        value.zero_()
    seen = []
    for number, agreed in enumerate(agrees, start=1):
        for value in policy.parameters(POLICY).values():
            value.fill_(float(number))
        reference.after_update(number, agreed)
        found = torch.cat([value.flatten() for value in policy.parameters(REFERENCE).values()])
        assert found.min() == found.max()
        seen.append(found[0].item())
    return reference, seen


@pytest.fixture
def policy(new_generator: Callable[..., Generator]) -> Policy:
    return LoraPolicy(new_generator().family, rank=2, seed=0)


@pytest.mark.parametrize(
    ("kind", "expected", "version", "refused"),
    [
        ("fixed", [0, 0, 0, 0, 0, 0], 0, 0),
        ("every_k", [0, 2, 2, 4, 4, 6], 3, 0),
        ("judged", [0, 2, 2, 2, 2, 6], 2, 1),
        # Half of the way each time: 1/2, (1/2 + 2) / 2, ...
        ("ema", [0.5, 1.25, 2.125, 3.0625, 4.03125, 5.015625], 6, 0),
    ],
)
def test_rules_by_hand(
    policy: Policy, kind: ReferenceKind, expected: list[float], version: int, refused: int
) -> None:
    reference, seen = follow(policy, kind, 2, (True, True, True, False, False, True))
    assert seen == expected
    assert (reference.version, reference.refused) == (version, refused)


def test_counts_survive_a_checkpoint(policy: Policy) -> None:
    reference, _ = follow(policy, "judged", 1, (True, False, True))
    again = Reference(policy, "judged", 1)
    again.restore(reference.state())
    assert (again.version, again.refused) == (2, 1)


@pytest.mark.parametrize("kind", ["ema", "fixed"])
def test_a_killed_run_has_the_same_reference(
    new_generator: Callable[..., Generator], tmp_path: Path, kind: ReferenceKind
) -> None:
    params = PARAMS.model_copy(update={"reference": kind, "iterations": 3})
    whole = make_trainer(new_generator(), tmp_path / "whole", params)
    whole.run()

    with pytest.raises(Killed):
        make_trainer(new_generator(), tmp_path / "cut", params, on_iteration=kill_after(1)).run()
    resumed = make_trainer(new_generator(), tmp_path / "cut", params)
    assert resumed.done == 1
    resumed.run()
    # Policy and reference both, and what was said of them on the way.
    assert same(resumed.policy.tensors(), whole.policy.tensors()) and resumed.curve == whole.curve
    assert [row["reference_version"] for row in whole.curve] == ([2, 4, 6] if kind == "ema" else [0, 0, 0])
    start = LoraPolicy(new_generator().family, params.lora_rank, params.run.seed).tensors()
    reference = {n: v for n, v in whole.policy.tensors().items() if n.startswith(REFERENCE)}
    assert all(torch.equal(value, start[name]) for name, value in reference.items()) == (kind == "fixed")


def test_without_a_judge_nothing_is_judged() -> None:
    settings = {"reference": "judged", "guards": GuardParams(every=0)}
    with pytest.raises(ValueError, match=r"guards.every = 0 takes no readings"):
        type(PARAMS).model_validate(settings)
