"""The update: what saves memory does not change a bit of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from components.alignment.policy import LoraPolicy
from components.alignment.policy.updater import Pair, Updater
from components.generator.generator import Generator
from components.runtime.compute.distributed import Ranks
from components.runtime.errors import InputError
from tests.alignment.tiny import PARAMS, PROMPTS


def pairs_for(generator: Generator, count: int = 2) -> list[Pair]:
    draws = torch.Generator().manual_seed(11)
    shape = generator.family.latent_shape(generator.geometry)
    texts = generator.embeddings([prompt.text for prompt in PROMPTS[:count]])
    return [
        Pair(prompt.id, text, torch.randn(shape, generator=draws), torch.randn(shape, generator=draws))
        for prompt, text in zip(PROMPTS, texts, strict=False)
    ]


def updated(generator: Generator, checkpointing: bool) -> tuple[dict[str, torch.Tensor], int]:
    """The policy after two steps, and the bytes that the first forward pass kept for the backward pass."""
    params = PARAMS.model_copy(update={"gradient_checkpointing": checkpointing})
    policy = LoraPolicy(generator.family, params.lora_rank, 0)
    updater = Updater(policy, params, Ranks())
    pairs = pairs_for(generator)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        updater.step(pairs, 0, 0)
    updater.step(pairs, 0, 1)
    return {name: value.clone() for name, value in policy.tensors().items()}, sum(kept.values())


def test_checkpointing_keeps_less_and_changes_nothing(new_generator: Callable[..., Generator]) -> None:
    plain, much = updated(new_generator(), False)
    lean, little = updated(new_generator(), True)
    assert little < much / 2
    assert all(torch.equal(value, lean[name]) for name, value in plain.items())
    assert any(not torch.equal(plain[n], plain[n.replace("policy", "reference")]) for n in plain)


def test_a_network_without_checkpointing_is_named(new_generator: Callable[..., Generator]) -> None:
    policy = LoraPolicy(new_generator().family, 2, 0)
    policy.network._supports_gradient_checkpointing = False
    with pytest.raises(InputError, match=r"gradient_checkpointing = true: WanTransformer3DModel does not"):
        policy.checkpoint_activations()
