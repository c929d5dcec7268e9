"""Best-of-N fine-tuning: the policy is trained on the best of its own candidates."""

from __future__ import annotations

from components.alignment.objectives import Objective
from components.alignment.objectives.sft import sft
from components.alignment.strategies.base import Sampling


class BestOfN(Sampling):
    """Online except for the objective: training on the winners alone.

    Losers only decide, by the same filters, which groups have a winner: it trains on the same clips.
    """

    @property
    def objective(self) -> Objective:
        """The winner's denoising loss."""
        return sft
