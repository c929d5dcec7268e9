"""The four full-reference losses of a distorted clip, each 0 for the original itself.

| loss | of | blind to |
| --- | --- | --- |
| `vmaf` | VMAF below that of the original with itself, / 100 | colour; light that changes; order in time |
| `structure` | 1 - MS-SSIM of luma | colour; light that changes |
| `colour` | 1 - MS-SSIM of the colour differences | whatever leaves colour alone, and all of a grey clip |
| `temporal` | changes over time | whatever stands still: fixed noise, a lattice, blur of a still |
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.reward.labels.ms_ssim import colour_loss, scale_weights, structure_loss
from components.reward.labels.temporal import pool_over_time, temporal_loss
from components.reward.labels.vmaf import vmaf
from components.video.filters import luma, to_float

#: Names of the losses, in the order of the last axis of every tensor of losses.
MEASURES = ("vmaf", "structure", "colour", "temporal")
DECIMALS = 6


@torch.no_grad()
def picture_losses(reference: Tensor, distorted: Tensor) -> Tensor:
    """The losses that need no ffmpeg.

    Args:
        reference, distorted: (B, T, 3, H, W) float in 0..1.

    Returns:
        (B, 4) float, `vmaf` at 0.
    """
    structure = pool_over_time(structure_loss(reference, distorted))
    colour = pool_over_time(colour_loss(reference, distorted))
    change = temporal_loss(luma(reference), luma(distorted))
    return torch.stack((torch.zeros_like(structure), structure, colour, change), dim=-1).clamp_min(0.0)


@torch.no_grad()
def losses(originals: Tensor, index: Tensor, distorted: Tensor) -> Tensor:
    """All losses of pairs of clips; those of a pair do not depend on the others.

    Args:
        originals: uint8 (R, T, 3, H, W).
        index: (M,) int64, the original of each distorted clip.
        distorted: uint8 (M, T, 3, H, W).

    Returns:
        (M, 4) float64, rounded to six decimals, at least 0.

    Raises:
        InputError: VMAF could not be computed, or frames are too small.
    """
    scale_weights(*originals.shape[-2:])
    table = torch.zeros(len(index), len(MEASURES), dtype=torch.float64)
    pairs = enumerate(index.tolist())
    changed = [row for row, source in pairs if not torch.equal(originals[source], distorted[row])]
    if not changed:
        return table
    sources = index[changed]
    used, place = sources.unique(return_inverse=True)
    scores = vmaf(
        torch.cat((originals[used], originals[sources])), torch.cat((originals[used], distorted[changed]))
    )
    perfect, reached = scores[: len(used)], scores[len(used) :]
    table[changed, 0] = pool_over_time((perfect[place] - reached) / 100.0)
    for row, source in zip(changed, sources.tolist(), strict=True):
        # One clip at a time: the same bits in any batch.
        a, b = (to_float(clip[None]) for clip in (originals[source], distorted[row]))
        table[row, 1:] = picture_losses(a, b)[0, 1:].double()
    return table.clamp_min(0.0).round(decimals=DECIMALS)
