"""The miniature generator's own training footage: clips of the training scenes.

A stated share of them is degraded.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor

from components.corpus.world.render import render
from components.corpus.world.scene import Scene
from components.generator.miniature.degrade import degrade
from components.runtime.compute.devices import available_cpus
from components.runtime.compute.seeds import derive, numpy_rng
from components.runtime.compute.workers import begin


def make_clip(
    index: int, scenes: Sequence[Scene], seed: int, degraded_share: float, frames: int, size: int
) -> np.ndarray:
    """Return clip ``index`` of the footage, uint8 (T, 3, H, W).

    It depends on its arguments alone, not on other clips.
    """
    scene = scenes[index % len(scenes)]
    clip = render(scene, derive(seed, "generator footage", index), frames, size).numpy()
    rng = numpy_rng(seed, "generator wear", index)
    return degrade(clip, rng) if rng.random() < degraded_share else clip


def make_footage(
    scenes: Sequence[Scene], count: int, seed: int, degraded_share: float, frames: int = 9, size: int = 48
) -> tuple[Tensor, list[str]]:
    """Return ``count`` clips, uint8 (N, T, 3, H, W), and their captions.

    Scene ``i`` of clip ``i`` cycles through ``scenes``. ``degraded_share`` in 0..1 is the probability that a
    clip is degraded (its caption does not say so).
    """
    work = partial(
        make_clip, scenes=scenes, seed=seed, degraded_share=degraded_share, frames=frames, size=size
    )
    with ProcessPoolExecutor(available_cpus(), get_context("spawn"), begin) as pool:
        clips = list(pool.map(work, range(count), chunksize=64))
    captions = [scenes[index % len(scenes)].caption for index in range(count)]
    return torch.from_numpy(np.stack(clips)), captions
