"""The judge against clips whose damage is known: ten kinds at three strengths, and controls."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage

from components.corpus.world import judge as judge_module
from components.corpus.world.judge import LAWS, PART_FLOOR, Judgement, judge
from components.corpus.world.render import render
from components.corpus.world.scene import SHAPES, all_scenes

Frames = np.ndarray  # float64 (T, 3, H, W) in 0..1
SCENES = all_scenes()[3::37]
STRENGTHS = (0.25, 0.5, 1.0)


def _blur(x: Frames, s: float, rng: np.random.Generator) -> Frames:
    return ndimage.gaussian_filter(x, (0, 0, 2.5 * s, 2.5 * s), mode="nearest")


def _noise(x: Frames, s: float, rng: np.random.Generator) -> Frames:
    return x + 0.12 * s * rng.standard_normal(x.shape)


def _flicker(x: Frames, s: float, rng: np.random.Generator) -> Frames:
    return x * (1 + 0.3 * s * rng.standard_normal((len(x), 1, 1, 1)))


def _freeze(x: Frames, s: float, rng: np.random.Generator) -> Frames:
    last = round((1 - s) * (len(x) - 1))
    return x[np.minimum(np.arange(len(x)), last)]


def _erase(x: Frames, s: float, rng: np.random.Generator) -> Frames:
    gone = rng.permutation(len(x))[: round(s * 8)]
    y = x.copy()
    y[gone] = np.median(x, axis=(2, 3), keepdims=True)[gone]
    return y


def _jitter(x: Frames, s: float, rng: np.random.Generator) -> Frames:
    shifts = 3.0 * s * rng.standard_normal((len(x), 2))
    return np.stack(
        [ndimage.shift(f, (0, *d), order=1, mode="nearest") for f, d in zip(x, shifts, strict=True)]
    )


def _ghost(x: Frames, s: float, rng: np.random.Generator) -> Frames:
    before = np.concatenate([x[:2], x[:-2]])
    return (1 - 0.45 * s) * x + 0.45 * s * before


def _lattice(x: Frames, s: float, rng: np.random.Generator) -> Frames:
    rows, columns = np.mgrid[0 : x.shape[2], 0 : x.shape[3]]
    return x + 0.1 * s * (((rows % 4) == 0) | ((columns % 4) == 0))


def _drift(x: Frames, s: float, rng: np.random.Generator) -> Frames:
    towards = np.roll(x, 1, axis=1)
    share = s * np.linspace(0, 1, len(x))[:, None, None, None]
    return (1 - share) * x + share * towards


DAMAGE: dict[str, Callable[[Frames, float, np.random.Generator], Frames]] = {
    "blur": _blur,
    "noise": _noise,
    "flicker": _flicker,
    "freeze": _freeze,
    "erase": _erase,
    "jitter": _jitter,
    "ghost": _ghost,
    "lattice": _lattice,
    "drift": _drift,
}


def _damaged(name: str, strength: float, index: int) -> torch.Tensor:
    scene = SCENES[index]
    clip = render(scene, index)
    if name == "morph":
        # From one shape to the next over the clip, as far as the strength says.
        other = type(scene)(SHAPES[(SHAPES.index(scene.shape) + 1) % 4], *_rest(scene))
        share = strength * torch.linspace(0, 1, len(clip))[:, None, None, None]
        return ((1 - share) * clip + share * _at_same_place(clip, other, index)).round().to(torch.uint8)
    x = clip.numpy().astype(np.float64) / 255
    y = DAMAGE[name](x, strength, np.random.default_rng(index))
    return torch.from_numpy(np.rint(np.clip(y, 0, 1) * 255).astype(np.uint8))


def _rest(scene: object) -> tuple[str, str, str, str]:
    return scene.colour, scene.direction, scene.speed, scene.background  # type: ignore[attr-defined]


def _at_same_place(clip: torch.Tensor, other: object, seed: int) -> torch.Tensor:
    """The other shape moved onto the first one's path (its centroid in each frame), in the same colours."""
    from components.corpus.world.detect import read_back
    from components.corpus.world.render import coverage

    reading = read_back(clip)
    y, x = np.mgrid[0:48, 0:48] + 0.5
    out = np.empty(clip.shape)
    for t, (cx, cy) in enumerate(reading.centroids):
        alpha = coverage(other.shape, x - cx, y - cy, 7.2)  # type: ignore[attr-defined]
        frame = clip[t].numpy().astype(np.float64)
        inside = frame[:, reading.masks[t] > 0.95].mean(axis=1)
        out[t] = alpha * inside[:, None, None] + (1 - alpha) * frame[:, :1, :1]
    return torch.from_numpy(out)


