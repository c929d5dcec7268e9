"""Labels of whole ladders: look up, measure what is missing, calibrate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.reward.labels.cache import LabelCache, Losses, clip_digest, pair_key
from components.reward.labels.calibration import CALIBRATION, VERSION, quality
from components.reward.labels.losses import MEASURES, losses, picture_losses
from components.reward.labels.vmaf import ffmpeg, identity
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.signals import StopSignal
from components.runtime.progress import Progress

TASK_CLIPS = 64
"""Distorted clips that one worker measures at a time: enough that starting ffmpeg costs little."""


Task = tuple[np.ndarray, np.ndarray, np.ndarray]
"""uint8 originals (R, T, 3, H, W), int64 index (M,), uint8 distorted clips (M, T, 3, H, W)."""


def fidelity(reference: Tensor, distorted: Tensor) -> Tensor:
    """Full-reference similarity of clips without VMAF, so without ffmpeg and on any device; 1 for equal ones.

    Args:
        reference, distorted: (B, T, 3, H, W) float in 0..1.

    Returns:
        (B,) float32 in 0..1.
    """
    return 1.0 - CALIBRATION.damage(picture_losses(reference, distorted)).float()


def label(
    reference: Tensor,
    distorted: Tensor,
    levels: Tensor,
    parts: Tensor | Sequence[int] | int = 1,
    *,
    cache: str | Path | LabelCache | None = None,
    workers: int | ProcessPool = 0,
    stop: StopSignal | None = None,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Labels ladders whose pristine originals are known.

    The result is the same, bit for bit, for any number of workers, any cache and any company of ladders.

    Args:
        reference: uint8 (N, T, 3, H, W), the original of each ladder.
        distorted: uint8 (N, K, T, 3, H, W), its clips.
        levels: (N, K) or (K,) severity levels, rising along K.
        parts: number of distortions in each ladder's recipe: one number, or N of them.
        cache: folder of losses measured before; None measures all.
        workers: processes to measure in, or a pool that is open already; 0 measures in this process.
        stop: asked between tasks whether to stop; an open pool has its own.
        progress: told of every ladder that is done.

    Returns:
        labels and similarity to the original, (N, K) float32 in 0..1; labels fall along K.

    Raises:
        InputError: shapes that do not fit, no ffmpeg with libvmaf, or a cache that cannot be used.
        Interrupted: a stop was asked for; what was measured is in the cache.
    """
    losses = measured(reference, distorted, cache=cache, workers=workers, stop=stop, progress=progress)
    similarity = (1.0 - CALIBRATION.damage(losses)).float()
    return quality(similarity, levels, parts), similarity


def measured(
    reference: Tensor,
    distorted: Tensor,
    *,
    cache: str | Path | LabelCache | None = None,
    workers: int | ProcessPool = 0,
    stop: StopSignal | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The losses behind `label`: (N, K, 4) float64, in the order of MEASURES. Arguments as there."""
    if (
        distorted.ndim != 6
        or reference.shape != distorted[:, 0].shape
        or reference.dtype != torch.uint8
        or distorted.dtype != torch.uint8
    ):
        raise ValueError(
            "labels are made of uint8 (N, T, 3, H, W) and (N, K, T, 3, H, W), got "
            f"{reference.dtype} {tuple(reference.shape)} and {distorted.dtype} {tuple(distorted.shape)}"
        )
    count, rungs = distorted.shape[:2]
    reference, distorted = reference.cpu(), distorted.cpu()
    table = torch.full((count, rungs, len(MEASURES)), float("nan"), dtype=torch.float64)
    store = LabelCache(cache) if isinstance(cache, str | Path) else cache
    keys: list[list[bytes]] = []
    if store is not None:
        keys = _keys(reference, distorted)
        known = store.get([key for row in keys for key in row])
        for row in range(count):
            for rung in range(rungs):
                found = known.get(keys[row][rung])
                if found is not None and len(found) == len(MEASURES):
                    table[row, rung] = torch.tensor(found, dtype=torch.float64)
    missing = table[..., 0].isnan()
    groups = _groups(missing)
    if progress is not None:
        progress.update(count - sum(len(group) for group in groups))
    tasks = (_task(reference, distorted, missing, group) for group in groups)
    with (
        nullcontext(workers)
        if isinstance(workers, ProcessPool)
        else ProcessPool(min(workers, len(groups)), stop)
    ) as pool:
        for rows, values in zip(groups, pool.map(measure, tasks), strict=True):
            places = [(row, rung) for row in rows for rung in missing[row].nonzero().flatten().tolist()]
            new: dict[bytes, Losses] = {}
            for (row, rung), value in zip(places, values, strict=True):
                table[row, rung] = torch.from_numpy(value)
                if store is not None:
                    new[keys[row][rung]] = tuple(value.tolist())
            if store is not None:
                store.put(new)
            if progress is not None:
                progress.update(len(rows))
    return table


def measure(task: Task) -> np.ndarray:
    """(M, 4) float64 losses of a task's pairs."""
    return losses(*(torch.from_numpy(part) for part in task)).numpy()


def _keys(reference: Tensor, distorted: Tensor) -> list[list[bytes]]:
    version = f"{VERSION} {identity(ffmpeg())}"
    keys = []
    for original, clips in zip(reference, distorted, strict=True):
        own = clip_digest(original)
        keys.append([pair_key(own, clip_digest(clip), version) for clip in clips])
    return keys


def _groups(missing: Tensor) -> list[list[int]]:
    """Rows with something to measure, together about TASK_CLIPS clips."""
    groups: list[list[int]] = []
    clips = TASK_CLIPS
    for row, count in enumerate(missing.sum(1).tolist()):
        if not count:
            continue
        if clips + count > TASK_CLIPS:
            groups.append([])
            clips = 0
        groups[-1].append(row)
        clips += count
    return groups


def _task(reference: Tensor, distorted: Tensor, missing: Tensor, rows: list[int]) -> Task:
    index = [place for place, row in enumerate(rows) for _ in range(int(missing[row].sum()))]
    clips = torch.cat([distorted[row][missing[row]] for row in rows])
    return reference[rows].numpy(), torch.tensor(index).numpy(), clips.numpy()
