"""Opening a reward of any kind."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from components.reward.base import CONFIG, Reward, read_config
from components.runtime.artifacts.artifact import Artifact
from components.runtime.errors import InputError

#: What "kind" in a reward's config.json may be: trained here, a model of transformers, a sum of rewards.
KINDS = ("ladders", "transformers", "weighted")


def open_reward(reward: str | Path | Artifact, device: str | torch.device = "auto") -> Reward:
    """A reward of any kind.

    Prints one line of warning for a reward that was never measured here: it has passed no gate.

    Args:
        reward: a reward's local folder, or its artifact, which `open_artifact` has checked.
        device: auto, cpu, cuda, cuda:N, or a torch device.

    Raises:
        InputError: not a reward, or damaged; the message names the file.
    """
    folder = reward.path if isinstance(reward, Artifact) else Path(reward)
    config = read_config(folder)
    kind = config.get("kind", "ladders")
    if config.get("measured") is False:
        print(
            f"warning: {folder}: unmeasured reward ({kind}): it has no card and has passed no gate",
            file=sys.stderr,
        )
    if kind == "ladders":
        from components.reward.scoring.trained import TrainedReward

        return TrainedReward.load(folder, str(device))
    if kind == "transformers":
        from components.reward.scoring.transformers import Regressor

        return Regressor.load(folder, str(device))
    if kind == "weighted":
        from components.reward.scoring.weighted_sum import WeightedSum

        return WeightedSum.load(folder, str(device), open_reward)
    raise InputError(f"{folder / CONFIG}: kind = {kind!r}: must be one of {', '.join(KINDS)}")
