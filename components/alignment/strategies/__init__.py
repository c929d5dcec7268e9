"""Where candidates come from and what is learnt from their pairs."""

from __future__ import annotations

from components.alignment.strategies.base import RolloutBatch, Setting, Strategy
from components.alignment.strategies.from_ledger import FromLedger
from components.alignment.strategies.sampling import BestOfN, Offline, Online

#: Every strategy by name.
STRATEGIES: dict[str, type[Strategy]] = {"online": Online, "offline": Offline, "best_of_n": BestOfN}


def strategy_of(setting: Setting) -> Strategy:
    """Return the strategy that the params name; offline takes the pairs of a ledger where there is one."""
    if setting.ledger is not None:
        return FromLedger(setting)
    return STRATEGIES[setting.params.strategy](setting)


__all__ = ["STRATEGIES", "RolloutBatch", "Setting", "Strategy", "strategy_of"]
