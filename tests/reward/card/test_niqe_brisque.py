"""The baselines: plain measures against numpy, NIQE against its formula, BRISQUE on labels it can learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from components.reward.card.niqe_brisque import (
    Baselines,
    Brisque,
    Niqe,
    laplacian_variance,
    patch_side,
    temporal_difference_energy,
)
from components.reward.distortions import REGISTRY
from components.reward.features.natural_scene import FEATURES, halved, niqe_features, normalised
from components.video.filters import luma
from tests.reward.conftest import textured, world


@pytest.fixture(scope="module")
def pristine() -> Tensor:
    """uint8 (24, 5, 3, 48, 48)."""
    return torch.cat((textured(20, 5, 48), world(4, 5, 48)))


def damaged(clips: Tensor, name: str, level: int) -> Tensor:
    frames = REGISTRY[name](clips.float() / 255.0, level, list(range(len(clips))))
    return (frames * 255).round().to(torch.uint8)


def grey_of(clips: Tensor) -> Tensor:
    return luma(clips.float() / 255.0)


def test_plain_measures_are_numpys(pristine: Tensor) -> None:
    grey = grey_of(pristine[:3])
    table = grey.double().numpy()
    for row in range(3):
        sharp = []
        for frame in table[row]:
            ring = frame[:-2, 1:-1] + frame[2:, 1:-1] + frame[1:-1, :-2] + frame[1:-1, 2:]
            inner = ring - 4 * frame[1:-1, 1:-1]
            sharp.append(inner.var(ddof=1))
        assert float(laplacian_variance(grey)[row]) == pytest.approx(np.mean(sharp), rel=1e-4)
        energy = np.mean((table[row, 1:] - table[row, :-1]) ** 2)
        assert float(temporal_difference_energy(grey)[row]) == pytest.approx(energy, rel=1e-4)


@pytest.mark.parametrize(("size", "side"), [((48, 48), 24), ((480, 640), 96), ((33, 60), 16), ((10, 10), 8)])
def test_patches_fit_the_frame(size: tuple[int, int], side: int) -> None:
    assert patch_side(*size) == side


def test_niqe_is_its_formula(pristine: Tensor) -> None:
    """The distance of one clip from patches cut, counted and compared one by one."""
    model = Niqe.fit(grey_of(pristine))
    clip = pristine[1:2]
    rows = []
    grey = grey_of(clip)[:, ::2]
    for t in range(grey.shape[1]):
        full, half = normalised(grey[:, t : t + 1])[0], normalised(halved(grey[:, t : t + 1]))[0]
        for y in (0, 12, 24):
            for x in (0, 12, 24):
                parts = (
                    full[..., y : y + 24, x : x + 24],
                    half[..., y // 2 : y // 2 + 12, x // 2 : x // 2 + 12],
                )
                rows.append(np.concatenate([niqe_features(part).flatten().numpy() for part in parts]))
    table = np.stack(rows).astype(float)
    gap = table.mean(0) - model.mean.numpy()
    pooled = (np.cov(table.T) + model.covariance.numpy()) / 2
    expected = np.sqrt(gap @ np.linalg.pinv(pooled) @ gap)
    rated = Baselines(model, None).rate(clip)["niqe"]
    assert float(-rated[0]) == pytest.approx(expected, rel=1e-3)


def test_niqe_takes_the_sharp_patches_only() -> None:
    """Left half texture, right half nearly nothing: the model is that of texture alone."""
    clips = textured(16, 4, 48)
    mixed = clips.clone()
    mixed[..., 24:] = (128 + 0.02 * (mixed[..., 24:].float() - 128)).round().to(torch.uint8)
    whole, half = Niqe.fit(grey_of(clips)), Niqe.fit(grey_of(mixed))
    faint = (128 + 0.02 * (clips.float() - 128)).round().to(torch.uint8)
    away = Niqe.fit(grey_of(faint))
    apart = (half.mean - whole.mean).norm()
    assert apart < 0.2 * (half.mean - away.mean).norm()


def test_niqe_sets_damage_apart_and_stays_defined(pristine: Tensor) -> None:
    rate = Baselines(Niqe.fit(grey_of(pristine)), None).rate
    fresh = textured(6, 5, 48, seed=9)
    honest = rate(fresh)["niqe"]
    for name in ("blur", "frame_noise", "pixelate"):
        assert bool((rate(damaged(fresh, name, 5))["niqe"] < honest).all()), name
    empty = rate(torch.full((1, 5, 3, 48, 48), 90, dtype=torch.uint8))["niqe"]
    assert bool(torch.isfinite(empty).all()) and float(empty) < float(honest.min())


def test_niqe_needs_patches_that_show_something() -> None:
    with pytest.raises(ValueError, match="patches"):
        Niqe.fit(torch.full((3, 4, 48, 48), 0.5))


def test_brisque_learns_blur_and_noise(pristine: Tensor) -> None:
    """Trained on one half of the contents, it orders blur and noise on the other."""
    clips, labels, contents = [], [], []
    for level in (0, 1, 3, 5):
        for name in ("blur", "frame_noise"):
            clips.append(damaged(pristine[:12], name, level))
            labels += [1 - level / 5] * 12
            contents += [f"c{i}" for i in range(12)]
    fitted = Baselines.fit(pristine[:0], torch.cat(clips), torch.tensor(labels), contents)
    assert fitted.niqe is None and fitted.names[0] == "brisque"
    for name in ("blur", "frame_noise"):
        mild, strong = (fitted.rate(damaged(pristine[12:20], name, level))["brisque"] for level in (1, 5))
        assert float((mild > strong).float().mean()) >= 0.9, name


def test_a_smooth_truth_of_the_features_is_recovered() -> None:
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(300, FEATURES))
    truth = np.tanh(columns[:, 0]) * 0.4 + 0.5
    machine = Brisque.fit(columns, truth, [f"c{i % 20}" for i in range(300)])
    fresh = rng.normal(size=(200, FEATURES))
    scaled = np.clip(2 * (fresh - machine.low) / (machine.high - machine.low) - 1, -1, 1)
    found = machine.machine.predict(scaled)
    assert np.corrcoef(found, np.tanh(fresh[:, 0]))[0, 1] > 0.8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_brisque_is_chosen_by_how_it_ranks(seed: int) -> None:
    """A third of the labels is 1 whatever the features say, as those of originals, and of damage that no
    frame shows, are. By squared error the smoothest setting is best there, and ranks hardly at all."""
    rng = np.random.default_rng(seed)
    mixed, hidden = rng.normal(size=(3, FEATURES)), rng.uniform(-1, 1, (400, 3))
    truth = np.sin(5 * hidden[:, 0])
    labels = np.where(rng.random(400) < 0.35, 1.0, 0.4 + 0.2 * truth)
    fitted = Brisque.fit(hidden @ mixed, labels, [f"c{i % 40}" for i in range(400)])
    fresh = rng.uniform(-1, 1, (2000, 3))
    scaled = np.clip(2 * (fresh @ mixed - fitted.low) / (fitted.high - fitted.low) - 1, -1, 1)
    found = stats.spearmanr(fitted.machine.predict(scaled), np.sin(5 * fresh[:, 0])).statistic
    assert found > 0.6


def test_every_measure_is_a_quality(pristine: Tensor) -> None:
    fitted = Baselines(None, None)
    sharp, blurred = fitted.rate(pristine), fitted.rate(damaged(pristine, "blur", 5))
    assert bool((blurred["laplacian_variance"] < sharp["laplacian_variance"]).all())
    frozen = fitted.rate(damaged(pristine, "freeze", 5))
    assert bool((frozen["temporal_difference_energy"] == 0).all())
    assert bool((sharp["temporal_difference_energy"] < 0).any())
