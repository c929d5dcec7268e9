"""Labels of whole ladders: what they are made of, and that neither company nor order changes them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from components.reward.labels.calibration import CALIBRATION
from components.reward.labels.label import label, measured
from components.reward.labels.losses import MEASURES, losses
from components.reward.labels.temporal import pool_over_time
from components.reward.labels.vmaf import vmaf
from components.runtime.errors import InputError
from tests.reward.labels.conftest import at_levels, fidelity


def test_losses_are_the_four_measures(real: Tensor) -> None:
    damaged = at_levels(real, "h264")[:, 4]
    found = losses(real, torch.arange(8), damaged)
    fall = pool_over_time((vmaf(real, real) - vmaf(real, damaged)) / 100)
    assert torch.allclose(found[:, 0], fall.clamp_min(0), atol=1e-6)
    assert bool((found > 0).all()) and MEASURES == ("vmaf", "structure", "colour", "temporal")
    without = found.clone()
    without[:, 0] = 0
    similar = fidelity(real.float() / 255.0, damaged.float() / 255.0)
    assert torch.allclose(similar.double(), 1 - CALIBRATION.damage(without), atol=1e-4)


def test_rows_do_not_depend_on_their_company(real: Tensor) -> None:
    ladder = torch.cat((at_levels(real[:4], "blur"), at_levels(real[4:], "freeze")))
    whole = measured(real, ladder)
    order = torch.tensor([5, 0, 7, 2])
    assert torch.equal(measured(real[order], ladder[order]), whole[order])
    assert torch.equal(measured(real[:1], ladder[:1, 3:4]), whole[:1, 3:4])


def test_an_untouched_clip_loses_exactly_nothing(real: Tensor) -> None:
    assert torch.equal(measured(real, real[:, None]), torch.zeros(8, 1, 4, dtype=torch.float64))


def test_levels_may_be_shared(real: Tensor) -> None:
    ladder, levels = at_levels(real[:3], "pixelate"), torch.arange(6)
    one = label(real[:3], ladder, levels)
    other = label(real[:3], ladder, levels.expand(3, -1), [1, 1, 1])
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert one[0].dtype == one[1].dtype == torch.float32


def test_no_ladders_are_no_work() -> None:
    labels, similarity = label(
        torch.zeros(0, 5, 3, 32, 32).byte(), torch.zeros(0, 4, 5, 3, 32, 32).byte(), torch.arange(4)
    )
    assert labels.shape == similarity.shape == (0, 4)


def test_what_does_not_fit_is_refused(real: Tensor) -> None:
    with pytest.raises(ValueError, match="uint8"):
        label(real.float(), real[:, None].float(), torch.tensor([0]))
    with pytest.raises(ValueError, match="uint8"):
        label(real, real[:, None, :5], torch.tensor([0]))
    with pytest.raises(InputError, match="at least 11 x 11 px, got 8 x 48"):
        label(real[..., :8, :], real[:, None, ..., :8, :], torch.tensor([0]))
