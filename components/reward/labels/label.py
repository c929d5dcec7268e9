"""Labels of whole ladders: look up, measure what is missing, calibrate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.reward.labels.cache import LabelCache, clip_digest, pair_key
from components.reward.labels.calibration import CALIBRATION, VERSION, quality
from components.reward.labels.losses import MEASURES, losses
from components.reward.labels.vmaf import ffmpeg, identity
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.signals import StopSignal

#: Distorted clips that one worker measures at a time: enough that starting ffmpeg costs little.
TASK_CLIPS = 64

#: uint8 originals (R, T, 3, H, W), int64 index (M,), uint8 distorted clips (M, T, 3, H, W).
LabelTask = tuple[np.ndarray, np.ndarray, np.ndarray]


def label(
    reference: Tensor,
    distorted: Tensor,
    levels: Tensor,
    parts: Tensor | Sequence[int] | int = 1,
    *,
    cache: Path | None = None,
    stop: StopSignal | None = None,
) -> tuple[Tensor, Tensor]:
    """Labels ladders whose pristine originals are known.

    The result is the same, bit for bit, for any cache and any other ladders in the call.

    Args:
        reference: uint8 (N, T, 3, H, W), the original of each ladder.
        distorted: uint8 (N, K, T, 3, H, W), its clips.
        levels: (N, K) or (K,) severity levels, rising along K.
        parts: number of distortions in each ladder's recipe: one number, or N of them.
        cache: folder of losses measured before; None measures all.
        stop: asked between tasks whether to stop.

    Returns:
        labels and similarity to the original, (N, K) float32 in 0..1; labels fall along K.

    Raises:
        InputError: shapes that do not fit, no ffmpeg with libvmaf, or a cache that cannot be used.
        Interrupted: a stop was asked for; what was measured is in the cache.
    """
    table = measured(reference, distorted, cache=cache, pool=ProcessPool(0, stop))
    similarity = (1.0 - CALIBRATION.damage(table)).float()
    return quality(similarity, levels, parts), similarity


def measured(
    reference: Tensor, distorted: Tensor, *, cache: Path | None = None, pool: ProcessPool | None = None
) -> Tensor:
    """The losses behind `label`: (N, K, 4) float64, in the order of MEASURES.

    Arguments and errors as there, and `pool`, the open pool that measures; None measures in this process.
    """
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
    reference, distorted = reference.cpu(), distorted.cpu()
    table = torch.full((*distorted.shape[:2], len(MEASURES)), float("nan"), dtype=torch.float64)
    store = None if cache is None else LabelCache(cache)
    keys: list[list[bytes]] = []
    if store is not None:
        keys = _keys(reference, distorted)
        known = store.get([key for row in keys for key in row])
        for row, row_keys in enumerate(keys):
            for place, key in enumerate(row_keys):
                if len(known.get(key, ())) == len(MEASURES):
                    table[row, place] = torch.tensor(known[key], dtype=torch.float64)
    missing = table[..., 0].isnan()
    groups = _groups(missing)
    tasks = (_task(reference, distorted, missing, group) for group in groups)
    for rows, values in zip(groups, (pool or ProcessPool(0)).map(measure, tasks), strict=True):
        places = [(row, place) for row in rows for place in missing[row].nonzero().flatten().tolist()]
        for at, value in zip(places, values, strict=True):
            table[at] = torch.from_numpy(value)
        if store is not None:
            pairs = zip(places, values.tolist(), strict=True)
            store.put({keys[row][place]: value for (row, place), value in pairs})
    return table


def measure(task: LabelTask) -> np.ndarray:
    """(M, 4) float64 losses of a task's pairs."""
    return losses(*(torch.from_numpy(part) for part in task)).numpy()


def _keys(reference: Tensor, distorted: Tensor) -> list[list[bytes]]:
    version = f"{VERSION} {identity(ffmpeg())}"
    keys = []
    for original, clips in zip(map(clip_digest, reference), distorted, strict=True):
        keys.append([pair_key(original, clip_digest(clip), version) for clip in clips])
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


def _task(reference: Tensor, distorted: Tensor, missing: Tensor, rows: list[int]) -> LabelTask:
    index = torch.arange(len(rows)).repeat_interleave(missing[rows].sum(1))
    return reference[rows].numpy(), index.numpy(), distorted[rows][missing[rows]].numpy()
