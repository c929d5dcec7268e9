"""MS-SSIM against scikit-image, against the definition by hand, and against a second implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from skimage.metrics import structural_similarity
from torch import Tensor

from components.reward.labels.ms_ssim import (
    WEIGHTS,
    colour_loss,
    differs,
    ms_ssim,
    scale_weights,
    ssim_maps,
    structure_loss,
)
from components.runtime.errors import InputError
from components.video.filters import luma
from tests.reward.labels.conftest import at_levels


def pair(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(seed)
    a = correlate(stream.random((height, width)), np.ones((5, 5)) / 25.0)
    return a, np.clip(0.8 * a + 0.05 + 0.05 * stream.standard_normal((height, width)), 0, 1)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (24, 37), (11, 11)])
def test_each_scale_is_ssim_as_scikit_image_has_it(height: int, width: int) -> None:
    a, b = pair(height, width)
    light, structure = ssim_maps(torch.from_numpy(a), torch.from_numpy(b))
    theirs = structural_similarity(
        a, b, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, win_size=11
    )
    assert float((light * structure).mean()) == pytest.approx(theirs, abs=1e-12)


def test_one_window_worked_by_hand() -> None:
    """On 11 x 11 px there is one window: plain weighted means, no filter at all."""
    a, b = pair(11, 11, seed=3)
    weights = [
        [math.exp(-((y - 5) ** 2 + (x - 5) ** 2) / (2 * 1.5**2)) for x in range(11)] for y in range(11)
    ]
    total = sum(map(sum, weights))

    def mean(values: np.ndarray) -> float:
        return sum(weights[y][x] * values[y, x] for y in range(11) for x in range(11)) / total

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, cov = mean((a - mean_a) ** 2), mean((b - mean_b) ** 2), mean((a - mean_a) * (b - mean_b))
    ssim = (2 * mean_a * mean_b + 0.0001) / (mean_a**2 + mean_b**2 + 0.0001)
    ssim *= (2 * cov + 0.0009) / (var_a + var_b + 0.0009)
    assert float(ms_ssim(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(ssim, abs=1e-12)


@pytest.mark.parametrize(("height", "width"), [(176, 180), (48, 48), (33, 40)])
def test_the_scales_together(height: int, width: int) -> None:
    """A second implementation: scipy filters, every second pixel of a 2 x 2 mean, the published product."""
    a, b = pair(height, width, seed=5)
    expected, weights = 1.0, scale_weights(height, width)
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    x, y = a, b
    for scale, weight in enumerate(weights):

        def mean(values: np.ndarray) -> np.ndarray:
            return correlate(values, window)[5:-5, 5:-5]

        mx, my = mean(x), mean(y)
        structure = (2 * (mean(x * y) - mx * my) + 9e-4) / (mean(x * x) - mx**2 + mean(y * y) - my**2 + 9e-4)
        light = (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
        last = scale == len(weights) - 1
        expected *= float((structure * light if last else structure).mean()) ** weight
        x, y = (
            correlate(plane, np.ones((2, 2)) / 4, mode="reflect", origin=-1)[::2, ::2] for plane in (x, y)
        )
    assert float(ms_ssim(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(expected, rel=1e-9)


def test_published_weights_where_the_size_allows_and_fewer_scales_below() -> None:
    assert scale_weights(176, 300) == pytest.approx(WEIGHTS, abs=1e-4) and sum(WEIGHTS) == pytest.approx(
        1, abs=1e-3
    )
    assert [len(scale_weights(side, side)) for side in (161, 160, 48, 32, 16, 11)] == [5, 4, 3, 2, 1, 1]
    third = 0.0448 + 0.2856 + 0.3001
    assert scale_weights(48, 64) == pytest.approx([0.0448 / third, 0.2856 / third, 0.3001 / third])
    with pytest.raises(InputError, match="at least 11 x 11 px"):
        scale_weights(10, 48)


def test_range_and_symmetry(real: Tensor) -> None:
    clips = luma(real.float() / 255.0)
    assert torch.allclose(ms_ssim(clips, clips), torch.ones(8, 9), atol=1e-6)
    inverted = ms_ssim(clips, 1.0 - clips)
    assert float(inverted.min()) >= 0 and float(inverted.max()) < 0.9
    assert torch.allclose(inverted, ms_ssim(1.0 - clips, clips), atol=1e-5)


def test_colour_sees_what_luma_does_not(real: Tensor) -> None:
    grey = at_levels(real, "desaturate")[:, 5].float() / 255.0
    assert float(structure_loss(real.float() / 255.0, grey).max()) < 0.01
    assert float(colour_loss(real.float() / 255.0, grey).mean()) > 0.05


def test_differs_needs_more_than_rounding() -> None:
    clip = torch.rand(1, 3, 3, 16, 16)
    assert not bool(differs(clip, clip + 0.0005))
    assert bool(differs(clip, clip + 0.004))
