"""Scene statistics against scipy's filter, plain loops, and samples whose parameters are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, special, stats
from torch import Tensor

from components.reward.features.natural_scene import (
    asymmetric,
    brisque_features,
    generalised,
    halved,
    niqe_features,
    normalised,
    patches,
    products,
)
from tests.reward.conftest import textured


@pytest.fixture(scope="module")
def grey() -> Tensor:
    """(2, 2, 40, 48) luma in 0..1."""
    return textured(2, 2, 48).float().mean(2)[..., :40, :] / 255.0


def slow_normalised(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One picture in 0..255 by scipy's Gaussian filter of 7 x 7 px, its edge repeated."""

    def mean(plane: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(plane, 7 / 6, radius=3, mode="nearest")

    centre = mean(picture)
    spread = np.sqrt(np.abs(mean(picture * picture) - centre * centre))
    return (picture - centre) / (spread + 1.0), spread


def slow_shape(ratio: float) -> float:
    """The nearest of all shapes .2, .201, ... 10, by trying every one."""
    best, least = 0.0, math.inf
    for shape in np.arange(0.2, 10.0005, 0.001):
        value = special.gamma(2 / shape) ** 2 / (special.gamma(1 / shape) * special.gamma(3 / shape))
        if abs(value - ratio) < least:
            best, least = float(shape), abs(value - ratio)
    return best


def slow_asymmetric(values: np.ndarray) -> tuple[float, float, float]:
    below, above = values[values < 0], values[values > 0]
    left, right = float((below**2).mean()), float((above**2).mean())
    skew = math.sqrt(left / right)
    ratio = float(np.abs(values).mean() ** 2 / (values**2).mean())
    return slow_shape(ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2), left, right


def drawn(shape: float, left: float, right: float, count: int = 200_000) -> np.ndarray:
    """A sample of an asymmetric generalised Gaussian with these scale parameters below and above 0."""
    rng = np.random.default_rng(0)
    size = np.abs(stats.gennorm.rvs(shape, size=count, random_state=rng))
    below = rng.random(count) < left / (left + right)
    return np.where(below, -left * size, right * size)


def test_normalised_values_are_scipys(grey: Tensor) -> None:
    values, spread = normalised(grey)
    for clip in range(2):
        expected, deviation = slow_normalised(grey[clip, 1].double().numpy() * 255)
        np.testing.assert_allclose(values[clip, 1].numpy(), expected, atol=2e-3)
        np.testing.assert_allclose(spread[clip, 1].numpy(), deviation, atol=2e-2)


def test_products_are_of_neighbours() -> None:
    plane = torch.arange(6.0).reshape(1, 2, 3)
    assert [part.flatten().tolist() for part in products(plane)] == [
        [0, 2, 12, 20],
        [0, 4, 10],
        [0, 5],
        [3, 8],
    ]


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.0, 3.5])
def test_a_generalised_gaussian_is_recovered(shape: float) -> None:
    sample = stats.gennorm.rvs(shape, scale=1.7, size=200_000, random_state=np.random.default_rng(1))
    found, power = generalised(torch.from_numpy(sample))
    assert float(found) == pytest.approx(shape, rel=0.03)
    assert float(power) == pytest.approx(stats.gennorm.var(shape, scale=1.7), rel=0.03)


@pytest.mark.parametrize(("shape", "left", "right"), [(0.8, 1.0, 2.0), (2.0, 1.0, 1.0), (1.5, 3.0, 0.7)])
def test_an_asymmetric_sample_is_recovered(shape: float, left: float, right: float) -> None:
    found, below, above = asymmetric(torch.from_numpy(drawn(shape, left, right)))
    unit = math.sqrt(special.gamma(3 / shape) / special.gamma(1 / shape))
    assert float(found) == pytest.approx(shape, rel=0.05)
    assert math.sqrt(float(below)) == pytest.approx(left * unit, rel=0.03)
    assert math.sqrt(float(above)) == pytest.approx(right * unit, rel=0.03)


def test_features_equal_plain_loops(grey: Tensor) -> None:
    """Both layouts, computed value by value from a slowly normalised picture."""
    values, _ = normalised(grey[:1, :1])
    plane = values[0, 0].double().numpy()
    power = float((plane**2).mean())
    shape = slow_shape(float(np.abs(plane).mean() ** 2) / power)
    brisque = [shape, power]
    niqe = [shape, math.sqrt(power * special.gamma(1 / shape) / special.gamma(3 / shape))]
    height, width = plane.shape
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        product = np.asarray(
            [
                plane[y, x] * plane[y + dy, x + dx]
                for y in range(height - dy)
                for x in range(max(0, -dx), width - max(0, dx))
            ]
        )
        nu, left, right = slow_asymmetric(product)
        unit = math.sqrt(special.gamma(1 / nu) / special.gamma(3 / nu))
        below, above = math.sqrt(left) * unit, math.sqrt(right) * unit
        mean = (above - below) * special.gamma(2 / nu) / special.gamma(1 / nu)
        brisque += [mean, nu, left, right]
        niqe += [nu, mean, below, above]
    np.testing.assert_allclose(brisque_features(values)[0, 0].numpy(), brisque, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(niqe_features(values)[0, 0].numpy(), niqe, rtol=2e-3, atol=2e-3)


def test_a_flat_patch_has_no_features() -> None:
    flat = torch.full((1, 1, 24, 24), 200 / 255)
    assert torch.isnan(niqe_features(normalised(flat)[0])).all()
    assert torch.isfinite(brisque_features(normalised(flat)[0])).all()


def test_patches_lie_row_by_row() -> None:
    plane = torch.arange(36.0).reshape(1, 1, 6, 6)
    found = patches(plane, 4, 2)
    assert found.shape == (1, 1, 4, 4, 4)
    assert [int(found[0, 0, p, 0, 0]) for p in range(4)] == [0, 2, 12, 14]


def test_half_the_size_keeps_the_mean(grey: Tensor) -> None:
    small = halved(grey)
    assert small.shape == (2, 2, 20, 24)
    assert float(small.mean()) == pytest.approx(float(grey.mean()), abs=5e-3)
