"""The temporal term: right where VMAF is blind, quiet where nothing changes between frames."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from components.reward.labels.temporal import C, pool_over_time, temporal_loss
from components.reward.labels.vmaf import vmaf
from components.video.filters import gaussian_blur, luma
from tests.reward.labels.conftest import at_levels


def loss(reference: Tensor, distorted: Tensor) -> Tensor:
    """Temporal loss of uint8 clips (N, T, 3, H, W)."""
    return temporal_loss(luma(reference.float() / 255.0), luma(distorted.float() / 255.0))


def restless(clips: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Two copies with the same error in every frame, steady and restless: what only time tells apart."""
    time = clips.shape[1]
    clock, swing = torch.arange(time), 1 - 2 * (torch.arange(time) % 2)
    if kind == "order":
        late, jumping = (clock - 1).clamp(min=0), (clock - swing).clamp(0, time - 1)
        return clips[:, late], clips[:, jumping]
    values = clips.float()
    if kind == "brightness":
        values, swings = values.clamp(24, 231), swing.float()[None, :, None, None, None]
        return (values + 24).round().to(torch.uint8), (values + 24 * swings).round().to(torch.uint8)
    stream = torch.Generator().manual_seed(0)
    grain = 12 * gaussian_blur(torch.randn(clips.shape, generator=stream), 1.0) * 3
    still = grain[:, :1].expand_as(grain)
    return tuple((values + noise).clamp(0, 255).round().to(torch.uint8) for noise in (still, grain))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["order", "brightness", "grain"])
def test_tells_steady_from_restless_where_vmaf_cannot(real: Tensor, kind: str) -> None:
    steady, moving = restless(real, kind)
    ours = float((loss(real, moving) > loss(real, steady)).float().mean())
    scores = [vmaf(real, clips).mean(1) for clips in (steady, moving)]
    theirs = float((scores[0] > scores[1]).float().mean())
    # One of the eight begins with a cut: shown a frame late, that is the larger change.
    assert ours >= 7 / 8 and theirs < 0.75


@pytest.mark.parametrize(
    "name", ["shuffle", "stutter", "freeze", "flicker_white", "flicker_sine", "jump", "low_frame_rate"]
)
def test_rises_with_the_level_of_temporal_ladders(real: Tensor, name: str) -> None:
    ladder = at_levels(real, name)
    means = torch.stack([loss(real, ladder[:, level]) for level in range(6)], dim=1).mean(0)
    assert float(means[0]) == 0 and float(means[5]) > 0.3
    assert spearmanr(means, range(6)).statistic > 0.9


@pytest.mark.parametrize("name", ["lattice", "fixed_noise"])
def test_is_blind_to_what_stands_still(real: Tensor, name: str) -> None:
    standing, boiling = at_levels(real, name)[:, 3], at_levels(real, "boiling")[:, 3]
    assert float(loss(real, standing).mean()) < 0.1 * float(loss(real, boiling).mean())


def test_one_pixel_worked_by_hand() -> None:
    """Flat frames have no space: the loss is a formula of seven numbers."""
    a, b = torch.tensor([0.1, 0.3, 0.2, 0.4, 0.4]), torch.tensor([0.1, 0.2, 0.2, 0.5, 0.3])

    def ratio(change_a: Tensor, change_b: Tensor) -> Tensor:
        return (change_a - change_b) ** 2 / (change_a**2 + change_b**2 + C)

    def pooled(values: Tensor) -> float:
        worst = values.sort(descending=True).values[: max(1, len(values) // 3)]
        return float(0.5 * values.mean() + 0.5 * worst.mean())

    fine = pooled(ratio(a.diff(), b.diff()))
    half_a, half_b = (a[1:] + a[:-1]) / 2, (b[1:] + b[:-1]) / 2
    coarse = pooled(ratio(half_a[2:] - half_a[:-2], half_b[2:] - half_b[:-2]))
    clips = [values[None, :, None, None].expand(1, 5, 16, 16) for values in (a, b)]
    # Five frames are too few for the third scale: the first two share its weight.
    expected = (0.1 * fine + 0.45 * coarse) / 0.55
    assert float(temporal_loss(*clips)) == pytest.approx(expected, abs=1e-5)


def test_equal_clips_and_single_frames_lose_nothing() -> None:
    clips = torch.rand(2, 6, 20, 20, generator=torch.Generator().manual_seed(0))
    assert float(temporal_loss(clips, clips).max()) == 0
    assert float(temporal_loss(clips[:, :1], 1 - clips[:, :1]).max()) == 0
    assert float(temporal_loss(clips[:, :2], clips[:, [1, 0]]).min()) > 1.9, "opposite changes"


def test_pooling_weighs_the_worst_third() -> None:
    values = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.6, 0.3]])
    assert float(pool_over_time(values)) == pytest.approx(0.5 * 0.15 + 0.5 * 0.45)
