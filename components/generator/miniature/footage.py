"""The miniature generator's own training footage: clips of the training scenes.

A stated share of them is degraded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from components.corpus.world.render import render
from components.corpus.world.scene import Scene
from components.generator.miniature.degrade import degrade
from components.runtime.compute.devices import available_cpus
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.seeds import derive, numpy_rng

#: Clips that a worker makes at a time.
CHUNK = 64


def make_clips(
    indices: Sequence[int], scenes: Sequence[Scene], seed: int, degraded_share: float, frames: int, size: int
) -> np.ndarray:
    """Return clips `indices` of the footage, uint8 (N, T, 3, H, W).

    A clip depends on its index and the other arguments alone, not on other clips.
    """
    clips = []
    for index in indices:
        scene = scenes[index % len(scenes)]
        clip = render(scene, derive(seed, "generator footage", index), frames, size).numpy()
        rng = numpy_rng(seed, "generator wear", index)
        clips.append(degrade(clip, rng) if rng.random() < degraded_share else clip)
    return np.stack(clips)


def make_footage(
    scenes: Sequence[Scene], count: int, seed: int, degraded_share: float, frames: int = 9, size: int = 48
) -> tuple[Tensor, list[str]]:
    """Return `count` clips, uint8 (N, T, 3, H, W), and their captions.

    Scene `i` of clip `i` cycles through `scenes`. `degraded_share` in 0..1 is the probability that a
    clip is degraded (its caption does not say so).
    """
    work = partial(
        make_clips, scenes=scenes, seed=seed, degraded_share=degraded_share, frames=frames, size=size
    )
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with ProcessPool(available_cpus()) as pool:
        clips = np.concatenate(list(pool.map(work, chunks)))
    captions = [scenes[index % len(scenes)].caption for index in range(count)]
    return torch.from_numpy(clips), captions
