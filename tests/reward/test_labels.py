"""The full-reference label: identity, order, symmetry of what must be symmetric."""

from __future__ import annotations

import torch
from torch import Tensor

from components.reward.distortions import LEVELS, REGISTRY
from components.reward.labels import differs, fidelity, quality, severity


def test_a_clip_is_perfectly_faithful_to_itself(clips: Tensor) -> None:
    assert torch.allclose(fidelity(clips, clips), torch.ones(len(clips)), atol=1e-4)


def test_fidelity_falls_with_noise_and_stays_in_range(clips: Tensor) -> None:
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))
    values = torch.stack(
        [fidelity(clips, (clips + s * noise).clamp(0, 1)) for s in (0.01, 0.03, 0.1, 0.3, 1.0)]
    )
    assert bool((values[1:] < values[:-1]).all())
    assert float(values.min()) >= 0 and float(values.max()) <= 1


def test_fidelity_notices_what_plain_ssim_does_not(clips: Tensor) -> None:
    """Lost colour and lost motion keep most of each luma frame."""
    grey = REGISTRY["desaturate"](clips, 5, list(range(len(clips))))
    frozen = REGISTRY["freeze"](clips, 5, list(range(len(clips))))
    assert float(fidelity(clips, grey).max()) < 0.97
    assert float(fidelity(clips, frozen).max()) < 0.95


def test_labels_fall_along_every_ladder(clips: Tensor) -> None:
    levels = torch.arange(LEVELS + 1).expand(len(clips), -1)
    for name in ("blur", "shuffle", "erase", "h264", "lattice"):
        seeds = list(range(len(clips)))
        similarity = torch.stack(
            [fidelity(clips, REGISTRY[name](clips, k, seeds)) for k in range(LEVELS + 1)], dim=1
        )
        label = quality(similarity, levels)
        assert torch.allclose(label[:, 0], torch.ones(len(clips)), atol=1e-3)
        assert bool((label[:, 1:] <= label[:, :-1]).all())
        assert float((label[:, 0] - label[:, -1]).mean()) > 0.3


def test_an_invisible_change_keeps_the_label() -> None:
    same = torch.ones(1, 6)
    assert torch.allclose(quality(same, torch.arange(6)[None]), same)


def test_severity_of_one_distortion_is_its_level_over_five() -> None:
    levels = torch.arange(6)
    assert torch.allclose(severity(levels), levels / 5)
    assert bool((severity(levels, 3)[1:5] > severity(levels, 1)[1:5]).all())


def test_differs_needs_more_than_rounding() -> None:
    clip = torch.rand(1, 3, 3, 16, 16)
    assert not bool(differs(clip, clip + 0.0005))
    assert bool(differs(clip, clip + 0.004))
