"""Statistics react to what they are for and to nothing of the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from components.reward.distortions import REGISTRY
from components.reward.features.handcrafted import clip_statistics


def test_finite_on_degenerate_clips() -> None:
    for clip in (torch.zeros(1, 9, 3, 48, 48), torch.ones(1, 2, 3, 32, 40), torch.rand(2, 5, 3, 64, 48)):
        assert torch.isfinite(clip_statistics(clip)).all()


def test_rows_depend_on_their_own_clip_only(clips: Tensor) -> None:
    together = clip_statistics(clips)
    for i in (0, 4, 7):
        assert torch.allclose(together[i], clip_statistics(clips[i : i + 1])[0], atol=2e-3)


def test_the_number_of_columns_does_not_depend_on_the_geometry() -> None:
    assert (
        clip_statistics(torch.rand(1, 2, 3, 32, 32)).shape
        == clip_statistics(torch.rand(1, 9, 3, 48, 80)).shape
    )


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_distortion_moves_some_statistic(name: str, clips: Tensor) -> None:
    """Paired over clips, at least one column shifts by far more than chance."""
    before = clip_statistics(clips)
    after = clip_statistics(REGISTRY[name](clips, 4, list(range(len(clips)))))
    change = after - before
    effect = change.mean(0).abs() / (change.std(0) / len(clips) ** 0.5 + 1e-4)
    assert float(effect.max()) > 3.0
