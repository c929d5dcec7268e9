"""Dimensions against clips whose answer is known, and what every registered dimension must do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from components.corpus.world.render import render
from components.corpus.world.scene import Scene, all_scenes
from components.evaluation.comparison.measure import measure
from components.evaluation.dimensions.base import Dimension, VideoBatch
from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.dimensions.classical_flow import smoothness
from components.evaluation.dimensions.motion import flickering, is_dynamic, motion
from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.evaluation.models import WEIGHTS, ModelStore

SCENES = [
    Scene("circle", "red", "left", "quickly", "black"),
    Scene("square", "cyan", "up", "slowly", "white"),
    Scene("triangle", "blue", "down", "quickly", "grey"),
    Scene("cross", "magenta", "right", "slowly", "white"),
]
WORLD = ("object_class", "color", "shape", "direction", "speed", "background")


class NoReward:
    def score(self, frames: torch.Tensor, fps: float, prompts: Sequence[str] | None = None) -> torch.Tensor:
        return torch.zeros(len(frames))


def clips(scenes: list[Scene] = SCENES, prompts: list[str] | None = None) -> VideoBatch:
    frames = torch.stack([render(scene, seed) for seed, scene in enumerate(scenes)])
    return VideoBatch(frames, 8.0, tuple(prompts or [scene.caption for scene in scenes]))


NOTHING = ModelStore()


def score(name: str, of: VideoBatch) -> np.ndarray:
    """By the first provider that needs no weights."""
    able = next(one for one in catalogue()[name] if one.unavailable(of, NOTHING) is None)
    return able.measure(of, NOTHING)


def test_every_vbench_dimension_is_in_the_catalogue_and_quality_comes_first() -> None:
    names = list(catalogue())
    assert set(QUALITY + SEMANTIC) <= set(names)
    groups = [catalogue()[name][0].group for name in names]
    assert groups == sorted(groups)


@pytest.mark.parametrize(
    "dimension",
    [d for providers in catalogue().values() for d in providers],
    ids=lambda d: f"{d.name}-{d.needs}",
)
def test_every_dimension_measures_or_says_why_not(dimension: Dimension) -> None:
    assert dimension.definition
    assert (dimension.needs == "weights") == bool(dimension.models)
    assert bool(dimension.variant) >= bool(dimension.compat)
    reason = dimension.unavailable(clips(), NOTHING)
    if dimension.models:
        assert reason is not None
        for name in dimension.models:
            assert WEIGHTS[name].title in reason
            assert WEIGHTS[name].instead_of in reason
    else:
        assert reason is None
        found = dimension.measure(clips(), NOTHING)
        assert found.shape == (4,)
        assert ((found >= 0) & (found <= 1)).all()


def test_flickering_by_hand() -> None:
    frames = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    frames[1] += 51
    frames[2] += 51
    assert flickering(frames) == pytest.approx((255 - 51 / 2) / 255, abs=1e-7)
    assert flickering(torch.full((5, 3, 4, 4), 90, dtype=torch.uint8)) == 1.0


def test_uint8_differences_do_not_wrap_around() -> None:
    frames = torch.tensor([0, 255, 0], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 3, 4, 4)
    assert flickering(frames) == 0.0


def test_smoothness_of_even_motion_is_higher_than_of_shuffled_frames() -> None:
    clip = render(SCENES[0], 0)
    even = smoothness(clip.numpy())
    assert even > 0.995
    assert smoothness(clip[torch.tensor([0, 5, 1, 7, 2, 8, 3, 6, 4])].numpy()) < even - 0.01


@pytest.mark.parametrize(("fast", "expected"), [(1, False), (2, True), (8, True)])
def test_dynamic_needs_a_quarter_of_the_steps_above_the_threshold(fast: int, expected: bool) -> None:
    """9 frames: round(4 * 9 / 16) = 2 steps above 6 * 48 / 256 = 1.125 px."""
    lengths = np.array([1.2] * fast + [1.0] * (8 - fast))
    assert is_dynamic(lengths, 48) is expected
    assert not is_dynamic(lengths, 256)


def test_dynamic_degree_tells_a_fast_clip_from_a_still_one() -> None:
    fast = render(SCENES[0], 0)
    still = fast[:1].expand(9, -1, -1, -1)
    both = VideoBatch(torch.stack([fast, still]), 8.0, ("a", "b"))
    assert score("dynamic_degree", both).tolist() == [1.0, 0.0]


def test_flow_is_only_estimated_where_asked() -> None:
    some = VideoBatch(clips().frames, 8.0, clips().prompts, flow_on=np.array([True, False, True, False]))
    assert np.isnan(score("dynamic_degree", some)).tolist() == [False, True, False, True]
    assert np.isnan(score("temporal_flickering", some)).sum() == 0


def test_motion_in_the_world_is_the_objects_way_and_blind_to_flicker() -> None:
    moves, how = motion(clips())
    assert "detector" in how
    # Speeds are 0.44 and 0.20 of the side over 8 steps, within 10 %.
    expected = np.array([0.44, 0.20, 0.44, 0.20]) * 48 / 8
    assert np.abs(moves / expected - 1).max() < 0.12
    rng = np.random.default_rng(0)
    x = clips().frames.numpy() * (1 + 0.1 * rng.standard_normal((4, 9, 1, 1, 1)))
    flickering_clips = VideoBatch(torch.from_numpy(np.clip(x, 0, 255).astype(np.uint8)), 8.0, clips().prompts)
    assert np.abs(motion(flickering_clips)[0] / moves - 1).max() < 0.05


def test_motion_elsewhere_is_flow() -> None:
    elsewhere = clips(prompts=["one", "two", "three", "four"])
    moves, how = motion(elsewhere)
    assert "flow" in how
    assert moves[0] > 1.5 * moves[1] > 0


@pytest.mark.parametrize("name", WORLD)
def test_the_world_dimensions_are_one_on_their_own_prompt(name: str) -> None:
    assert score(name, clips()).tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("color", "colour"),
        ("shape", "shape"),
        ("direction", "direction"),
        ("speed", "speed"),
        ("background", "background"),
    ],
)
def test_the_world_dimensions_are_zero_where_the_prompt_says_otherwise(name: str, field: str) -> None:
    others = []
    for scene in SCENES:
        other = next(s for s in all_scenes() if getattr(s, field) != getattr(scene, field))
        values = {key: getattr(scene, key) for key in ("shape", "colour", "direction", "speed", "background")}
        others.append(Scene(**(values | {field: getattr(other, field)})).caption)
    wrong = clips(prompts=others)
    assert score(name, wrong).tolist() == [0.0] * 4
    for kept in set(WORLD) - {name}:
        assert score(kept, wrong).tolist() == [1.0] * 4


def test_a_blank_clip_scores_zero_and_is_not_left_out() -> None:
    blank = VideoBatch(torch.full((1, 9, 3, 48, 48), 20, dtype=torch.uint8), 8.0, (SCENES[0].caption,))
    for name in ("object_class", "color", "shape", "direction", "speed"):
        assert score(name, blank).tolist() == [0.0]


def test_without_world_prompts_the_world_is_unavailable_with_its_reason() -> None:
    elsewhere = clips(prompts=["a cat", "a dog", "a bird", "a fish"])
    side = measure(elsewhere, NoReward(), 2, NOTHING)
    assert side.judge is None
    assert set(WORLD) <= set(side.unavailable)
    assert "miniature world" in side.unavailable["color"]
    assert "GRiT" in side.unavailable["color"]
    assert set(side.scores) == {"temporal_flickering", "motion_smoothness", "dynamic_degree"}


def test_with_weights_the_pretrained_models_are_used_and_named(tiny_weights: Path) -> None:
    frames = torch.stack([render(scene, 0)[::4] for scene in SCENES[:2]])
    prompts = [SCENES[0].caption, "A person is marching"]
    side = measure(VideoBatch(frames, 8.0, tuple(prompts)), NoReward(), 2, ModelStore(str(tiny_weights)))
    free = {name for name, ones in catalogue().items() if not ones[0].fact}
    assert free <= set(side.scores)
    assert side.used["dynamic_degree"].models == ("raft",)
    assert "RAFT" in side.used["motion_smoothness"].method
    assert side.used["color"].needs == "world"  # the suite's facts are not there, the world's are
    assert np.isnan(side.scores["human_action"]).tolist() == [True, False]
    assert "says what to look for" in side.unavailable["scene"]


def test_a_reward_is_told_the_prompt_of_each_clip() -> None:
    class Reader:
        def score(
            self, frames: torch.Tensor, fps: float, prompts: Sequence[str] | None = None
        ) -> torch.Tensor:
            assert prompts is not None and len(prompts) == len(frames)
            return torch.tensor([float(len(prompt)) for prompt in prompts])

    given = clips(prompts=["a", "bb", "ccc", "dddd"])
    side = measure(VideoBatch(given.frames[:3], 8.0, given.prompts[:3]), Reader(), 2, NOTHING)
    assert side.reward.tolist() == [1.0, 2.0, 3.0]


def test_a_reward_that_fails_is_not_taken_for_a_low_one() -> None:
    class Broken:
        def score(
            self, frames: torch.Tensor, fps: float, prompts: Sequence[str] | None = None
        ) -> torch.Tensor:
            return torch.full((len(frames),), float("nan"))

    with pytest.raises(ValueError, match="not finite"):
        measure(clips(), Broken(), 2, NOTHING)


def test_wrong_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        VideoBatch(torch.zeros(1, 9, 3, 8, 8), 8.0, ("a",))
    with pytest.raises(ValueError, match="2 prompts"):
        VideoBatch(torch.zeros(1, 9, 3, 8, 8, dtype=torch.uint8), 8.0, ("a", "b"))
