"""What every registered distortion must do, by name; a new one is tested by being registered."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor

from components.corpus.footage import FootageSource, draw_clips, packaged_sources
from components.corpus.params import CorpusParams
from components.reward.distortions import (
    ATTACKS,
    FAMILIES,
    GENERATED_ATTACKS,
    GENERATIVE,
    LEVELS,
    REGISTRY,
    Distortion,
    apply_recipe,
    find,
    random_recipe,
)
from components.reward.distortions.base import distortion
from components.runtime.errors import InputError
from components.video.filters import luma
from tests.reward.conftest import world

every = pytest.mark.parametrize("damage", REGISTRY.values(), ids=lambda d: d.name)


def seeds(clips: Tensor) -> list[int]:
    return list(range(clips.shape[0]))


@pytest.fixture(scope="module")
def pristine() -> Tensor:
    """float (8, 9, 3, 48, 48): four clips of the world, three of a packaged video, one of a photo."""
    film: list[Tensor] = []
    for source in packaged_sources(CorpusParams()):
        if isinstance(source, FootageSource):
            film += draw_clips(source, 3 if source.content.startswith("video/") else 1, seed=0)
        if len(film) >= 4:
            break
    return torch.cat((world(4, 9, 48), torch.stack(film[:4]))).float() / 255.0


@every
def test_level_0_is_the_identity(damage: Distortion, clips: Tensor) -> None:
    assert torch.equal(damage(clips, 0, seeds(clips)), clips)


@every
@pytest.mark.parametrize("shape", [(2, 7, 3, 50, 38), (1, 2, 3, 32, 32), (1, 3, 3, 27, 41)], ids=str)
def test_shape_range_and_type_are_kept(damage: Distortion, shape: tuple[int, ...]) -> None:
    """Neither square nor the usual size, two frames, odd sides."""
    frames = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    out = damage(frames, 5, list(range(shape[0])))
    assert out.shape == frames.shape and out.dtype == frames.dtype and out.device == frames.device
    assert float(out.min()) >= 0.0 and float(out.max()) <= 1.0
    assert torch.isfinite(out).all()


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(REGISTRY)),
    batch=st.integers(1, 2),
    time=st.integers(2, 6),
    height=st.integers(9, 40),
    width=st.integers(9, 40),
    level=st.integers(0, LEVELS),
    seed=st.integers(0, 2**62),
)
def test_any_size_and_seed(
    name: str, batch: int, time: int, height: int, width: int, level: int, seed: int
) -> None:
    frames = torch.rand(batch, time, 3, height, width, generator=torch.Generator().manual_seed(1))
    out = REGISTRY[name](frames, level, [seed] * batch)
    assert out.shape == frames.shape
    assert bool(((out >= 0) & (out <= 1)).all())


@every
def test_same_seed_same_bytes_and_input_untouched(damage: Distortion, clips: Tensor) -> None:
    before = clips.clone()
    first = damage(clips[:4], 3, [5, 6, 7, 8])
    assert torch.equal(first, damage(clips[:4], 3, [5, 6, 7, 8]))
    assert torch.equal(clips, before)


@every
def test_a_batch_equals_its_clips_one_by_one(damage: Distortion, clips: Tensor) -> None:
    picked = clips[[0, 7, 3]]
    batch = damage(picked, 4, [11, 12, 13])
    for i in range(3):
        alone = damage(picked[i : i + 1], 4, [11 + i])
        assert torch.allclose(batch[i : i + 1], alone, atol=1e-5)


DIGESTS = """
import hashlib, json, sys, torch
torch.set_num_threads(1)
from components.reward.distortions import REGISTRY
from tests.reward.conftest import textured, world
clips = torch.cat((textured(1), world(1))).float() / 255
names = sorted(REGISTRY, reverse=True)
digest = lambda frames: hashlib.sha256((frames * 255).round().byte().numpy().tobytes()).hexdigest()
print(json.dumps({name: digest(REGISTRY[name](clips, 4, [3, 4])) for name in names}))
"""


def test_another_process_makes_the_same_bytes(repository: Path) -> None:
    """In another order, too: nothing carries over from one call to the next."""
    from tests.reward.conftest import textured

    done = subprocess.run(
        [sys.executable, "-c", DIGESTS],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stderr == "", "encoders are silent"
    clips = torch.cat((textured(1), world(1))).float() / 255
    ours = {}
    for name, damage in REGISTRY.items():
        pixels = (damage(clips, 4, [3, 4]) * 255).round().byte().numpy()
        ours[name] = hashlib.sha256(pixels.tobytes()).hexdigest()
    assert json.loads(done.stdout) == ours


@every
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_clip(damage: Distortion, clips: Tensor) -> None:
    there = damage(clips[:2].cuda(), 4, [0, 1])
    assert there.is_cuda
    assert float((there.cpu() - damage(clips[:2], 4, [0, 1])).abs().mean()) < 1 / 255


def closeness(reference: Tensor, distorted: Tensor) -> Tensor:
    """Independent full-reference measure of each clip: scikit-image's SSIM of luma over space and time, less
    the mean absolute error of the colours."""
    each = []
    for a, b in zip(reference, distorted, strict=True):
        similar = structural_similarity(luma(a).numpy(), luma(b).numpy(), data_range=1.0, win_size=7)
        each.append(float(similar) - float((a - b).abs().mean()))
    return torch.tensor(each)


@every
def test_more_severe_is_never_closer_to_the_original(damage: Distortion, pristine: Tensor) -> None:
    """On average over clips of the world and of footage, and nearly so on each kind by itself."""
    levels = torch.stack(
        [closeness(pristine, damage(pristine, level, seeds(pristine))) for level in range(LEVELS + 1)]
    )
    assert torch.allclose(levels[0], torch.ones(len(pristine)), atol=1e-4)
    steps = levels.mean(1).diff()
    assert bool((steps <= 0.003).all()), levels.mean(1)
    for kind in (levels[:, :4], levels[:, 4:]):
        assert bool((kind.mean(1).diff() <= 0.02).all()), kind.mean(1)
    assert float(levels[LEVELS].mean()) < 0.99, levels.mean(1)


def test_the_registry_covers_the_families() -> None:
    counts = {family: sum(d.family == family for d in REGISTRY.values()) for family in FAMILIES}
    assert counts["spatial"] >= 16 and counts["codec"] >= 6 and counts["temporal"] >= 6
    assert counts["diffusion"] + len(GENERATIVE) >= 10
    for d in [*REGISTRY.values(), *GENERATIVE.values()]:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", d.name)
        assert len(d.summary) > 10 and d.unit
        assert len(set(d.levels)) == LEVELS and list(d.levels) in (sorted(d.levels), sorted(d.levels)[::-1])


def test_every_attack_is_a_distortion_at_a_level() -> None:
    assert set(ATTACKS) >= {
        "frozen", "blank", "oversmoothed", "looped", "flickering", "ramped", "latticed", "erased", "ghosted",
        "oversaturated",
    }  # fmt: skip
    assert all(name in REGISTRY and 1 <= level <= LEVELS for name, level in ATTACKS.values())
    assert all(name in GENERATIVE and 1 <= level <= LEVELS for name, level in GENERATED_ATTACKS.values())


def test_one_decorated_function_is_a_whole_distortion() -> None:
    try:

        @distortion("spatial", (1, 2, 3, 4, 5), "steps")
        def only_in_this_test(frames: Tensor, value: float, draws: object) -> Tensor:
            """Darker by value tenths."""
            return frames - value / 10

        found = find("only_in_this_test")
        assert found.summary == "Darker by value tenths"
        assert torch.allclose(found(torch.ones(1, 2, 3, 8, 8), 2, [0]), torch.full((1, 2, 3, 8, 8), 0.8))
    finally:
        REGISTRY.pop("only_in_this_test")


def test_declaring_a_name_twice_or_too_few_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        distortion("spatial", (1, 2, 3, 4, 5), "px")(REGISTRY["blur"].function)
    with pytest.raises(ValueError, match="needs 5"):

        @distortion("spatial", (1, 2), "px")
        def short_ladder(frames: Tensor, value: float, draws: object) -> Tensor:
            """Too short."""
            return frames


@pytest.mark.parametrize(
    ("frames", "level", "seed"),
    [
        (torch.rand(1, 3, 8, 8), 1, [0]),
        (torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8), 1, [0]),
        (torch.rand(1, 2, 3, 8, 8), 6, [0]),
        (torch.rand(2, 2, 3, 8, 8), 1, [0]),
        (torch.rand(1, 1, 3, 8, 8), 1, [0]),
    ],
)
def test_wrong_use_is_named(frames: Tensor, level: int, seed: list[int]) -> None:
    with pytest.raises(InputError, match="blur"):
        REGISTRY["blur"](frames, level, seed)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"blurr.*known:.*blur"):
        find("blurr")


def test_compositions_are_ordered_draws_and_monotone(clips: Tensor) -> None:
    recipes = {random_recipe(seed, list(REGISTRY), 3) for seed in range(30)}
    assert len(recipes) > 25 and all(len(set(recipe)) == 3 for recipe in recipes)
    assert random_recipe(4, list(REGISTRY), 3) == random_recipe(4, list(REGISTRY), 3)
    two = ("blur", "frame_noise")
    assert not torch.equal(
        apply_recipe(two, clips[:2], 3, [0, 1]), apply_recipe((two[1], two[0]), clips[:2], 3, [0, 1])
    )
    near = [
        float(closeness(clips, apply_recipe(two, clips, level, seeds(clips))).mean())
        for level in range(LEVELS + 1)
    ]
    assert near == sorted(near, reverse=True)
    assert torch.equal(apply_recipe(two, clips, 0, seeds(clips)), clips)
    with pytest.raises(InputError, match="1 to 4"):
        apply_recipe(("blur",) * 5, clips, 1, seeds(clips))
