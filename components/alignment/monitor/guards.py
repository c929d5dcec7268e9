"""Guards while training: what they watch, what they say, and when they end a run.

A reward can be hacked, and a pair's margin can grow while the winner gets worse. None of these figures is the
reward: whether gradients are numbers at all, how far the policy has gone from the original base, whether
winners get worse, and what a judge that is not the reward says of clips on prompts that are not trained on.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from components.runtime.compute.distributed import is_main_process
from components.runtime.params import Section

if TYPE_CHECKING:
    from components.alignment.monitor.heldout_judge import Reading

Standing = Literal["best", "level", "fallen"]
WINDOW = 4
"""Iterations that a figure of few pairs is averaged over."""
ALARMS = ("gradient", "drift", "winners_worse", "motion", "judge")
SKIPS = 2
"""Updates in a row without a finite gradient that end a run: one may be a clip's, two are the policy's."""


class GuardParams(Section):
    """What watches the run."""

    every: int = Field(
        6,
        ge=0,
        description="iterations between readings on held-back prompts, and one after the last; 0 takes none",
    )
    clips: int = Field(
        32,
        ge=2,
        description="clips of a reading; as many training prompts are held back for them, at most one in 8",
    )
    patience: int = Field(
        2, ge=1, description="readings in a row below the best one, or too still, after which the run ends"
    )
    least_motion: float = Field(
        0.85, ge=0, le=1, description="share of the base's motion that held-out clips must keep"
    )
    drift_limit: float = Field(
        0.05,
        gt=0,
        description="mean squared difference of the policy's and the original base's predictions, over the "
        "last 4 iterations, at which the run ends",
    )
    worse_limit: float = Field(
        0.8,
        ge=0,
        le=1,
        description="share of winners with a larger error than under the reference, over the last 4 "
        "iterations, above which there is an alarm",
    )


class Guards:
    """The state of the guards, the same in every process; it goes into the checkpoint.

    Attributes:
        stop: one line that says why the run should end now; None while it should not.
        kept_iteration: iterations done when the policy to publish was kept; None before the first reading
            that was not fallen.
        skipped: updates in a row, up to now, whose gradient was not finite.
    """

    def __init__(self, params: GuardParams) -> None:
        self.params = params
        self.stop: str | None = None
        self.kept_iteration: int | None = None
        self._alarms = dict.fromkeys(ALARMS, 0)
        self._recent: dict[str, list[float]] = {"drift": [], "winners_worse": []}
        self._best: Reading | None = None
        self._kept: Reading | None = None
        self._taken = self._fallen = self.skipped = 0

    @property
    def broken(self) -> bool:
        """Whether the policy as it stands gives what is not a number: nobody should keep it."""
        return self.skipped > 0

    def after_update(self, done: int, gradient_norm: float) -> None:
        """Look at an update of iteration number ``done``; it was skipped if its gradient is not finite."""
        if math.isfinite(gradient_norm):
            self.skipped = 0
            return
        self.skipped += 1
        self._alarm("gradient", done, f"its norm is {gradient_norm}; the update is skipped")
        if self.skipped >= SKIPS:
            text = f"the gradients of {self.skipped} updates in a row were not finite"
            self.stop = self.stop or f"in iteration {done}: {text}"

    def after_iteration(self, row: Mapping[str, float]) -> None:
        """Look at an iteration's row of the training curve; one without pairs tells nothing."""
        done = int(row["iteration"]) + 1
        limits = {"drift": self.params.drift_limit, "winners_worse": self.params.worse_limit}
        names = {"drift": "drift_from_base", "winners_worse": "winner_above_reference"}
        for alarm, limit in limits.items():
            if names[alarm] not in row:
                continue
            recent = [*self._recent[alarm], row[names[alarm]]][-WINDOW:]
            self._recent[alarm] = recent
            mean = sum(recent) / len(recent)
            # A policy that is not a number is further away than any limit.
            if (len(recent) < WINDOW and math.isfinite(mean)) or mean <= limit:
                continue
            text = f"{names[alarm]} is {mean:.3g}, the limit is {limit:g}"
            self._alarm(alarm, done, text)
            if alarm == "drift":
                # A policy that is no number is not to be kept, whatever its last gradient was.
                self.skipped = max(self.skipped, int(not math.isfinite(mean)))
                self.stop = self.stop or f"after iteration {done}: {text}"

    def due(self, done: int, total: int) -> bool:
        """Whether a reading comes after ``done`` of ``total`` iterations."""
        every = self.params.every
        return every > 0 and (done % every == 0 or done == total)

    def after_reading(self, reading: Reading) -> Standing:
        """Take a reading and say how it stands.

        "fallen": its score is below the base's or the best reading's beyond chance, or its motion below the
        share of the base's that is asked for. "best": it is not, and no reading scored higher. "level":
        neither, chance explains that it scores lower. What is published is the last policy that was not
        fallen.
        """
        self._taken += 1
        still = reading.motion < self.params.least_motion
        best = self._best
        worse = reading.judged and (
            reading.unscored or reading.difference.high < 0 or (best is not None and reading.below(best))
        )
        if still:
            least = self.params.least_motion
            text = f"held-out motion is {reading.motion:.3g} of the base's, at least {least:g} is asked"
            self._alarm("motion", reading.iteration, text)
        if worse:
            text = "no held-out clip has a finite score"
            if not reading.unscored:
                text = f"held-out score is {reading.difference.value:+.3g} against the base"
            if best is not None:
                text += f", it was {best.difference.value:+.3g} after iteration {best.iteration}"
            self._alarm("judge", reading.iteration, text)
        standing: Standing = "level"
        if still or worse:
            standing = "fallen"
            self._fallen += 1
        else:
            self._fallen = 0
            self.kept_iteration, self._kept = reading.iteration, reading
            if best is None or not reading.judged or reading.difference.value > best.difference.value:
                standing, self._best = "best", reading
        self._tell(reading, standing)
        if self._fallen >= self.params.patience:
            kept = "no earlier policy" if self._kept is None else f"the policy of {self.kept_iteration}"
            text = f"{self._fallen} held-out readings in a row had fallen; {kept} is kept"
            self.stop = self.stop or f"after iteration {reading.iteration}: {text}"
        return standing

    @property
    def agrees(self) -> bool:
        """Whether the last reading, if any, had not fallen."""
        return self._fallen == 0

    def metrics(self) -> dict[str, float]:
        """Return flat figures of the run; the reading is that of the policy that was kept."""
        found = {f"alarms_{name}": float(count) for name, count in self._alarms.items()}
        found |= {"held_out_readings": float(self._taken), "stopped_early": float(self.stop is not None)}
        if self.kept_iteration is not None:
            found["kept_iteration"] = float(self.kept_iteration)
        if self._kept is not None:
            found |= self._kept.row()
        return found

    def state(self) -> dict[str, Any]:
        """Return everything as JSON values for a checkpoint."""
        return {
            "stop": self.stop,
            "kept_iteration": self.kept_iteration,
            "alarms": self._alarms,
            "recent": self._recent,
            "best": None if self._best is None else self._best.as_json(),
            "kept": None if self._kept is None else self._kept.as_json(),
            "taken": self._taken,
            "fallen": self._fallen,
            "skipped": self.skipped,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave, also by way of a JSON file."""
        from components.alignment.monitor.heldout_judge import Reading

        self.stop, self.kept_iteration = state["stop"], state["kept_iteration"]
        self._alarms, self._recent = dict(state["alarms"]), {k: list(v) for k, v in state["recent"].items()}
        self._best = None if state["best"] is None else Reading.of(state["best"])
        self._kept = None if state["kept"] is None else Reading.of(state["kept"])
        self._taken, self._fallen, self.skipped = state["taken"], state["fallen"], state["skipped"]

    def _alarm(self, name: str, done: int, text: str) -> None:
        """Count an alarm; the first of its kind is told."""
        self._alarms[name] += 1
        if self._alarms[name] == 1 and is_main_process():
            print(f"warning: guard {name}, after iteration {done}: {text}", file=sys.stderr, flush=True)

    def _tell(self, reading: Reading, standing: Standing) -> None:
        if not is_main_process():
            return
        score = "no finite score" if reading.unscored else "no judge"
        if reading.judged and not reading.unscored:
            by = reading.difference
            score = f"score {by.value:+.3f} [{by.low:+.3f}, {by.high:+.3f}], win {reading.win:.2f}"
        line = f"{score}, motion {reading.motion:.2f} against the base: {standing}"
        print(f"held out, after iteration {reading.iteration}: {line}", file=sys.stderr, flush=True)
