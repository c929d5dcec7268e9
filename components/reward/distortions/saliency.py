"""Where the object is, for distortions that attack it: a soft mask found without knowing the scene."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from components.video.filters import gaussian_blur


def border_contrast(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How far each pixel's colour is from that of the frame's border.

    Args:
        frames: (B, T, 3, H, W).

    Returns:
        The border's pixels (B, T, 3, perimeter), their median colour (B, T, 3, 1, 1), and the Euclidean
        distance of every pixel from that colour (B, T, H, W).
    """
    edge = torch.cat((frames[..., 0, :], frames[..., -1, :], frames[..., :, 0], frames[..., :, -1]), dim=-1)
    border = edge.median(dim=-1).values[..., None, None]
    return edge, border, (frames - border).square().sum(2).sqrt()


def object_mask(frames: Tensor) -> Tensor:
    """Soft mask of the most salient object in every frame.

    Salient is what differs from the colour around it (the frame's median border colour and a wide local
    mean), inside a window round the strongest such spot. On a plain background this is the object, on footage
    a region of about a quarter of the frame.

    Args:
        frames: (B, T, 3, H, W) float in 0..1.

    Returns:
        (B, T, 1, H, W) float in 0..1.
    """
    batch, time, _, height, width = frames.shape
    side = min(height, width)
    _, _, apart = border_contrast(frames)
    local = (frames - gaussian_blur(frames, side / 5)).square().sum(2).sqrt()
    saliency = gaussian_blur(0.5 * apart + 0.5 * local, side / 48)
    peak = gaussian_blur(saliency, side / 9).reshape(batch, time, -1).argmax(-1)
    cy, cx = (peak // width)[..., None, None], (peak % width)[..., None, None]
    ys = torch.arange(height, device=frames.device)[:, None]
    xs = torch.arange(width, device=frames.device)[None, :]
    distance = ((ys - cy) ** 2 + (xs - cx) ** 2).to(frames.dtype).sqrt() / (0.3 * side)
    window = torch.exp(-(distance**4))
    saliency = saliency * window
    top = saliency.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-4)
    mask = torch.sigmoid((saliency / top - 0.18) * 40.0) * (window > 0.02)
    # Grown by a pixel or so: an outline left behind would give the missing object away.
    grown = F.max_pool2d(mask, 2 * round(side / 48) + 1, stride=1, padding=round(side / 48))
    return gaussian_blur(grown, side / 80).unsqueeze(2)


def background_fill(frames: Tensor, mask: Tensor) -> Tensor:
    """The frame with the mask filled from its surroundings: a blur normalised by the unmasked weight.

    Args:
        frames: (B, T, 3, H, W) float in 0..1.
        mask: (B, T, 1, H, W) in 0..1.
    """
    sigma = min(frames.shape[-2:]) / 8
    keep = (1.0 - mask) ** 4 + 1e-4
    return gaussian_blur(frames * keep, sigma) / gaussian_blur(keep, sigma)
