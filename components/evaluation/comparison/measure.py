"""Everything that is measured on one model's clips."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from components.corpus.world.judge import LAWS, judge
from components.evaluation.comparison.diversity import diversity
from components.evaluation.dimensions.base import Array, Dimension, VideoBatch
from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.dimensions.motion import flow_motion, motion
from components.evaluation.models import ModelStore
from components.reward.base import Reward
from components.video.decode.frames import held

NO_ORACLE = "the oracle judge reads scenes of the miniature world, and no prompt of the run describes one"


@dataclass(frozen=True)
class Side:
    """One model's figures, each (N,) over its videos.

    Attributes:
        scores: by dimension, those that could be measured.
        used: the provider that measured each of them.
        unavailable: by dimension, why the others could not.
        reward: the training reward, in its own units.
        judge: the oracle judge's quality in 0..1, NaN off the miniature world; None when no prompt is of it.
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


def measure(videos: VideoBatch, reward: Reward, batch: int, store: ModelStore, compat: bool = False) -> Side:
    """Measure one model's videos with everything the catalogue can apply.

    Args:
        videos: of the model.
        reward: the training reward.
        batch: videos that the reward scores in one call.
        store: the weights there are.
        compat: take VBench's published variant of each dimension where ours differs.

    Raises:
        ValueError: the reward returned a figure that is not finite (a reward that fails must not pass for a
            low one).
    """
    scores: dict[str, Array] = {}
    used: dict[str, Dimension] = {}
    unavailable: dict[str, str] = {}
    for name, providers in catalogue().items():
        reasons = [provider.unavailable(videos, store, compat) for provider in providers]
        able = [provider for provider, reason in zip(providers, reasons, strict=True) if reason is None]
        values = able[0].measure(videos, store, compat) if able else np.array([np.nan])
        if np.isfinite(values).any():
            origins = {model: store.origin(model) for model in able[0].opens(compat)}
            used[name], scores[name] = replace(able[0], method=able[0].measured_by(origins)), values
        else:
            reasons += ["it cannot score any clip of this run"] if able else []
            unavailable[name] = "; ".join(reason for reason in reasons if reason)
    quality, parts = _judged(videos)
    distances, compared = diversity(videos.frames, videos.prompts)
    moves, moved = motion(videos)
    return Side(
        scores=scores,
        used=used,
        unavailable=unavailable,
        reward=_rewarded(videos, reward, batch),
        judge=quality,
        parts=parts,
        motion=moves,
        moved=moved,
        flow=flow_motion(videos),
        diversity=distances,
        compared=compared,
    )


def _rewarded(videos: VideoBatch, reward: Reward, batch: int) -> Array:
    parts = []
    for start in range(0, len(videos.frames), batch):
        part = slice(start, start + batch)
        scored = reward.score(videos.frames[part], videos.fps, videos.prompts[part])
        parts.append(scored.detach().cpu().float())
    rewards = torch.cat(parts).numpy().astype(np.float64)
    if not np.isfinite(rewards).all():
        raise ValueError(f"the reward gave {int((~np.isfinite(rewards)).sum())} figures that are not finite")
    return rewards


def _judged(videos: VideoBatch) -> tuple[Array | None, dict[str, Array]]:
    if not videos.has_world:
        return None, {}
    verdicts = [
        None if video.reading is None else judge(held(video.frames), video.reading) for video in videos.videos
    ]
    quality = np.array([np.nan if verdict is None else verdict.quality for verdict in verdicts])
    parts = {
        name: np.array([np.nan if verdict is None else verdict.parts[name] for verdict in verdicts])
        for name in LAWS
    }
    return quality, parts
