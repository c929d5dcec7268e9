"""All weights trained: the base stays reachable, nothing is lost in 16 bits, a killed run ends as a whole.

What is saved is what diffusers and the generator load.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from components.alignment.params import AlignmentParams
from components.alignment.policy import POLICY, REFERENCE, FullPolicy
from components.alignment.policy.updater import Pair, Updater
from components.generator.generator import Generator
from components.runtime.compute.distributed import Ranks
from components.runtime.errors import InputError
from tests.alignment.policy.test_families import inputs as inputs_of
from tests.alignment.policy.test_families import make, make_pairs
from tests.alignment.policy.test_lora import probe
from tests.alignment.tiny import PARAMS, Killed, kill_after, make_trainer

FULL = PARAMS.model_copy(update={"lora_rank": 0, "learning_rate": 1e-3})
ONE_EACH = ("wan-2.1", "wan-2.2-a14b", "cogvideox-5b", "modelscope")


@torch.no_grad()
def disturb(policy: FullPolicy) -> None:
    draws = torch.Generator().manual_seed(5)
    for value in policy.parameters(POLICY).values():
        value.add_(0.1 * torch.randn(value.shape, generator=draws))
    policy.stepped()


@pytest.mark.parametrize("name", ONE_EACH)
@torch.no_grad()
def test_base_and_reference_stay_reachable_to_the_bit(name: str) -> None:
    family = make(name)
    given = inputs_of(family, name)
    before = family.predict(*given)
    policy = FullPolicy(family)
    disturb(policy)
    moved = family.predict(*given)
    assert not torch.allclose(moved, before)
    for other in (policy.base, policy.reference):
        with other():
            assert torch.equal(family.predict(*given), before)
        assert torch.equal(family.predict(*given), moved)
    policy.sync_reference()
    disturb(policy)
    with policy.reference():
        assert torch.equal(family.predict(*given), moved)
    with policy.base():
        assert torch.equal(family.predict(*given), before)


@pytest.mark.parametrize("name", ONE_EACH)
def test_updates_move_every_weight_that_the_network_uses(name: str) -> None:
    family = make(name)
    policy = FullPolicy(family)
    before = {key: value.detach().clone() for key, value in policy.parameters().items()}
    params = AlignmentParams(
        timesteps_per_pair=3, learning_rate=1e-3, beta=100.0, lora_rank=0, pairs_per_forward=2, sft_weight=0.0
    )
    updater, pairs = Updater(policy, params, Ranks()), make_pairs(family, name)
    losses = [updater.step(pairs, 0, 0)["loss"] for _ in range(5)]  # the same noise and times each time
    assert losses[-1] < losses[0]
    moved = [not torch.equal(value, before[key]) for key, value in policy.parameters().items()]
    assert sum(moved) > 0.8 * len(moved)
    # The network's own hold no gradients: they would be as many again.
    assert all(value.grad is None for value in family.denoiser.parameters())


def gradients(generator: Generator, parts: int) -> dict[str, Tensor]:
    policy = FullPolicy(generator.family)
    latents, _, text = probe(generator)
    pairs = [Pair(f"p{n}", text[n], latents[n], latents[n].flip(-1)) for n in (0, 1)]
    params = FULL.model_copy(update={"pairs_per_forward": parts, "learning_rate": 1e-12})
    Updater(policy, params, Ranks()).step(pairs, 0, 0)
    return {name: value.grad for name, value in policy.parameters().items() if value.grad is not None}


def test_gradients_are_those_of_the_network_itself(new_generator: Callable[..., Generator]) -> None:
    """Against plain autograd on a base without any of this, in one part and in several."""
    plain = new_generator()
    network = plain.family.denoiser.requires_grad_(True)
    latents, times, text = probe(plain)
    policy = FullPolicy(new_generator().family)
    for family in (plain.family, policy.family):
        family.predict(latents, times, text).square().mean().backward()
    for name, value in network.named_parameters():
        assert torch.equal(value.grad, policy.parameters()[name].grad), name
    whole, parted = gradients(new_generator(), 64), gradients(new_generator(), 1)
    assert all(torch.allclose(value, parted[name], atol=1e-6) for name, value in whole.items())


def test_small_steps_add_up_on_a_half_precision_base() -> None:
    family = make("ltx")
    family.pipeline.transformer.to(torch.bfloat16)
    policy = FullPolicy(family)
    assert {value.dtype for value in policy.parameters().values()} == {torch.float32}
    before = {name: value.detach().clone() for name, value in policy.parameters().items()}
    params = AlignmentParams(lora_rank=0, learning_rate=1e-7, pairs_per_forward=2)
    Updater(policy, params, Ranks()).step(make_pairs(family, "ltx"), 0, 0)
    # Such steps are lost on most numbers in bfloat16, of which there are 256 between 0.5 and 1.
    moved = [bool((value != before[name]).any()) for name, value in policy.parameters().items()]
    assert sum(moved) > 0.8 * len(moved)
    own = list(family.denoiser.parameters())
    assert {value.dtype for value in own} == {torch.bfloat16}
    lost = [torch.equal(value, start.bfloat16()) for value, start in zip(own, before.values(), strict=True)]
    assert sum(lost) > len(lost) / 2


@pytest.mark.parametrize("reference", ["fixed", "every_k"])
def test_a_killed_run_ends_as_a_whole_one_to_the_bit(
    new_generator: Callable[..., Generator], tmp_path: Path, reference: str
) -> None:
    params = FULL.model_copy(update={"reference": reference})
    whole = make_trainer(new_generator(), tmp_path / "whole", params)
    whole.run()

    with pytest.raises(Killed):
        make_trainer(new_generator(), tmp_path / "cut", params, on_iteration=kill_after(2)).run()
    resumed = make_trainer(new_generator(), tmp_path / "cut", params)
    assert resumed.done == 2
    resumed.run()
    expected, found = whole.policy.tensors(), resumed.policy.tensors()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert resumed.curve == whole.curve
    # A fixed reference is the base and is kept by nobody.
    assert any(name.startswith(REFERENCE) for name in found) == (reference == "every_k")
    assert whole.curve[-1]["drift_from_base"] > 0


def test_the_reference_may_follow_in_small_steps(new_generator: Callable[..., Generator]) -> None:
    policy = FullPolicy(new_generator().family)
    base = {name: value.detach().clone() for name, value in policy.parameters().items()}
    disturb(policy)
    policy.sync_reference(0.25)
    for name, value in policy.parameters(REFERENCE).items():
        quarter = base[name] + 0.25 * (policy.parameters()[name].detach() - base[name])
        assert torch.allclose(value, quarter, atol=1e-6)


@torch.no_grad()
def test_what_is_saved_is_what_diffusers_and_the_generator_load(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    generator = new_generator()
    policy = FullPolicy(generator.family)
    disturb(policy)
    inputs = probe(generator)
    expected = generator.family.predict(*inputs)
    policy.save(tmp_path)
    fresh = new_generator()
    fresh.family.load_aligned(tmp_path / "weights")
    assert torch.equal(fresh.family.predict(*inputs), expected)
    theirs = WanTransformer3DModel.from_pretrained(tmp_path / "weights" / "transformer")
    fresh = new_generator()
    fresh.family.pipeline.transformer = theirs.eval()
    assert torch.equal(fresh.family.predict(*inputs), expected)
    # Where the base was read from is not in it: equal weights are equal files.
    assert "/" not in (tmp_path / "weights" / "transformer" / "config.json").read_text()


def test_weights_of_another_model_are_refused(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    FullPolicy(make("wan-2.1")).save(tmp_path)
    with pytest.raises(InputError, match=r"weights/transformer: the weights cannot be loaded"):
        new_generator().family.load_aligned(tmp_path / "weights")
    with pytest.raises(InputError, match=r"the weights cannot be loaded"):
        new_generator().family.load_aligned(tmp_path / "nowhere" / "weights")


def test_both_experts_are_saved(tmp_path: Path) -> None:
    family = make("wan-2.2-a14b")
    policy = FullPolicy(family)
    disturb(policy)
    policy.save(tmp_path)
    again = make("wan-2.2-a14b")
    again.load_aligned(tmp_path / "weights")
    found = dict(again.denoiser.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in family.denoiser.named_parameters())
