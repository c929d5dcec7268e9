"""Everything that is measured on one model's clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.corpus.world.judge import LAWS, judge
from components.evaluation.comparison.diversity import diversity
from components.evaluation.dimensions.base import Array, Clips, Dimension
from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.dimensions.motion import flow_motion, motion
from components.evaluation.models import Shelf
from components.reward.base import Reward
from components.runtime.compute.process_pool import ProcessPool
from components.video.decode.frames import held

NO_WORLD = "the judge reads scenes of the miniature world, and no prompt of the run describes one"


@dataclass(frozen=True)
class Side:
    """One model's figures, each (N,) over its videos.

    Attributes:
        scores: by dimension, those that could be measured.
        used: the provider that measured each of them.
        unavailable: by dimension, why the others could not.
        reward: the training reward, in its own units.
        judge: the independent judge's quality in 0..1, NaN off the miniature world; None when no prompt is of
            it.
        parts: the judge's parts, empty when there is no judge.
        motion: px per step; not a score.
        moved: how motion was measured.
        flow: px per step by optical flow, NaN where none was estimated; not a score.
        diversity: distance from the other videos; not a score.
        compared: what diversity compares.
    """

    scores: dict[str, Array]
    used: dict[str, Dimension]
    unavailable: dict[str, str]
    reward: Array
    judge: Array | None
    parts: dict[str, Array]
    motion: Array
    moved: str
    flow: Array
    diversity: Array
    compared: str


def measure(
    frames: Tensor,
    fps: float,
    prompts: Sequence[str],
    reward: Reward,
    batch: int,
    pool: ProcessPool | None = None,
    flow_on: NDArray[np.bool_] | None = None,
    shelf: Shelf | None = None,
    compat: bool = False,
) -> Side:
    """Measure uint8 (N, T, 3, H, W) with everything the catalogue can apply.

    For ``flow_on`` see `Clips`; ``shelf`` holds the weights there are (none by default); ``compat`` asks for
    VBench's published variant of each dimension where ours differs.

    Raises:
        ValueError: the reward returned a figure that is not finite (a reward that fails must not pass for a
            low one).
    """
    shelf = shelf or Shelf()
    clips = Clips(frames, fps, tuple(prompts), pool, flow_on)
    scores: dict[str, Array] = {}
    used: dict[str, Dimension] = {}
    unavailable: dict[str, str] = {}
    for name, providers in catalogue().items():
        reasons = [provider.unavailable(clips, shelf, compat) for provider in providers]
        able = [provider for provider, reason in zip(providers, reasons, strict=True) if reason is None]
        found = able[0].measure(clips, shelf, compat) if able else np.array([np.nan])
        if np.isfinite(found).any():
            origins = {model: shelf.origin(model) for model in able[0].opens(compat)}
            used[name], scores[name] = replace(able[0], method=able[0].measured_by(origins)), found
        else:
            reasons += ["it has nothing to say about any clip of the run"] if able else []
            unavailable[name] = "; ".join(reason for reason in reasons if reason)
    starts = range(0, len(frames), batch)
    rewards = torch.cat(
        [
            reward.score(frames[i : i + batch], fps, prompts[i : i + batch]).detach().cpu().float()
            for i in starts
        ]
    ).numpy()
    if not np.isfinite(rewards).all():
        raise ValueError(f"the reward gave {int((~np.isfinite(rewards)).sum())} figures that are not finite")
    quality, parts = _judged(clips)
    distances, compared = diversity(frames, prompts)
    moves, moved = motion(clips)
    return Side(
        scores=scores,
        used=used,
        unavailable=unavailable,
        reward=rewards.astype(np.float64),
        judge=quality,
        parts=parts,
        motion=moves,
        moved=moved,
        flow=flow_motion(clips),
        diversity=distances,
        compared=compared,
    )


def _judged(clips: Clips) -> tuple[Array | None, dict[str, Array]]:
    if not clips.has_world:
        return None, {}
    verdicts = [
        None if video.reading is None else judge(held(video.frames), video.reading) for video in clips.videos
    ]
    quality = np.array([np.nan if verdict is None else verdict.quality for verdict in verdicts])
    parts = {
        name: np.array([np.nan if verdict is None else verdict.parts[name] for verdict in verdicts])
        for name in LAWS
    }
    return quality, parts
