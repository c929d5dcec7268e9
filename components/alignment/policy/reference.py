"""Which policy the preferences are measured against, and when it follows the trained policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.alignment.params import ReferenceKind
from components.alignment.policy import Policy


class Reference:
    """Keeps the policy's reference by a rule; the same in every process.

    fixed: the base it starts as. every_k: a copy of the policy every `every` updates (the paper's
    curriculum preference update). ema: after each update it moves 1 / `every` of the way to the policy, so
    that its mean age is `every` updates. judged: as every_k, but only where the held-out judge agrees.

    Attributes:
        version: how often it has changed.
        refused: how often the judge did not agree.
    """

    def __init__(self, policy: Policy, kind: ReferenceKind, every: int) -> None:
        self.policy, self.kind, self.every = policy, kind, every
        self.version = self.refused = 0

    def after_update(self, updates: int, agrees: bool) -> None:
        """Follow the policy if it is time.

        Args:
            updates: updates so far, the last one included.
            agrees: whether the held-out judge's last reading is in favour of the policy.
        """
        if self.kind == "fixed" or (self.kind != "ema" and updates % self.every):
            return
        if self.kind == "judged" and not agrees:
            self.refused += 1
            return
        self.policy.sync_reference(1.0 / self.every if self.kind == "ema" else 1.0)
        self.version += 1

    def state(self) -> dict[str, int]:
        """Return the counts as JSON values; the policy keeps the weights."""
        return {"version": self.version, "refused": self.refused}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the counts of a checkpoint."""
        self.version, self.refused = state["version"], state["refused"]
