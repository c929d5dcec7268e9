"""Ladders that need a generator, on the miniature that is committed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.generator.generator import Generator, load_family
from components.generator.params import SamplingParams
from components.reward.distortions import GENERATIVE, LEVELS, REGISTRY
from components.reward.distortions.generator_made import steps_at
from components.runtime.errors import InputError
from tests.reward.conftest import textured, world

PROMPTS = [
    "a red circle moving right slowly on a black background",
    "a blue square moving up quickly on a white background",
]

every = pytest.mark.parametrize("name", GENERATIVE)


@pytest.fixture(scope="module")
def generator(repository: Path) -> Generator:
    family = load_family(repository / "models" / "miniature", torch.device("cpu"))
    return Generator(family, SamplingParams())


def material(name: str) -> Tensor | list[str]:
    return torch.cat((world(1, 9, 48), textured(1, 9, 48))) if GENERATIVE[name].needs == "vae" else PROMPTS


def loss(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().mean())


def test_there_are_a_vae_and_samplers_and_no_name_twice() -> None:
    assert GENERATIVE["vae_round_trip"].needs == "vae" and GENERATIVE["few_steps"].needs == "sampler"
    assert not set(GENERATIVE) & set(REGISTRY)
    assert all(
        ladder.family == "diffusion" and len(ladder.levels) == LEVELS for ladder in GENERATIVE.values()
    )


@every
def test_more_severe_is_farther_from_level_0(name: str, generator: Generator) -> None:
    levels = [GENERATIVE[name].build(generator, material(name), level, [1, 2]) for level in range(LEVELS + 1)]
    assert all(clips.shape == (2, 9, 3, 48, 48) and clips.dtype == torch.uint8 for clips in levels)
    lost = [loss(clips, levels[0]) for clips in levels]
    assert lost == sorted(lost) and lost[0] == 0.0 and lost[1] > 0.05, lost


@every
def test_same_seed_same_bytes_and_one_by_one_the_same(name: str, generator: Generator) -> None:
    both = material(name)
    ladder = GENERATIVE[name]
    first = ladder.build(generator, both, 3, [5, 6])
    assert torch.equal(first, ladder.build(generator, both, 3, [5, 6]))
    alone = torch.cat([ladder.build(generator, both[i : i + 1], 3, [5 + i]) for i in range(2)])
    # A sampler's batch is the generator's own affair, and may round otherwise in the last bit.
    assert int((alone.int() - first.int()).abs().max()) <= (0 if ladder.needs == "vae" else 1)
    assert not torch.equal(first, ladder.build(generator, both, 3, [7, 8]))


def test_level_0_is_the_clip_and_the_generators_own_sample(generator: Generator) -> None:
    clips = material("vae_round_trip")
    assert isinstance(clips, Tensor)
    assert torch.equal(GENERATIVE["vae_round_trip"].build(generator, clips, 0, [0, 1]), clips)
    own = generator.sample(PROMPTS, [3, 4])[0]
    for name in ("few_steps", "noisy_weights"):
        assert torch.equal(GENERATIVE[name].build(generator, PROMPTS, 0, [3, 4]), own)


def test_level_1_is_the_vae_alone(generator: Generator) -> None:
    clips = material("vae_round_trip")
    assert isinstance(clips, Tensor)
    there_and_back = generator.family.decode(generator.family.encode(clips))
    ours = GENERATIVE["vae_round_trip"].build(generator, clips, 1, [0, 1])
    assert int((ours.int() - there_and_back.int()).abs().max()) <= 1


@pytest.mark.parametrize("shape", [(2, 48, 48), (7, 50, 37), (10, 21, 30)], ids=str)
def test_the_vae_takes_any_clip(shape: tuple[int, int, int], generator: Generator) -> None:
    time, height, width = shape
    clips = torch.randint(0, 256, (5, time, 3, height, width), dtype=torch.uint8)
    assert GENERATIVE["vae_round_trip"].build(generator, clips, 2, list(range(5))).shape == clips.shape


def test_fewer_steps_are_fewer_calls_of_the_model(generator: Generator) -> None:
    calls = []
    hook = generator.family.denoiser.register_forward_hook(lambda *_: calls.append(1))
    try:
        for level in range(LEVELS + 1):
            GENERATIVE["few_steps"].build(generator, PROMPTS[:1], level, [0])
    finally:
        hook.remove()
    assert len(calls) == 8 + 6 + 5 + 4 + 3 + 2
    shares = GENERATIVE["few_steps"].levels
    assert [steps_at(50, share) for share in shares] == [30, 20, 12, 8, 4]
    assert [steps_at(4, share) for share in shares] == [4, 4, 4, 3, 2]
    assert generator.settings.steps == 8


def test_noise_on_the_weights_leaves_the_weights_as_they_were(generator: Generator) -> None:
    before = {name: weight.clone() for name, weight in generator.family.denoiser.named_parameters()}
    GENERATIVE["noisy_weights"].build(generator, PROMPTS[:1], 5, [0])
    with pytest.raises(ValueError, match="seed"):
        GENERATIVE["noisy_weights"].function(generator, PROMPTS, 0.3, [0])
    for name, weight in generator.family.denoiser.named_parameters():
        assert torch.equal(weight, before[name]), name


@pytest.mark.parametrize(
    ("name", "what", "level", "seeds", "message"),
    [
        ("vae_round_trip", PROMPTS, 1, [0, 1], "takes clips"),
        ("few_steps", torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8), 1, [0], "takes prompts"),
        ("vae_round_trip", torch.zeros(1, 2, 3, 8, 8), 1, [0], "uint8"),
        ("few_steps", PROMPTS, 6, [0, 1], "outside 0..5"),
        ("few_steps", PROMPTS, 1, [0], "1 seeds for 2 clips"),
    ],
)
def test_wrong_use_is_named(
    name: str, what: Tensor | list[str], level: int, seeds: list[int], message: str, generator: Generator
) -> None:
    with pytest.raises(InputError, match=f"{name}.*{message}"):
        GENERATIVE[name].build(generator, what, level, seeds)
