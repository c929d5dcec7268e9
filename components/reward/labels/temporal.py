"""What happens between frames, compared with the original: the term for what VMAF cannot see.

VMAF (like any mean over frames of a picture measure) compares frame with frame: it cannot tell a clip shown
one frame late from one whose frames jump to and fro, a constant change of brightness from flicker, or
fixed grain from boiling grain. Here the *changes* of both clips are compared, on a pyramid in time like
that of MS-SSIM in space:

    scale 0: change from frame to frame
    scale 1: change between means of 2 neighbouring frames, 2 apart
    scale 2: change between means of 4 neighbouring frames, 4 apart

    loss = |change - change'|^2 / (|change|^2 + |change'|^2 + C)     0 equal, 1 unrelated, 2 opposite

By scale 0 alone every reordering would be a total loss; like the finest scale of MS-SSIM it weighs little.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.video.filters import gaussian_blur

#: Weights of the scales in time, finest first; divided by their sum for a clip too short for the later ones.
WEIGHTS = (0.1, 0.45, 0.45)
#: Square of the change (in 0..1, after the blur) that begins to be seen: about 1.6 8-bit steps.
C = 4e-5
#: Standard deviation of the blur before, as a share of the short side: grain is no motion.
BLUR = 1.0 / 48.0


def pool_over_time(per_frame: Tensor) -> Tensor:
    """(B, T) losses -> (B,): half the mean, half that of the worst third: what people remember."""
    worst = per_frame.sort(dim=1, descending=True).values[:, : max(1, per_frame.shape[1] // 3)]
    return 0.5 * per_frame.mean(1) + 0.5 * worst.mean(1)


def temporal_loss(reference: Tensor, distorted: Tensor) -> Tensor:
    """How differently two clips change over time.

    Args:
        reference, distorted: (B, T, H, W) float luma in 0..1.

    Returns:
        (B,) float in 0..2; 0 for equal clips and for single frames.
    """
    sigma = BLUR * min(reference.shape[-2:])
    a, b = gaussian_blur(reference, sigma), gaussian_blur(distorted, sigma)
    total = torch.zeros(a.shape[0], dtype=a.dtype, device=a.device)
    used = 0.0
    for scale, weight in enumerate(WEIGHTS):
        lag = 2**scale
        if scale:
            a, b = (0.5 * (clip[:, lag // 2 :] + clip[:, : -(lag // 2)]) for clip in (a, b))
        if a.shape[1] <= lag:
            break
        change_a, change_b = (clip[:, lag:] - clip[:, :-lag] for clip in (a, b))
        wrong = (change_a - change_b).square().mean(dim=(-2, -1))
        energy = change_a.square().mean(dim=(-2, -1)) + change_b.square().mean(dim=(-2, -1))
        total = total + weight * pool_over_time(wrong / (energy + C))
        used += weight
    return total / used if used else total
