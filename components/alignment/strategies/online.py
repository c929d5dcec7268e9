"""Online DPO: the policy draws its own candidates (OnlineVPO, arXiv 2412.15159)."""

from __future__ import annotations

from components.alignment.strategies.base import Sampling


class Online(Sampling):
    """The policy that is trained draws the candidates of every iteration."""
