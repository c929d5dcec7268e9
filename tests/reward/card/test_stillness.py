"""Stillness by scorers whose weaknesses are known."""

from __future__ import annotations

import pytest
import torch

from components.corpus.world.judge import judge
from components.reward.card.card import Wins
from components.reward.card.stillness import motion_amount, panned, rendered, scene_of, stillness
from components.reward.ladders.sources import SourceClips
from components.runtime.compute.signals import StopSignal
from tests.reward.card.conftest import SCENES, calm, lively
from tests.reward.conftest import textured


def test_scenes_are_read_from_contents() -> None:
    scene = scene_of(SCENES[1])
    assert scene is not None
    assert scene.caption == "a blue cross moving down quickly on a white background"
    for other in ("video/bikes", "world/odd/1", "world/red-ball-left-slowly-grey/0", "prompt/p1"):
        assert scene_of(other) is None


def test_a_slowed_scene_is_the_same_scene() -> None:
    scenes = [scene for scene in map(scene_of, SCENES) if scene is not None]
    shape = (2, 9, 3, 48, 48)
    fast, slow = rendered(scenes, 1, shape, 0), rendered(scenes, 4, shape, 0)
    assert fast.shape == slow.shape == shape
    # Four of its steps are one of the fast clip's, from the same first frame on.
    assert torch.equal(fast[:, 0], slow[:, 0])
    assert int((fast[:, 1].int() - slow[:, 4].int()).abs().max()) <= 1
    assert int((fast[:, 2].int() - slow[:, 8].int()).abs().max()) <= 1
    assert bool((motion_amount(slow) < 0.5 * motion_amount(fast)).all())
    # Slow is not damaged: to the oracle judge nothing but the amount of motion is less.
    for clip in slow:
        parts = judge(clip).parts
        assert parts.pop("motion") < 1.0 and min(parts.values()) > 0.99


def test_a_pan_keeps_the_picture_and_changes_the_pace() -> None:
    """The step that explains the change from frame to frame best is 1 px at speed 1 and less when slowed."""
    frames = textured(3, 9, 48)
    fast, slow, still = (panned(frames, speed, 5) for speed in (1.0, 0.125, 0.0))
    assert fast.shape == frames.shape and fast.dtype == torch.uint8
    moved = [float(motion_amount(clips).mean()) for clips in (fast, slow, still)]
    assert moved[0] > 3 * moved[1] > 0 and moved[2] == 0.0
    # Detail is alike: neither pace is blurrier.
    detail = [(clips.float().diff(dim=-1).abs().mean(dim=(1, 2, 3, 4))) for clips in (fast, slow)]
    assert torch.allclose(detail[0], detail[1], rtol=0.2)
    # Across the whole margin: a sixth of the side, in eight steps.
    ramp = torch.arange(48.0).expand(1, 9, 3, 48, 48) * 4
    wide = panned(torch.cat((ramp, ramp.transpose(-1, -2))).to(torch.uint8), 1.0, 5).float().mean(2)
    across = (wide[0, -1] - wide[0, 0]).median() / 4
    down = (panned(ramp.transpose(-1, -2).to(torch.uint8), 1.0, 5).float().mean(2)[0] / 4).diff(dim=0)
    assert float((across**2 + (8 * down.median()) ** 2).sqrt()) == pytest.approx(8.0, abs=0.6)


def test_stillness_is_told_from_motion(pools: dict[str, SourceClips]) -> None:
    rewarded = stillness(calm, pools, 4, 0, score_per_level=0.01, stop=StopSignal())
    assert rewarded.verdict > 0
    assert set(rewarded.slowed) == {
        "world_2x_slower", "world_8x_slower", "pan_world_2x_slower", "pan_world_8x_slower",
        "pan_footage_2x_slower", "pan_footage_8x_slower",
    }  # fmt: skip
    assert rewarded.slowed["world_8x_slower"].wins == Wins(0, 2)  # two of the four contents name a scene
    assert rewarded.motion["footage"] == pytest.approx(-1.0)
    punished = stillness(lively, pools, 4, 0, score_per_level=0.01, stop=StopSignal())
    assert punished.verdict < 0 and punished.slowed["pan_footage_8x_slower"].wins == Wins(4, 4)
    # The gain is in levels: half the level, twice the gain.
    halved = stillness(calm, pools, 4, 0, score_per_level=0.005, stop=StopSignal())
    assert halved.verdict == pytest.approx(2 * rewarded.verdict)