@cache
def _pristine() -> tuple[Judgement, ...]:
    return tuple(judge(render(scene, index)) for index, scene in enumerate(SCENES))


@cache
def _qualities(name: str, strength: float) -> np.ndarray:
    return np.array([judge(_damaged(name, strength, index)).quality for index in range(len(SCENES))])


def test_pristine_clips_are_near_one() -> None:
    qualities = [verdict.quality for verdict in _pristine()]
    assert min(qualities) > 0.95
    assert np.mean(qualities) > 0.98
    assert all(verdict.presence == 1 for verdict in _pristine())


@pytest.mark.parametrize("name", [*DAMAGE, "morph"])
def test_damage_lowers_quality_and_more_damage_lowers_it_more(name: str) -> None:
    pristine = np.array([verdict.quality for verdict in _pristine()])
    ladder = [_qualities(name, strength) for strength in STRENGTHS]
    for level in ladder:
        assert (level < pristine).all(), (name, (pristine - level).min())
    means = [pristine.mean()] + [level.mean() for level in ladder]
    assert all(a > b for a, b in pairwise(means)), (name, means)
    assert means[-1] < 0.9, (name, means)


def test_a_frozen_clip_is_clearly_lower() -> None:
    frozen = _qualities("freeze", 1.0)
    assert frozen.max() < 0.75
    assert frozen.max() < min(verdict.quality for verdict in _pristine()) - 0.2


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_clip_is_worth_nothing(value: int) -> None:
    verdict = judge(torch.full((9, 3, 48, 48), value, dtype=torch.uint8))
    assert verdict == Judgement(0.0, 0.0, dict.fromkeys(LAWS, 0.0))


def test_noise_alone_is_worth_little() -> None:
    frames = torch.randint(
        0, 256, (9, 3, 48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    assert judge(frames).quality < 0.15


def test_wrapping_around_the_edge_is_seen() -> None:
    clip = render(SCENES[0], 0)
    wrapped = torch.stack([frame.roll(t * 5, dims=-1) for t, frame in enumerate(clip)])
    assert judge(wrapped).quality < 0.5


def test_playing_backwards_changes_next_to_nothing() -> None:
    for index, verdict in enumerate(_pristine()):
        assert judge(render(SCENES[index], index).flip(0)).quality == pytest.approx(verdict.quality, abs=1e-6)


def test_each_damage_is_blamed_on_its_own_law() -> None:
    def worst(name: str) -> str:
        parts = judge(_damaged(name, 1.0, 2)).parts
        return min(parts, key=parts.__getitem__)

    assert worst("freeze") == "motion"
    assert worst("jitter") == "path"
    assert worst("lattice") in {"background_space", "sharpness"}
    assert worst("flicker") in {"background_time", "colour"}


def test_parts_stay_between_floor_and_one() -> None:
    for verdict in [judge(_damaged(name, 0.5, 1)) for name in DAMAGE]:
        assert 0 <= verdict.quality <= 1
        assert set(verdict.parts) == set(LAWS)
        assert all(PART_FLOOR <= part <= 1 for part in verdict.parts.values())


def test_too_short_a_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="2 frames"):
        judge(render(SCENES[0], 0)[:2])


def test_the_judge_shares_no_code_with_any_model() -> None:
    tree = ast.parse(inspect.getsource(judge_module))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    ours = {name for name in imported if name.startswith("components.")}
    assert ours == {"components.corpus.world.detect", "components.corpus.world.scene"}
