"""Is the aligned model worth promoting? Each thing asked of it, whether it holds, and why, in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from components.evaluation.comparison import Paired
from components.evaluation.verdict import NEEDED, STEADY, Guard, Verdict
from components.runtime.intervals import Interval


@dataclass(frozen=True)
class Requirement:
    """One thing asked of the aligned model.

    Attributes:
        name: in a few words.
        figure: what was found; None where nothing was.
        asked: the threshold in words.
        held: whether it holds; None where it could not be measured, which counts against promotion.
        proven: whether the whole interval lies inside what is asked.
        reason: one sentence that says why.
    """

    name: str
    figure: Interval | None
    asked: str
    held: bool | None
    proven: bool
    reason: str


@dataclass(frozen=True)
class Standing:
    """The verdict of the page: worthy only when every requirement was measured and holds."""

    requirements: tuple[Requirement, ...]

    @property
    def worthy(self) -> bool:
        """Whether everything asked holds."""
        return all(one.held for one in self.requirements)

    @property
    def word(self) -> str:
        """The verdict in two or three words."""
        if self.worthy:
            return "Worth promoting"
        if any(one.held is False for one in self.requirements):
            return "Not worth promoting"
        return "Not shown to be worth promoting"

    @property
    def against(self) -> list[Requirement]:
        """What speaks against promotion, failures first."""
        failed = [one for one in self.requirements if one.held is False]
        return failed + [one for one in self.requirements if one.held is None]


def standing(verdict: Verdict) -> Standing:
    """Everything that a promotion asks of one comparison.

    These are the requirements of the registry's default rules that a single evaluation can answer; how many
    pairs are enough and the comparison with the present champion are the registry's own.
    """
    others = {guard.name: guard for guard in verdict.guards if guard not in verdict.semantic}
    found = [_win("training reward", verdict.reward), _win("independent judge", verdict.judge)]
    found += [_kept(guard) for guard in verdict.semantic] or [
        _unmeasured("prompt is still followed", "no dimension of the prompt's content could be measured")
    ]
    kept = {"motion ratio": "motion", "diversity ratio": "diversity"}
    kept |= {f"{name} change": name.replace("_", " ") for name in STEADY}
    for name, plain in kept.items():
        guard = others.get(name)
        found.append(
            _kept(guard) if guard else _unmeasured(f"{plain} is kept", f"{plain} could not be measured")
        )
    for name in NEEDED:
        if name not in verdict.dimensions:
            plain = name.replace("_", " ")
            found.append(_unmeasured(plain, f"{plain} could not be measured"))
    return Standing(tuple(found))


def _win(name: str, paired: Paired | None) -> Requirement:
    label, asked = f"wins by the {name}", "interval above 0.500"
    if paired is None:
        return _unmeasured(
            label, f"no {name} can look at these prompts, so nothing confirms the gain", asked=asked
        )
    rate = paired.rate
    span = f"{100 * rate.value:.0f} of 100 pairs (interval {100 * rate.low:.0f} to {100 * rate.high:.0f})"
    held = rate.low > 0.5
    more = "more than half" if held else "which may be chance" if rate.high > 0.5 else "fewer than half"
    return Requirement(
        label, rate, asked, held, held, f"the {name} prefers the aligned clip in {span}, {more}"
    )


def _kept(guard: Guard) -> Requirement:
    name = guard.name.replace("_", " ")
    figure = guard.figure
    if not math.isfinite(figure.value):
        return _unmeasured(name, f"{name} could not be measured")
    if guard.highest is None:
        asked = f"at least {guard.lowest:.3f}".replace("-", "\N{MINUS SIGN}")
    else:
        asked = f"{guard.lowest:.3f} to {guard.highest:.3f}"
    found = f"{name} is {figure.value:.3f} (interval {figure.low:.3f} to {figure.high:.3f})"
    found = found.replace("-", "\N{MINUS SIGN}")
    if not guard.held and guard.strict and guard.figure.value >= guard.lowest:
        reason = f"{found}: its interval reaches out of what is allowed ({asked})"
    elif not guard.held:
        reason = f"{found}, outside what is allowed ({asked})"
    elif guard.proven:
        reason = f"{found}, all of it inside what is allowed"
    else:
        reason = f"{found}: the estimate is inside what is allowed, its interval reaches out of it"
    return Requirement(name, figure, asked, guard.held, guard.proven, reason)


def _unmeasured(name: str, reason: str, asked: str = "must be measured") -> Requirement:
    return Requirement(name, None, asked, None, False, reason)
