"""Adapters: the base stays reachable to the bit, the reference stays put.

The saved LoRA is what diffusers loads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from components.alignment.policy import POLICY, REFERENCE, LoraPolicy, Policy
from components.generator.generator import Generator


def probe(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    latents = torch.randn(2, 4, 5, 4, 4, generator=torch.Generator().manual_seed(3))
    text = generator.embeddings(["a red circle moving left slowly on a grey background"] * 2)
    return latents, torch.tensor([300.0, 700.0]), text


@torch.no_grad()
def disturb(policy: Policy) -> None:
    draws = torch.Generator().manual_seed(5)
    for value in policy.parameters(POLICY).values():
        value.add_(0.1 * torch.randn(value.shape, generator=draws))


@torch.no_grad()
def test_starts_as_the_base_and_the_base_stays_reachable(new_generator: Callable[..., Generator]) -> None:
    generator = new_generator()
    inputs = probe(generator)
    before = generator.family.predict(*inputs)
    policy = LoraPolicy(generator.family, rank=2, seed=0)
    assert torch.equal(generator.family.predict(*inputs), before)
    disturb(policy)
    assert not torch.allclose(generator.family.predict(*inputs), before)
    with policy.base():
        assert torch.equal(generator.family.predict(*inputs), before)
    with policy.reference():
        assert torch.equal(generator.family.predict(*inputs), before)
    assert not torch.allclose(generator.family.predict(*inputs), before)


@torch.no_grad()
def test_refresh_copies_the_policy_and_then_lets_it_go(new_generator: Callable[..., Generator]) -> None:
    generator = new_generator()
    policy = LoraPolicy(generator.family, rank=2, seed=0)
    inputs = probe(generator)
    disturb(policy)
    policy.sync_reference()
    expected = generator.family.predict(*inputs)
    disturb(policy)
    with policy.reference():
        assert torch.equal(generator.family.predict(*inputs), expected)


def test_only_the_policy_is_trained(new_generator: Callable[..., Generator]) -> None:
    generator = new_generator()
    policy = LoraPolicy(generator.family, rank=2, seed=0)
    with policy.reference():
        pass
    trainable = {n for n, p in generator.family.denoiser.named_parameters() if p.requires_grad}
    assert trainable and all(f".{POLICY}." in name for name in trainable)
    assert set(policy.parameters(POLICY)) == set(policy.parameters(REFERENCE))


@torch.no_grad()
def test_saved_lora_is_what_diffusers_loads(new_generator: Callable[..., Generator], tmp_path: Path) -> None:
    generator = new_generator()
    policy = LoraPolicy(generator.family, rank=2, seed=0)
    disturb(policy)
    inputs = probe(generator)
    expected = generator.family.predict(*inputs)
    policy.save(tmp_path)
    fresh = new_generator()
    fresh.family.pipeline.load_lora_weights(str(tmp_path / "lora"))
    assert torch.equal(fresh.family.predict(*inputs), expected)
