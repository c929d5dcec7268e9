"""Plans of small models against bytes and operations counted by hand; of a released one against bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from components.alignment.params import AlignmentParams
from components.alignment.policy import LoraPolicy
from components.generator.generator import load_family
from components.generator.params import SamplingParams
from components.planning.blueprints import Blueprint, blueprint_of, build
from components.planning.gpus import GPUS, Gpu, gpu_of
from components.planning.plan import RESERVE, MemoryPlan, plan
from components.planning.table import as_table
from components.runtime.errors import InputError

SAMPLING = SamplingParams(num_frames=9, height=48, width=48, fps=8.0, steps=5, guidance=2.0, batch=8)
PARAMS = AlignmentParams(
    prompts_per_iteration=4,
    num_generations=3,
    inner_updates=2,
    timesteps_per_pair=2,
    pairs_per_forward=3,
    lora_rank=2,
    iterations=1,
)
GPU = Gpu("A-GPU", memory_gb=10, tflops_16=100, tflops_tf32=50, tflops_32=25)


@pytest.fixture(scope="module")
def miniature(repository: Path) -> Blueprint:
    """The facts of the committed miniature."""
    return blueprint_of(f"{repository}/models/miniature")


@pytest.fixture(scope="module")
def made(miniature: Blueprint) -> MemoryPlan:
    """Its plan on one GPU."""
    return plan(miniature, SAMPLING, PARAMS, GPU, 1)


@pytest.fixture(scope="module")
def shallow(miniature: Blueprint) -> Blueprint:
    """The miniature with two of its five blocks, to take less time."""
    transformer = miniature.parts["transformer"]
    fewer = replace(transformer, config=transformer.config | {"num_layers": 2})
    return replace(miniature, parts=miniature.parts | {"transformer": fewer})


@pytest.fixture(scope="module")
def quick(shallow: Blueprint) -> MemoryPlan:
    """Its plan on one GPU."""
    return plan(shallow, SAMPLING, PARAMS, GPU, 1)


def test_weights_are_the_loaded_ones(made: MemoryPlan, repository: Path) -> None:
    family = load_family(repository / "models" / "miniature", torch.device("cpu"))
    transformer = sum(p.numel() for p in family.denoiser.parameters())
    assert made.parameters["transformer"] == transformer
    assert made.resident["denoiser"] == 4 * transformer
    lora = sum(p.numel() for p in LoraPolicy(family, rank=2, seed=0).parameters().values())
    assert made.parameters["lora"] == lora
    assert made.resident["lora (policy, reference)"] == 2 * 4 * lora
    assert made.resident["optimiser (gradient, moments)"] == 3 * 4 * lora
    assert made.latents == (8, 9, 12, 12)


def test_all_weights_trained_take_what_full_policy_holds(shallow: Blueprint, quick: MemoryPlan) -> None:
    full = plan(shallow, SAMPLING, PARAMS.model_copy(update={"lora_rank": 0}), GPU, 1)
    count = full.parameters["transformer"]
    assert "lora" not in full.parameters
    # Policy and reference in float32, gradient and two moments, the base in the network's own type.
    assert full.resident["policy, reference"] == 2 * 4 * count
    assert full.resident["optimiser (gradient, moments)"] == 3 * 4 * count
    assert full.resident["base"] == full.resident["denoiser"] == 4 * count
    assert "base" not in quick.resident
    # A reference that never moves is the base.
    fixed = PARAMS.model_copy(update={"lora_rank": 0, "reference": "fixed"})
    assert plan(shallow, SAMPLING, fixed, GPU, 1).resident["policy"] == 4 * count
    # The gradients of the weights themselves come on top of those of an adapter.
    assert full.phases["update"].flops > 1.1 * quick.phases["update"].flops
    assert full.phases["decoding"].flops == quick.phases["decoding"].flops


def by_hand(facts: Blueprint) -> tuple[int, int]:
    """Weights of one of a transformer's blocks, and of what is not in one."""
    parameters = dict(build(facts, "full").denoiser.named_parameters())
    blocks = [value.numel() for name, value in parameters.items() if name.startswith("blocks.0.")]
    outside = [value.numel() for name, value in parameters.items() if not name.startswith("blocks.")]
    return sum(blocks), sum(outside)


