"""The generator's card: what the base makes of held-out prompts, read back by the world's detector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from components.corpus.world.detect import read_back
from components.corpus.world.scene import Scene


def semantic_scores(frames: Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
    """Return the share of clips, 0..1, in which each word of the caption is read back.

    Args:
        frames: uint8 (N, T, 3, H, W).
        scenes: what each clip should show.
    """
    detections = [read_back(clip) for clip in frames]
    pairs = list(zip(detections, scenes, strict=True))

    def share(word: str) -> float:
        return sum(getattr(seen, word) == getattr(scene, word) for seen, scene in pairs) / len(pairs)

    return {
        "object_found": sum(seen.object_found for seen in detections) / len(pairs),
        **{word: share(word) for word in ("colour", "shape", "direction", "speed")},
        "template_iou": sum(float(seen.iou.mean()) for seen in detections) / len(pairs),
    }


def reconstruction_psnr(original: Tensor, reconstruction: Tensor) -> float:
    """Return the mean of the clips' PSNR, 10 log10(255^2 / MSE) in dB, of uint8 clips (N, T, 3, H, W)."""
    squared = (original.double() - reconstruction.double()).square().mean(dim=(1, 2, 3, 4)).clamp_min(1e-6)
    return float((10.0 * torch.log10(255.0**2 / squared)).mean())
