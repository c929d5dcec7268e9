"""Clips of both kinds that the labels are made for: the miniature world and real footage."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from components.corpus.packaged import PACKAGED
from components.reward.distortions import LEVELS, REGISTRY
from components.reward.labels.calibration import CALIBRATION
from components.reward.labels.losses import picture_losses
from components.video.codec import read_video
from tests.reward.conftest import textured, world

FRAMES, SIDE = 9, 48


def footage(count: int) -> Tensor:
    """uint8 (count, 9, 3, 48, 48): windows of the packaged training video, or sliding texture without it."""
    file = next(item for item in PACKAGED if item.is_video and item.split == "train").locate()
    if file is None:
        return textured(count, FRAMES, SIDE)
    frames = read_video(file, max_frames=3 * FRAMES * count, short_side=96).frames
    windows = [
        frames[3 * FRAMES * i :: 2][:FRAMES, :, 20 : 20 + SIDE, 30 + 9 * i :][..., :SIDE]
        for i in range(count)
    ]
    return torch.stack(windows)


@pytest.fixture(scope="session")
def real() -> Tensor:
    """uint8 (8, 9, 3, 48, 48): four clips of the world, four of footage."""
    return torch.cat((world(4, FRAMES, SIDE), footage(4)))


def fidelity(reference: Tensor, distorted: Tensor) -> Tensor:
    """(B,) similarity of (B, T, 3, H, W) float clips by the losses that need no ffmpeg, 1 for equal ones."""
    return 1.0 - CALIBRATION.damage(picture_losses(reference, distorted)).float()


def at_levels(clips: Tensor, name: str, levels: range = range(LEVELS + 1)) -> Tensor:
    """uint8 (N, levels, T, 3, H, W): ladders of one distortion."""
    seeds = list(range(len(clips)))
    damaged = [REGISTRY[name](clips.float() / 255.0, level, seeds) for level in levels]
    return (torch.stack(damaged, dim=1) * 255.0).round().to(torch.uint8)
