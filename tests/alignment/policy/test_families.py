"""Adapters and gradient steps on every family, not the miniature's alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.alignment.params import AlignmentParams
from components.alignment.policy import POLICY, REFERENCE, LoraPolicy
from components.alignment.policy.updater import Pair, Updater
from components.generator.families import FAMILIES, ModelFamily
from components.runtime.compute.distributed import Ranks
from tests.generator.tiny import TINY

PARAMS = AlignmentParams(
    timesteps_per_pair=3, learning_rate=1e-2, beta=100.0, lora_rank=2, pairs_per_forward=2
)


def make(name: str) -> ModelFamily:
    """Build a tiny model with seeded random weights."""
    torch.manual_seed(0)
    pipeline = TINY[name].build()
    family = FAMILIES[type(pipeline).__name__](pipeline)
    family.set_conditioning(TINY[name].geometry.fps, 3.0)
    return family


def inputs(family: ModelFamily, name: str) -> tuple[Tensor, Tensor, Tensor]:
    shape = family.latent_shape(TINY[name].geometry)
    latents = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    text = family.encode_prompts(["a red circle moves left", "a blue square"])
    return latents, torch.tensor([950, 100]), text


def make_pairs(family: ModelFamily, name: str) -> list[Pair]:
    latents, _, text = inputs(family, name)
    return [Pair(f"p{number}", text[number], latents[number], latents[number].flip(-1)) for number in (0, 1)]


@pytest.mark.parametrize("name", list(TINY))
@torch.no_grad()
def test_the_base_stays_reachable_to_the_bit(name: str) -> None:
    family = make(name)
    given = inputs(family, name)
    before = family.predict(*given)
    policy = LoraPolicy(family, rank=2, seed=0)
    assert torch.equal(family.predict(*given), before)
    for value in policy.parameters(POLICY).values():
        value.add_(0.1)
    assert not torch.allclose(family.predict(*given), before)
    for off in (policy.base, policy.reference):
        with off():
            assert torch.equal(family.predict(*given), before)


@pytest.mark.parametrize("name", list(TINY))
def test_updates_prefer_the_winner(name: str) -> None:
    family = make(name)
    policy = LoraPolicy(family, rank=2, seed=0)
    updater, pairs = Updater(policy, PARAMS, Ranks()), make_pairs(family, name)
    losses = [updater.step(pairs, 0, 0)["loss"] for _ in range(5)]  # the same noise and times each time
    assert all(torch.isfinite(torch.tensor(losses)))
    assert losses[-1] < losses[0]
    assert policy.parameters(POLICY).keys() == policy.parameters(REFERENCE).keys()


def test_both_experts_are_trained_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = make("wan-2.2-a14b")
    policy = LoraPolicy(family, rank=2, seed=0)
    updater = Updater(policy, PARAMS, Ranks())
    before = {name: value.detach().clone() for name, value in policy.parameters().items()}
    assert {name.split(".")[0] for name in before} == {"high", "low"}
    moved = {}
    for time, expert in ((900.0, "high"), (100.0, "low")):
        monkeypatch.setattr(family.noise_process, "sample_times", lambda *_, time=time: torch.tensor([time]))
        fresh = Updater(policy, PARAMS, Ranks())
        before = {name: value.detach().clone() for name, value in policy.parameters().items()}
        fresh.step(make_pairs(family, "wan-2.2-a14b"), 0, 0)
        after = policy.parameters()
        moved[expert] = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"high": {"high"}, "low": {"low"}}
    assert updater.step(make_pairs(family, "wan-2.2-a14b"), 0, 0)
    policy.save(tmp_path)
    assert (tmp_path / "lora" / "transformer_2" / "pytorch_lora_weights.safetensors").is_file()


def test_adapters_are_float32_on_a_half_precision_base() -> None:
    family = make("ltx")
    family.pipeline.transformer.to(torch.bfloat16)
    policy = LoraPolicy(family, rank=2, seed=0)
    assert {value.dtype for value in policy.parameters().values()} == {torch.float32}
    updater = Updater(policy, PARAMS.model_copy(update={"learning_rate": 1e-6}), Ranks())
    with torch.no_grad():
        for value in policy.parameters().values():
            value.fill_(0.5)
    updater.step(make_pairs(family, "ltx"), 0, 0)
    # A step of a millionth is lost on a half in bfloat16, whose next number is 0.004 away.
    moved = [bool((value != 0.5).any()) for value in policy.parameters().values()]
    assert sum(moved) > len(moved) / 2