def test_a_base_that_gpus_hold_together_lies_in_shares(shallow: Blueprint, quick: MemoryPlan) -> None:
    params = PARAMS.model_copy(update={"fsdp": True})
    made = plan(shallow, SAMPLING, params, GPU, 4)
    count, (block, outside) = made.parameters["transformer"], by_hand(shallow)
    assert count == 2 * block + outside
    assert made.resident["denoiser"] == 4 * count / 4
    # One block computes, the next is on its way; what is not in a block stays for the call.
    assert made.resident["gathered weights"] == 4 * (outside + 2 * block)
    # Adapters are whole everywhere.
    for name in ("lora (policy, reference)", "optimiser (gradient, moments)", "vae", "reserve"):
        assert made.resident[name] == quick.resident[name]
    assert made.fsdp and "which share the weights (FSDP2)" in as_table(made)
    # One GPU shares with nobody.
    alone = plan(shallow, SAMPLING, params, GPU, 1)
    assert alone.resident == quick.resident and not alone.fsdp


def test_all_weights_that_gpus_train_together_lie_in_shares(shallow: Blueprint) -> None:
    params = PARAMS.model_copy(update={"fsdp": True, "lora_rank": 0})
    made = plan(shallow, SAMPLING, params, GPU, 4)
    count, (block, outside) = made.parameters["transformer"], by_hand(shallow)
    assert made.resident["denoiser"] == made.resident["base"] == 4 * count / 4
    assert made.resident["policy, reference"] == 2 * 4 * count / 4
    assert made.resident["optimiser (gradient, moments)"] == 3 * 4 * count / 4
    # Whole gradients of what is not in a block and of one, which is exchanged in float32.
    together, gradients = 4 * (outside + 2 * block), 4 * (outside + block) + 4 * block
    assert made.resident["gathered weights"] == together + gradients
    # In 16 bits, norms and the like stay in 32, and whole.
    half = SAMPLING.model_copy(update={"precision": "half"})
    denoiser = build(shallow, "half").denoiser
    odd = sum(p.numel() for p in denoiser.parameters() if p.dtype == torch.float32)
    assert 0 < odd < 0.2 * count
    shared = plan(shallow, half, params, GPU, 4)
    assert shared.resident["base"] == shared.resident["denoiser"] == 2 * (count - odd) / 4 + 4 * odd
    assert shared.resident["policy, reference"] == 2 * 4 * ((count - odd) / 4 + odd)


def test_operations_are_those_of_the_real_calls(made: MemoryPlan, repository: Path) -> None:
    """Counted on the CPU, with weights, call by call."""
    family = load_family(repository / "models" / "miniature", torch.device("cpu"))
    LoraPolicy(family, rank=2, seed=0)
    latents, text = torch.randn(1, 8, 9, 12, 12), torch.randn(1, *family.embedding_shape)

    def flops(backward: bool) -> float:
        # The plain formula of attention: the counter knows no operation of the CPU's fused one.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            error = family.predict(latents, torch.tensor([500.0]), text).square().mean()
            if backward:
                error.backward()
        return float(counter.get_total_flops())

    forward, trained = flops(False), flops(True)
    # 4 prompts x 3 candidates x 5 steps x 2 passes for guidance.
    assert made.phases["sampling"].flops == pytest.approx(4 * 3 * 5 * 2 * forward, rel=0.02)
    # 2 updates x 4 pairs x 2 draws x both sides, policy and reference; 2 calls a pair for the drift.
    expected = 2 * 4 * 2 * 2 * (trained + forward) + 4 * 2 * forward
    assert made.phases["update"].flops == pytest.approx(expected, rel=0.05)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        family.decode(latents)
    assert made.phases["decoding"].flops == pytest.approx(12 * counter.get_total_flops(), rel=0.02)


def test_time_is_operations_over_the_stated_rate_times_utilisation(
    quick: MemoryPlan, shallow: Blueprint
) -> None:
    assert quick.phases["sampling"].seconds == pytest.approx(quick.phases["sampling"].flops / (25e12 * 0.4))
    assert quick.phases["decoding"].seconds == pytest.approx(quick.phases["decoding"].flops / (50e12 * 0.4))
    assert quick.seconds == pytest.approx(
        sum(quick.phases[name].seconds for name in ("sampling", "decoding", "update"))
    )
    sampling = SAMPLING.model_copy(update={"precision": "half"})
    half = plan(shallow, sampling, PARAMS, GPU, 1, utilisation=0.5)
    assert half.phases["sampling"].seconds == pytest.approx(
        quick.phases["sampling"].flops / (100e12 * 0.5), rel=0.01
    )
    assert half.resident["denoiser"] < 0.6 * quick.resident["denoiser"]


def test_prompts_are_dealt_to_the_gpus(quick: MemoryPlan, shallow: Blueprint) -> None:
    dealt = plan(shallow, SAMPLING, PARAMS, GPU, 3)  # two prompts for the one that has most to do
    assert dealt.phases["sampling"].flops == pytest.approx(quick.phases["sampling"].flops / 2)
    assert dealt.phases["update"].flops == pytest.approx(quick.phases["update"].flops / 2)


