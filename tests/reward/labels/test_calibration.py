"""One scale for all measures, and the label made of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor

from components.reward.distortions import LEVELS
from components.reward.labels.calibration import CALIBRATION, Calibration, CalibrationCurve, quality, severity
from components.reward.labels.label import label, measured
from components.reward.labels.losses import MEASURES
from components.reward.labels.ms_ssim import differs
from tests.reward.labels.conftest import at_levels, fidelity


def test_a_clip_is_perfectly_faithful_to_itself(clips: Tensor) -> None:
    assert torch.allclose(fidelity(clips, clips), torch.ones(len(clips)), atol=1e-4)


def test_fidelity_falls_with_noise_and_stays_in_range(clips: Tensor) -> None:
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))
    values = torch.stack(
        [fidelity(clips, (clips + s * noise).clamp(0, 1)) for s in (0.01, 0.03, 0.1, 0.3, 1.0)]
    )
    assert bool((values[1:] < values[:-1]).all())
    assert float(values.min()) >= 0 and float(values.max()) <= 1


def test_fidelity_notices_what_plain_ssim_does_not(real: Tensor) -> None:
    """Lost colour and lost motion keep most of each luma frame."""
    clips = real.float() / 255.0
    for name in ("desaturate", "freeze", "flicker_white", "colour_drift"):
        similar = fidelity(clips, at_levels(real, name)[:, 5].float() / 255.0)
        assert float(similar.median()) < 0.4 and float(similar.max()) < 0.95


@pytest.mark.parametrize(
    "name", ["blur", "shuffle", "erase", "h264", "lattice", "flicker_sine", "desaturate"]
)
def test_labels_fall_along_every_ladder(real: Tensor, name: str) -> None:
    labels, similarity = label(real, at_levels(real, name), torch.arange(LEVELS + 1))
    assert torch.equal(labels[:, 0], torch.ones(8)) and torch.equal(similarity[:, 0], torch.ones(8))
    assert bool((labels[:, 1:] <= labels[:, :-1]).all())
    assert float((labels[:, 0] - labels[:, -1]).mean()) > 0.5
    assert float(similarity[:, 1].mean()) > float(similarity[:, 3].mean()) > float(similarity[:, 5].mean())


def test_level_means_of_unlike_types_lie_on_one_scale(real: Tensor) -> None:
    """What VMAF, MS-SSIM, colour and time see, each by itself, comes out alike: level 3 near the middle."""
    for name in ("blur", "frame_noise", "flicker_white", "desaturate", "h264", "stutter"):
        damage = 1.0 - label(real, at_levels(real, name), torch.arange(LEVELS + 1))[1]
        assert 0.3 < float(damage[:, 3].mean()) < 0.85, name


def test_a_change_too_small_to_be_seen_is_no_damage(real: Tensor) -> None:
    stream = torch.Generator().manual_seed(0)
    flips = (torch.rand(real.shape, generator=stream) < 0.25).int()
    rounded = (real.int() + flips).clamp(0, 255).to(torch.uint8)
    assert not bool(differs(real / 255.0, rounded / 255.0).any())
    labels, _ = label(real, torch.stack((real, rounded), dim=1), torch.tensor([0, 5]))
    assert float(labels[:, 1].median()) > 0.99 and float(labels[:, 1].min()) > 0.85


def test_an_invisible_change_keeps_the_label() -> None:
    same = torch.ones(1, 6)
    assert torch.allclose(quality(same, torch.arange(6)[None]), same)


def test_the_label_worked_by_hand() -> None:
    similarity = torch.tensor([[1.0, 0.8, 0.9]])
    lost = 1 - math.exp(-0.2 / 0.05)
    first = 1 - lost * (0.5 * 0.4 + 0.5 * 0.2)
    # The third clip lost less than the second, but its level is higher: it gets no better label.
    lost = 1 - math.exp(-0.1 / 0.05)
    second = min(first, 1 - lost * (0.5 * 0.8 + 0.5 * 0.1))
    assert quality(similarity, torch.tensor([0, 2, 4])).tolist()[0] == pytest.approx([1, first, second])


@given(
    st.lists(st.floats(0, 1), min_size=6, max_size=6),
    st.lists(st.integers(0, 5), min_size=6, max_size=6),
    st.integers(1, 4),
)
def test_the_label_never_rises_and_stays_in_range(
    similar: list[float], levels: list[int], parts: int
) -> None:
    values = quality(torch.tensor([similar]), torch.tensor([sorted(levels)]), parts)[0]
    assert bool((values.diff() <= 0).all()) and float(values.min()) >= 0 and float(values.max()) <= 1


def test_severity_of_one_distortion_is_its_level_over_five() -> None:
    levels = torch.arange(6)
    assert torch.allclose(severity(levels), levels / 5)
    assert bool((severity(levels, 3)[1:5] > severity(levels, 1)[1:5]).all())


def test_parts_may_differ_from_ladder_to_ladder() -> None:
    similarity = torch.rand(3, 6, generator=torch.Generator().manual_seed(0)).sort(1, descending=True).values
    each = [quality(similarity[i : i + 1], torch.arange(6), parts) for i, parts in enumerate((1, 2, 4))]
    assert torch.equal(quality(similarity, torch.arange(6), torch.tensor([1, 2, 4])), torch.cat(each))


@given(st.lists(st.floats(0, 2), min_size=8, max_size=8))
def test_damage_rises_with_every_loss(values: list[float]) -> None:
    low, step = (torch.tensor(part, dtype=torch.float64) for part in (values[:4], values[4:]))
    mild, strong = CALIBRATION.damage(low), CALIBRATION.damage(low + step)
    assert 0 <= float(mild) <= float(strong) + 1e-12 <= 1 + 1e-12


def test_damage_is_that_of_the_worst_aspect() -> None:
    alone = CALIBRATION.damage(torch.tensor([[0.0, 0.2, 0, 0], [0, 0.2, 0.001, 0.001]], dtype=torch.float64))
    assert float(alone[1]) == pytest.approx(float(alone[0]), abs=0.01)
    assert float(CALIBRATION.damage(torch.zeros(4))) == 0


def test_fitting_spreads_every_measure_evenly() -> None:
    """Losses on four scales that say the same: each damage is then the share of milder clips."""
    ranks = (np.arange(2000) + 0.5) / 2000
    common = -np.log1p(-ranks)
    scales, shapes = (0.7, 0.05, 3.0, 0.2), (1.1, 0.5, 0.8, 2.0)
    losses = np.stack([s * common ** (1 / k) for s, k in zip(scales, shapes, strict=True)], axis=1)
    found = Calibration.fit(torch.from_numpy(losses), (0.0,) * len(MEASURES))
    for curve, scale, shape in zip(found.curves, scales, shapes, strict=True):
        assert curve.scale == pytest.approx(scale, rel=0.01) and curve.shape == pytest.approx(shape, rel=0.01)
    hazards = [curve.hazard(torch.from_numpy(losses[:, i])) for i, curve in enumerate(found.curves)]
    assert np.abs(1 - torch.exp(-torch.stack(hazards)).numpy() - ranks).max() < 0.01
    damage = found.damage(torch.from_numpy(losses)).numpy()
    assert damage[ranks.searchsorted(0.5)] == pytest.approx(0.6, abs=0.03), "the middle clip is a level 3"


def test_a_curve_starts_at_its_floor() -> None:
    curve = CalibrationCurve(scale=0.5, shape=2.0, floor=0.1)
    assert curve.hazard(torch.tensor([0.0, 0.1, 0.6])).tolist() == pytest.approx([0.0, 0.0, 1.0])


def test_the_whole_agrees_better_with_severity_than_any_part(real: Tensor) -> None:
    """Across types: that is what the one scale is for."""
    names = ("blur", "h264", "frame_noise", "desaturate", "hue_flicker", "flicker_white", "shuffle", "erase")
    losses = torch.stack([measured(real, at_levels(real, name)) for name in names])[:, :, 1:]
    levels = torch.arange(1, 6).expand(losses.shape[:3]).flatten()
    parts = [spearmanr(losses[..., i].flatten(), levels).statistic for i in range(len(MEASURES))]
    assert spearmanr(CALIBRATION.damage(losses).flatten(), levels).statistic > max(parts) + 0.05
