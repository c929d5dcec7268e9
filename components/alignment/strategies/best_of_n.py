"""Best-of-N fine-tuning: the policy learns to draw the best of its own candidates."""

from __future__ import annotations

from components.alignment.objectives import Objective
from components.alignment.objectives.sft import sft
from components.alignment.strategies.base import Sampling


class BestOfN(Sampling):
    """Online in all but the objective: training on the winners alone.

    Losers only decide which groups have a winner, by the same filters, so that it trains on the same clips.
    """

    @property
    def objective(self) -> Objective:
        """The winner's denoising loss."""
        return sft
