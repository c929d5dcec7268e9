"""How different a model's videos are from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

#: Clips are reduced to this side (px) first, so that grain and compression do not pass for variety.
SIDE = 16


def diversity(frames: Tensor, prompts: Sequence[str]) -> tuple[NDArray[np.float64], str]:
    """Mean distance of each clip from the others it is compared with, rms over RGB 0..1 at 16 px.

    With several videos a prompt, a clip is compared with those of its own prompt; with one, with those of the
    other prompts (which measures the prompts' variety as well, and is said in the second value).

    Args:
        frames: uint8 (N, T, 3, H, W).
        prompts: the N prompts.

    Returns:
        (N,) distances, NaN for a clip with nothing to compare with, and what was compared.
    """
    small = torch.stack([F.adaptive_avg_pool2d(clip.double() / 255.0, SIDE).flatten() for clip in frames])
    labels = np.array(_indices(prompts))
    # The faster matrix product would lose the small distances between near copies to rounding.
    distances = torch.cdist(small, small, compute_mode="donot_use_mm_for_euclid_dist").numpy() / np.sqrt(
        small.shape[1]
    )
    same = labels[:, None] == labels[None, :]
    np.fill_diagonal(same, False)
    within = bool(same.any())
    compared = same if within else labels[:, None] != labels[None, :]
    counts = compared.sum(axis=1)
    sums = np.where(compared, distances, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts > 0, sums / counts, np.nan), "seeds of one prompt" if within else "prompts"


def _indices(prompts: Sequence[str]) -> list[int]:
    order = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts))}
    return [order[prompt] for prompt in prompts]
