"""More contents from few clips: augmentations that keep a clip's quality."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from components.runtime.compute.seeds import torch_generator
from components.video.filters import to_float, to_uint8


def vary(frames: Tensor, seeds: Sequence[int], tones: float = 0.5, tiles: float = 0.25) -> Tensor:
    """Augmented clips: mirrored, turned, backwards, in other colours, some with another gamma or tiled.

    None of it is damage: every pixel keeps its value up to a gamma, or is the mean of several.

    Args:
        frames: uint8 (N, T, 3, H, W); axes are swapped only where H = W.
        seeds: one per clip; clips of equal seed are varied alike.
        tones: share of the clips that get another gamma.
        tiles: share of the clips that are shrunk to half and mirrored over the frame.
    """
    return torch.stack([_view(clip, seed, tones, tiles) for clip, seed in zip(frames, seeds, strict=True)])


def _view(clip: Tensor, seed: int, tones: float, tiles: float) -> Tensor:
    stream = torch_generator(seed, "vary")
    choice = torch.randint(0, 2, (4,), generator=stream).tolist()
    clip = clip[:, torch.randperm(3, generator=stream)]
    lit, tiled, gamma, shift_y, shift_x = torch.rand(5, generator=stream).tolist()
    clip = clip.flip([axis for axis, chosen in ((-1, choice[0]), (-2, choice[1])) if chosen])
    if choice[2] and clip.shape[-1] == clip.shape[-2]:
        clip = clip.transpose(-1, -2)
    if choice[3]:
        clip = clip.flip(0)
    if tiled < tiles:
        clip = _tiled(clip, shift_y, shift_x)
    if lit < tones:
        clip = to_uint8(to_float(clip) ** (2.0 ** (1.4 * gamma - 0.7)))
    return clip.contiguous()


def _tiled(clip: Tensor, shift_y: float, shift_x: float) -> Tensor:
    """Half the size, mirrored at its edges to fill the frame, shifted by shares of its period."""
    height, width = clip.shape[-2:]
    half = F.avg_pool2d(F.pad(clip.float(), (0, width % 2, 0, height % 2), mode="replicate"), 2)
    for axis, size, shift in ((-2, height, shift_y), (-1, width, shift_x)):
        period = torch.cat((half, half.flip(axis)), dim=axis)
        index = (torch.arange(size) + int(shift * period.shape[axis])) % period.shape[axis]
        half = period.index_select(axis, index)
    return half.round().to(torch.uint8)
