"""Forwards to `components.reward.scoring.pyfunc`, for versions registered by earlier releases."""

from components.reward.scoring.pyfunc import RewardModel

__all__ = ["RewardModel"]
