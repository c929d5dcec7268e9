"""Which policy the preferences are measured against, and when it follows the policy that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.alignment.params import ReferenceKind
from components.alignment.policy import Policy


class Reference:
    """Keeps the policy's reference by a rule; the same in every process.

    fixed: the base it starts as. every_k: a copy of the policy every ``every`` updates (the paper's
    curriculum preference update). ema: after each update it goes 1 / ``every`` of the way to the policy, so
    that its mean age is ``every`` updates. judged: as every_k, but only where the held-out judge agrees.

    Attributes:
        version: how often it has changed.
        refused: how often the judge did not agree.
    """

    def __init__(self, policy: Policy, kind: ReferenceKind, every: int) -> None:
        """Start from the reference as the policy holds it.

        Args:
            every: updates, at least 1.
        """
        self.policy, self.kind, self.every = policy, kind, every
        self.version = self.refused = 0

    def after_update(self, updates: int, agrees: bool) -> None:
        """Follow the policy if it is time.

        Args:
            updates: updates so far, the last one included.
            agrees: whether the held-out judge's last reading speaks for the policy.
        """
        if self.kind == "ema":
            self._refresh(1.0 / self.every)
        elif self.kind != "fixed" and updates % self.every == 0:
            if self.kind == "judged" and not agrees:
                self.refused += 1
            else:
                self._refresh(1.0)

    def _refresh(self, share: float) -> None:
        self.policy.refresh_reference(share)
        self.version += 1

    def state(self) -> dict[str, int]:
        """Return the counts as JSON values; the weights are the policy's to keep."""
        return {"version": self.version, "refused": self.refused}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the counts of a checkpoint."""
        self.version, self.refused = state["version"], state["refused"]