def test_checkpointing_is_chosen_where_only_it_fits(quick: MemoryPlan, shallow: Blueprint) -> None:
    plain, kept = quick.phases["update"], quick.phases["update, checkpointed"]
    assert kept.peak < plain.peak and kept.flops > plain.flops
    assert quick.checkpointing is False
    held = sum(quick.resident.values())
    assert plain.total == held + plain.peak and quick.resident["reserve"] == RESERVE
    between = replace(GPU, memory_gb=(held + (plain.peak + kept.peak) / 2) / 1e9)
    tight = plan(shallow, SAMPLING, PARAMS, between, 1)
    assert tight.checkpointing is True
    assert tight.seconds > quick.seconds
    none = plan(shallow, SAMPLING, PARAMS, replace(GPU, memory_gb=1.0), 1)
    assert none.checkpointing is None
    assert not any(none.fits(name) for name in none.phases)


def test_the_table_says_what_the_json_says(made: MemoryPlan) -> None:
    table, plain = as_table(made), json.loads(json.dumps(made.as_json()))
    assert plain["phases"]["update"]["total"] == made.phases["update"].total
    assert f"{made.phases['update'].total / 1e9:.2f}" in table
    assert f"{made.parameters['transformer']:,}" in table
    assert "40% (assumed) of 25 TFLOP/s (stated)" in table
    assert all(line in table for line in plain["assumed"])
    assert plain["fits"] == {name: True for name in made.phases}


def test_two_experts_count_twice_and_run_once() -> None:
    both = blueprint_of("Wan-AI/Wan2.2-T2V-A14B-Diffusers")
    # The same model at a size that takes no time: two layers instead of forty.
    parts = {
        name: replace(part, config=part.config | {"num_layers": 2, "num_attention_heads": 2, "ffn_dim": 64})
        if name.startswith("transformer")
        else part
        for name, part in both.parts.items()
    }
    small = replace(both, parts=parts)
    single = replace(
        small, config={}, parts={name: part for name, part in parts.items() if name != "transformer_2"}
    )
    sampling = SAMPLING.model_copy(update={"height": 32, "width": 32})
    two, one = (plan(facts, sampling, PARAMS, GPU, 1) for facts in (small, single))
    assert two.resident["denoiser"] == 2 * one.resident["denoiser"]
    assert two.parameters["lora"] == 2 * one.parameters["lora"]
    assert two.phases == {
        name: replace(phase, total=two.phases[name].total) for name, phase in one.phases.items()
    }


def test_wan_1_3b_at_480p_is_what_its_shape_says() -> None:
    """The transformer's operations by hand: products with weights, and attention between all tokens."""
    sampling = SamplingParams(
        num_frames=33, height=480, width=832, fps=16.0, steps=1, guidance=1.0, batch=1, precision="half"
    )
    params = PARAMS.model_copy(
        update={
            "prompts_per_iteration": 1,
            "num_generations": 2,
            "timesteps_per_pair": 1,
            "pairs_per_forward": 1,
        }
    )
    facts, layers = blueprint_of("Wan-AI/Wan2.1-T2V-1.3B-Diffusers"), 5  # of its 30, to take less time
    transformer = facts.parts["transformer"]
    fewer = replace(transformer, config=transformer.config | {"num_layers": layers})
    facts = replace(facts, parts=facts.parts | {"transformer": fewer})
    made = plan(facts, sampling, params, gpu_of("NVIDIA-H100-80GB-HBM3"), 1)
    tokens, text, width, ffn = 9 * 30 * 52, 512, 1536, 8960
    per_block = 2 * tokens * (6 * width**2 + 2 * width * ffn) + 2 * text * 2 * width**2
    per_block += 4 * tokens * (tokens + text) * width
    assert made.phases["sampling"].flops / 2 == pytest.approx(layers * per_block, rel=0.05)
    # Published: the 1.3B generates 480p in 8.19 GB with all but the working part moved away.
    assert 6e9 < made.phases["decoding"].peak < 10e9
    # With checkpoints each block keeps its input, both sides of a pair in 16 bits, and one block is whole.
    kept = layers * 2 * tokens * width * 2
    one = made.phases["update"].peak / layers
    assert made.phases["update, checkpointed"].peak == pytest.approx(kept + one, rel=0.35)


def test_an_unknown_gpu_lists_the_known_ones() -> None:
    assert gpu_of(GPUS[0].label) is GPUS[0]
    with pytest.raises(InputError, match="GPU 'abacus': unknown; allowed: NVIDIA-H200, NVIDIA-H100"):
        gpu_of("abacus")
