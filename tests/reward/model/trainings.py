"""Small trainings of a reward, for the tests with and without a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from components.reward.ladders.ladder import Ladders
from components.reward.model.network import RewardNet
from components.reward.model.training import Curve, train
from components.reward.params import RewardParams
from components.runtime.compute.distributed import Ranks
from components.runtime.compute.signals import StopSignal


def changed(params: RewardParams, *, network: dict[str, Any] | None = None, **training: Any) -> RewardParams:
    """The params with other values in the sections `training` and `network`, checked as a file's are."""
    values = params.model_dump()
    return RewardParams.model_validate(
        {
            **values,
            "training": values["training"] | training,
            "network": values["network"] | (network or {}),
        }
    )


def trained(
    ladders: Ladders,
    params: RewardParams,
    folder: Path,
    *,
    stop_at: int | None = None,
    initial: RewardNet | None = None,
    ranks: Ranks | None = None,
) -> tuple[RewardNet, Curve]:
    """A training with its checkpoints in `folder`, stopped after `stop_at` steps."""
    stop = StopSignal()

    def report(figures: dict[str, float], done: int) -> None:
        if stop_at is not None and done >= stop_at:
            stop.requested = True

    return train(
        [ladders], params, checkpoints=folder, stop=stop, device=torch.device("cpu"), report=report,
        initial=initial, ranks=ranks,
    )  # fmt: skip


def same(one: RewardNet, other: RewardNet) -> bool:
    """Whether two networks have the same weights, bit for bit."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
