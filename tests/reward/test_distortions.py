"""What every registered distortion must do, by name; a new one is tested by being registered."""

from __future__ import annotations

import re

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from components.reward.distortions import (
    FAMILIES,
    LEVELS,
    REGISTRY,
    Distortion,
    apply_recipe,
    find,
    random_recipe,
)
from components.reward.distortions.registry import distortion
from components.runtime.errors import InputError

every = pytest.mark.parametrize("damage", REGISTRY.values(), ids=lambda d: d.name)


def seeds(clips: Tensor) -> list[int]:
    return list(range(clips.shape[0]))


@every
def test_level_0_is_the_identity(damage: Distortion, clips: Tensor) -> None:
    assert torch.equal(damage(clips, 0, seeds(clips)), clips)


@every
def test_shape_range_and_type_are_kept(damage: Distortion) -> None:
    odd = torch.rand(2, 7, 3, 50, 38)  # neither square nor the usual size
    out = damage(odd, 5, [1, 2])
    assert out.shape == odd.shape and out.dtype == odd.dtype
    assert float(out.min()) >= 0.0 and float(out.max()) <= 1.0
    assert torch.isfinite(out).all()


@every
def test_two_frames_are_enough(damage: Distortion) -> None:
    short = torch.rand(1, 2, 3, 32, 32)
    assert damage(short, 3, [0]).shape == short.shape


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


def _closeness(reference: Tensor, distorted: Tensor) -> float:
    """Independent full-reference measure: scikit-image's SSIM over space and time, less the mean absolute
    error."""
    total = 0.0
    for a, b in zip(reference.numpy(), distorted.numpy(), strict=True):
        similar = structural_similarity(a, b, channel_axis=1, data_range=1.0, win_size=7)
        total += float(similar) - float(abs(a - b).mean())
    return total / len(reference)


@every
def test_more_severe_is_farther_from_the_original_on_average(damage: Distortion, clips: Tensor) -> None:
    closeness = [_closeness(clips, damage(clips, level, seeds(clips))) for level in range(LEVELS + 1)]
    for level in range(LEVELS):
        assert closeness[level + 1] <= closeness[level] + 0.01, (level, closeness)
    assert closeness[LEVELS] < closeness[0] - 0.02, closeness


def test_the_registry_covers_the_families() -> None:
    assert len(REGISTRY) >= 20
    for family in FAMILIES:
        assert sum(d.family == family for d in REGISTRY.values()) >= 4
    for d in REGISTRY.values():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", d.name)
        assert len(d.summary) > 10 and d.unit


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
        distortion("spatial", (1, 2, 3, 4, 5), "px")(REGISTRY["blur"].damage)
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
    closeness = [
        _closeness(clips, apply_recipe(two, clips, level, seeds(clips))) for level in range(LEVELS + 1)
    ]
    assert closeness == sorted(closeness, reverse=True)
    assert torch.equal(apply_recipe(two, clips, 0, seeds(clips)), clips)
    with pytest.raises(InputError, match="1 to 4"):
        apply_recipe(("blur",) * 5, clips, 1, seeds(clips))


def test_freeze_at_level_5_never_moves(clips: Tensor) -> None:
    frozen = REGISTRY["freeze"](clips, 5, seeds(clips))
    assert torch.equal(frozen[:, 1:], frozen[:, :-1])


def test_blank_at_level_5_shows_nothing(clips: Tensor) -> None:
    assert float(REGISTRY["blank"](clips, 5, seeds(clips)).std(dim=(-2, -1)).max()) < 1e-5


def test_erase_takes_the_object_and_leaves_the_background() -> None:
    clip = torch.full((1, 3, 3, 48, 48), 0.9)
    clip[..., 18:30, 20:32] = torch.tensor([0.8, 0.1, 0.1])[:, None, None]
    erased = REGISTRY["erase"](clip, 5, [0])
    assert float((erased - 0.9).abs().max()) < 0.05


def test_lattice_repeats_and_is_still(clips: Tensor) -> None:
    plain = torch.full((4, 3, 3, 48, 48), 0.5)
    out = REGISTRY["lattice"](plain, 3, [0, 1, 2, 3])
    assert torch.allclose(out[..., 8:], out[..., :-8], atol=1e-6)
    assert torch.equal(out[:, 0], out[:, 1])
    assert float(out.std()) > 0.03


def test_temporal_distortions_use_only_frames_of_the_clip(clips: Tensor) -> None:
    for name in ("freeze", "stutter", "low_frame_rate", "shuffle", "judder", "jump"):
        out = REGISTRY[name](clips[4:6], 4, [0, 1])
        for clip, damaged in zip(clips[4:6], out, strict=True):
            assert all(any(torch.equal(frame, original) for original in clip) for frame in damaged), name
