"""Views of clips: new contents that are nobody's damage."""

from __future__ import annotations

import torch

from components.reward.ladders.augment import vary
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
