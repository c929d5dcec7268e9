"""Views of clips and drawn pictures: new contents that are nobody's damage."""

from __future__ import annotations

import numpy as np
import torch

from components.reward.material import Clips
from components.reward.params import LadderParams
from components.reward.pictures import DrawnClips, laid_over
from components.reward.shards import Plan, Pool
from components.reward.variety import vary
from tests.reward.conftest import textured


def test_mirrored_and_recoloured_clips_keep_their_pixels() -> None:
    clips = textured(6)
    varied = vary(clips, range(6), tones=0.0, tiles=0.0)
    assert varied.shape == clips.shape and not torch.equal(varied, clips)
    for before, after in zip(clips, varied, strict=True):
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)


def test_a_view_depends_on_its_own_seed_alone() -> None:
    clips = textured(4)
    together = vary(clips, [5, 6, 7, 8])
    for i in range(4):
        assert torch.equal(vary(clips[i : i + 1], [5 + i])[0], together[i])
    assert not torch.equal(together, vary(clips, [15, 16, 17, 18]))


def test_a_tiled_clip_has_its_contents_at_half_the_size() -> None:
    """Mean colours of the clip stay nearly the same, and no seam shows: mirrored edges meet equal pixels."""
    clips = textured(6, side=48)
    tiled = vary(clips, range(6), tones=0.0, tiles=1.0).float()
    before, after = clips.float().mean(dim=(1, 3, 4)), tiled.mean(dim=(1, 3, 4))
    assert torch.allclose(before.sort(1).values, after.sort(1).values, atol=12.0)
    columns = (tiled[..., 1:] - tiled[..., :-1]).abs().mean(dim=(0, 1, 2, 3))
    assert float(columns.max()) < 2.0 * float(columns.median())


def test_another_light_keeps_the_order_of_brightness() -> None:
    clips = textured(6)
    lit = vary(clips, range(6), tones=1.0, tiles=0.0)
    plain = vary(clips, range(6), tones=0.0, tiles=0.0)
    assert not torch.equal(lit, plain)
    for before, after in zip(plain, lit, strict=True):
        order = before.flatten().argsort(stable=True)
        assert bool((after.flatten()[order].int().diff() >= 0).all())
        assert after.min() >= 0 and (before == 255).logical_xor(after == 255).sum() < before.numel() // 10


def test_drawn_clips_are_sharp_moving_and_never_the_same() -> None:
    clips = DrawnClips(100, 0, 5, 32, 40)
    some = clips[[3, 60]]
    assert some.shape == (2, 5, 3, 32, 40) and some.dtype == torch.uint8
    assert torch.equal(clips[[60]][0], some[1]) and not torch.equal(some[0], some[1])
    assert torch.equal(DrawnClips(5, 0, 5, 32, 40)[3:4][0], some[0])
    assert not torch.equal(DrawnClips(100, 1, 5, 32, 40)[[3]][0], some[0])
    many = clips[range(0, 100, 9)].float()
    assert bool((many.std(dim=(2, 3, 4)) > 1).all())
    assert bool(((many[:, 1:] - many[:, :-1]).abs().mean(dim=(1, 2, 3, 4)) > 0.2).all())


def test_a_piece_laid_over_covers_some_of_the_clip_and_moves() -> None:
    below = torch.zeros(9, 3, 48, 48, dtype=torch.uint8)
    front = torch.full_like(below, 200)
    for seed in range(5):
        laid = laid_over(below, front, np.random.default_rng(seed)).float()[:, 0]
        share = float((laid == 200).float().mean())
        assert 0.01 < share < 0.8 and float((laid == 0).float().mean()) > 0.1
        edge = ((laid > 0) & (laid < 200)).float().mean(dim=(1, 2))
        assert float(edge.max()) < 0.12  # hard and antialiased, not blurred
        assert not torch.equal(laid[0], laid[8])
        assert torch.equal(laid, laid_over(below, front, np.random.default_rng(seed)).float()[:, 0])


def test_mixed_contents_are_of_two_clips() -> None:
    plain_clips = [torch.full((5, 3, 32, 32), value, dtype=torch.uint8) for value in (40, 160)]
    clips = Clips(torch.stack(plain_clips), ["a", "b"])
    plans = [
        Plan((Pool("footage", clips, 8, False, mixed=share),), LadderParams(rungs=2), 0, pixels=True)
        for share in (0.0, 1.0)
    ]
    plain, mixed = (plan.build(0).frames[:, 0] for plan in plans)
    assert all(len(clip.unique()) == 1 for clip in plain)
    assert any(len(clip.unique()) > 1 for clip in mixed)
