"""A reward small enough to be refreshed in a test, importable by the program that torchrun starts."""

from __future__ import annotations

import torch

from components.reward.distortions import REGISTRY
from components.reward.ladders.ladder import Ladders, build
from components.reward.ladders.replay import Kept
from components.reward.model.network import RewardNet
from components.reward.params import LadderParams, NetworkParams, RewardParams, TrainingParams
from components.reward.refresh.refresher import Effort, Refresher
from components.reward.scoring.trained import TrainedReward
from components.video.clip import ClipFormat
from tests.reward.conftest import textured

#: All types of damage but four that cost little.
HELD_OUT = tuple(name for name in REGISTRY if name not in ("blur", "fixed_noise", "freeze", "flicker_white"))


def small_ladders(levels: list[int], count: int = 12) -> Ladders:
    """Unlabelled ladders of three types on moving texture, 24 px."""
    recipes = [(name,) for name in ("blur", "freeze", "flicker_white")] * (count // 3)
    names = [f"c{i}" for i in range(count)]
    table = torch.tensor([levels] * count)
    clips = textured(count, side=24)
    return build(clips, names, recipes, table, source="generated", seed=0, labelled=False).without_frames()


def make_refresher() -> Refresher:
    """A reward of a few random weights, its ladders on moving texture, and what makes versions of it."""
    geometry = ClipFormat(5, 24, 24, 8.0)
    sizes = NetworkParams(members=2, hidden=8, embedding=8, bins=3)
    params = RewardParams(
        network=sizes,
        ladders=LadderParams(clips_per_ladder=3, composed=0.0, stressed=(), heldout_types=HELD_OUT),
        training=TrainingParams(batch=8, learning_rate=6e-2),
    )
    replay, heldout = small_ladders([0, 2, 5]), small_ladders([0, 1, 2, 3, 4, 5])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = RewardNet(sizes, replay.statistics.shape[-1])
    network.coding.fit(replay.statistics.flatten(0, 1))
    kept = Kept(replay, heldout, None)
    effort = Effort(ladders=24, compared=24, steps=60)
    return Refresher(TrainedReward(network, geometry), params, kept, effort)
