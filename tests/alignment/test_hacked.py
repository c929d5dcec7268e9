"""A reward that can be hacked, rewarding stillness: the guards catch it, and leave a harmless one alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from components.alignment.candidates.pairs import motion_of
from components.alignment.loop import AlignmentLoop
from components.alignment.monitor.heldout_judge import HeldOutJudge
from components.alignment.outcome import load_best
from components.alignment.params import GuardParams
from components.corpus.prompts import Prompt
from components.generator.generator import Generator
from components.reward.base import Rating, Reward
from components.runtime.compute.distributed import Ranks
from tests.alignment.tiny import PARAMS, Brightness, make_trainer

HELD_BACK = [Prompt(f"h{c}", f"a {c} square moving up", "train") for c in ("red", "green", "blue", "cyan")]
# No motion floor on winners, an objective that does not hold their error down, and steps that are large: what
# the readings alone make of it.
HASTY = PARAMS.model_copy(
    update={
        "loss": "dpo", "iterations": 8, "num_generations": 4, "inner_updates": 6, "learning_rate": 3e-2,
        "reference_sync_every": 12,
        "guards": GuardParams(every=2, patience=2, least_motion=0.85, drift_limit=1e9, worse_limit=1.0),
    }
)  # fmt: skip


class Stillness:
    """The less a clip moves, the better."""

    def score(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Tensor:
        """frames uint8 (B, T, 3, H, W) -> (B,)."""
        return -motion_of(frames)

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        """frames uint8 (B, T, 3, H, W) -> (B,) each."""
        return Rating(self.score(frames, fps, prompts), torch.zeros(len(frames)), {})


def align(generator: Generator, folder: Path, reward: Reward) -> AlignmentLoop:
    judge = HeldOutJudge(generator, HELD_BACK, None, clips=16, seed=0, ranks=Ranks())
    trainer = make_trainer(generator, folder, HASTY, reward=reward, judge=judge)
    trainer.run()
    return trainer


def test_stillness_is_caught_and_the_last_moving_policy_is_published(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    trainer = align(new_generator(), tmp_path, Stillness())
    # The training figures are content: the reward is what the policy learns to raise.
    assert trainer.curve[-1]["reward_mean"] > trainer.curve[0]["reward_mean"]
    assert trainer.guards.stop is not None and trainer.done < HASTY.iterations
    metrics = trainer.guards.metrics()
    assert metrics["alarms_motion"] == 2 and metrics["stopped_early"] == 1
    assert metrics["held_out_motion"] >= 0.85 and metrics["kept_iteration"] < trainer.done
    # What load_best puts back is the policy of that reading: it draws clips that move as much.
    load_best(trainer)
    assert trainer.judge is not None
    again = trainer.judge.read(trainer.policy, trainer.done)
    assert again.motion == metrics["held_out_motion"]


def test_a_harmless_reward_runs_to_its_end(new_generator: Callable[..., Generator], tmp_path: Path) -> None:
    trainer = align(new_generator(), tmp_path, Brightness())
    assert trainer.guards.stop is None and trainer.done == HASTY.iterations
    assert trainer.guards.metrics()["kept_iteration"] == HASTY.iterations
