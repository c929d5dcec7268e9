"""The generator's card: what the base makes of held-out prompts.

It is read back from pixels by the world's detector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    readings = [read_back(clip) for clip in frames]
    pairs = list(zip(readings, scenes, strict=True))
    return {
        "object_found": _share(reading.object_found for reading in readings),
        "colour": _share(reading.colour == scene.colour for reading, scene in pairs),
        "shape": _share(reading.shape == scene.shape for reading, scene in pairs),
        "direction": _share(reading.direction == scene.direction for reading, scene in pairs),
        "speed": _share(reading.speed == scene.speed for reading, scene in pairs),
        "template_iou": sum(float(reading.iou.mean()) for reading in readings) / len(readings),
    }


def _share(hits: Iterable[bool]) -> float:
    values = list(hits)
    return sum(values) / len(values)


def reconstruction_psnr(original: Tensor, reconstruction: Tensor) -> float:
    """Return the mean over clips of the PSNR in dB, of uint8 clips (N, T, 3, H, W).

    A clip's PSNR is 10 log10(255^2 / MSE of the clip).
    """
    squared = (original.double() - reconstruction.double()).square().mean(dim=(1, 2, 3, 4)).clamp_min(1e-6)
    return float((10.0 * torch.log10(255.0**2 / squared)).mean())
