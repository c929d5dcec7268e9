"""Guards while training: what they watch, what they report, and when they end a run.

A reward can be hacked, and a pair's margin can grow while the winner gets worse. None of the watched figures
is the reward: whether gradients are finite, how far the policy is from the original base, whether winners get
worse, and what a judge other than the reward says of clips on prompts that are not trained on.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, Literal

from components.alignment.monitor.reading import HeldoutReading
from components.alignment.params import GuardParams
from components.runtime.compute.distributed import is_main_process

Standing = Literal["best", "level", "regressed"]
#: Iterations that a figure of few pairs is averaged over.
WINDOW = 4
ALARMS = ("gradient", "drift", "winners_worse", "motion", "judge")
#: Updates in a row without a finite gradient that end a run: one may be due to a clip, two to the policy.
SKIPS = 2


class Guards:
    """The state of the guards, the same in every process; it goes into the checkpoint.

    Attributes:
        stop: one line that says why the run should end now; None while it should not.
        kept_iteration: iterations done when the policy to publish was kept; None before the first reading
            that had not regressed.
        skipped: updates in a row, up to now, whose gradient was not finite.
    """

    def __init__(self, params: GuardParams) -> None:
        self.params = params
        self.stop: str | None = None
        self.kept_iteration: int | None = None
        self.skipped = 0
        self._alarms = dict.fromkeys(ALARMS, 0)
        self._recent: dict[str, list[float]] = {"drift": [], "winners_worse": []}
        self._best: HeldoutReading | None = None
        self._kept: HeldoutReading | None = None
        self._readings = self._regressed = 0

    @property
    def broken(self) -> bool:
        """Whether the policy as it stands gives figures that are not finite: it must not be kept."""
        return self.skipped > 0

    @property
    def agrees(self) -> bool:
        """Whether the last reading, if any, had not regressed."""
        return self._regressed == 0

    def after_update(self, done: int, gradient_norm: float) -> None:
        """Check an update of iteration number `done`; it was skipped if its gradient is not finite."""
        if math.isfinite(gradient_norm):
            self.skipped = 0
            return
        self.skipped += 1
        self._alarm("gradient", done, f"its norm is {gradient_norm}; the update is skipped")
        if self.skipped >= SKIPS:
            text = f"the gradients of {self.skipped} updates in a row were not finite"
            self.stop = self.stop or f"in iteration {done}: {text}"

    def after_iteration(self, row: Mapping[str, float]) -> None:
        """Check an iteration's row of the training curve; one without pairs has no figures to check."""
        done = int(row["iteration"]) + 1
        for alarm, name, limit in (
            ("drift", "drift_from_base", self.params.drift_limit),
            ("winners_worse", "winner_above_reference", self.params.worse_limit),
        ):
            if name not in row:
                continue
            recent = [*self._recent[alarm], row[name]][-WINDOW:]
            self._recent[alarm] = recent
            mean = sum(recent) / len(recent)
            # A drift that is not finite is beyond any limit.
            if (len(recent) < WINDOW and math.isfinite(mean)) or mean <= limit:
                continue
            text = f"{name} is {mean:.3g}, the limit is {limit:g}"
            self._alarm(alarm, done, text)
            if alarm == "drift":
                # Such a policy must not be kept, whatever its last gradient was.
                self.skipped = max(self.skipped, int(not math.isfinite(mean)))
                self.stop = self.stop or f"after iteration {done}: {text}"

    def due(self, done: int, total: int) -> bool:
        """Return whether a reading comes after `done` of `total` iterations."""
        every = self.params.every
        return every > 0 and (done % every == 0 or done == total)

    def after_reading(self, reading: HeldoutReading) -> Standing:
        """Take a reading and return how it stands. The last policy that has not regressed is published.

        Returns:
            "regressed": its score is below the base's or the best reading's beyond chance, or its motion
            below the required share of the base's. "best": not regressed, and no reading scored higher.
            "level": neither.
        """
        self._readings += 1
        least, best = self.params.least_motion, self._best
        still = reading.motion < least
        worse = reading.judged and (
            reading.unscored or reading.difference.high < 0 or (best is not None and reading.below(best))
        )
        if still:
            text = f"held-out motion is {reading.motion:.3g} of the base's, minimum {least:g}"
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
            standing = "regressed"
            self._regressed += 1
        else:
            self._regressed = 0
            self.kept_iteration, self._kept = reading.iteration, reading
            if best is None or not reading.judged or reading.difference.value > best.difference.value:
                standing, self._best = "best", reading
        _report(reading, standing)
        if self._regressed >= self.params.patience:
            kept = "no earlier policy" if self._kept is None else f"the policy of {self.kept_iteration}"
            text = f"{self._regressed} held-out readings in a row regressed; {kept} is kept"
            self.stop = self.stop or f"after iteration {reading.iteration}: {text}"
        return standing

    def metrics(self) -> dict[str, float]:
        """Return flat figures of the run; the reading is that of the policy that was kept."""
        figures = {f"alarms_{name}": float(count) for name, count in self._alarms.items()}
        figures |= {"held_out_readings": float(self._readings), "stopped_early": float(self.stop is not None)}
        if self.kept_iteration is not None:
            figures["kept_iteration"] = float(self.kept_iteration)
        return figures | (self._kept.row() if self._kept is not None else {})

    def state(self) -> dict[str, Any]:
        """Return everything but the params as JSON values for a checkpoint."""
        values = {name: value for name, value in vars(self).items() if name != "params"}
        return {n: v.as_json() if isinstance(v, HeldoutReading) else v for n, v in values.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave, also by way of a JSON file."""
        readings = {n: state[n] and HeldoutReading.of(state[n]) for n in ("_best", "_kept")}
        vars(self).update({**state, **readings})

    def _alarm(self, name: str, done: int, text: str) -> None:
        """Count an alarm; print the first of its kind."""
        self._alarms[name] += 1
        if self._alarms[name] == 1 and is_main_process():
            print(f"warning: guard {name}, after iteration {done}: {text}", file=sys.stderr, flush=True)


def _report(reading: HeldoutReading, standing: Standing) -> None:
    if not is_main_process():
        return
    score = "no finite score" if reading.unscored else "no judge"
    if reading.judged and not reading.unscored:
        mean = reading.difference
        score = f"score {mean.value:+.3f} [{mean.low:+.3f}, {mean.high:+.3f}], win {reading.win:.2f}"
    line = f"{score}, motion {reading.motion:.2f} against the base: {standing}"
    print(f"held out, after iteration {reading.iteration}: {line}", file=sys.stderr, flush=True)
