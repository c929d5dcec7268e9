"""Should the aligned model be promoted? Each rule of the gate, whether it holds, and why, in plain words.

No threshold stands here: the rules are those of the gate file, which the registry decides by, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from components.evaluation.comparison.paired import Paired
from components.evaluation.comparison.verdict import Verdict
from components.runtime.gate.rules import Check, allows
from components.runtime.stats import FEWEST


@dataclass(frozen=True)
class Requirement:
    """One rule of the gate on the aligned model: its name in a few words, and one sentence on the outcome."""

    name: str
    check: Check
    reason: str

    @property
    def held(self) -> bool | None:
        """Whether it holds; None where nothing is shown either way. Only what holds speaks for promotion."""
        return self.check.passed if self.check.shown else None

    @property
    def allowed(self) -> str:
        """The bounds in words."""
        return _allowed(self.check)


@dataclass(frozen=True)
class Recommendation:
    """The recommendation of the page.

    Attributes:
        requirements: the gate's rules that one evaluation can answer, but those that it passes over.
        left: the rules that only the registry can decide, in words.
    """

    requirements: tuple[Requirement, ...]
    left: tuple[str, ...] = ()

    @property
    def promote(self) -> bool:
        """Whether every requirement holds."""
        return all(requirement.held for requirement in self.requirements)

    @property
    def word(self) -> str:
        """The recommendation in two to five words."""
        if self.promote:
            return "Worth promoting"
        if any(requirement.held is False for requirement in self.requirements):
            return "Not worth promoting"
        return "Not shown to be worth promoting"

    @property
    def against(self) -> list[Requirement]:
        """What speaks against promotion, failures first."""
        return [r for held in (False, None) for r in self.requirements if r.held is held]


def recommend(verdict: Verdict) -> Recommendation:
    """What the gate's rules say of one comparison: `verdict.checks` in plain words.

    A rule that is skipped where its figure is absent is left out, as the registry passes over it.
    """
    requirements = []
    for check in verdict.checks:
        if check.passed is not None:
            name, reason = _words(check, verdict)
            requirements.append(Requirement(name, check, reason))
    left = tuple(
        margin.words("the champion's").replace(margin.metric, _plain(margin.metric), 1)
        for margin in verdict.gate.champion
    )
    return Recommendation(tuple(requirements), left)


def limits(verdict: Verdict) -> dict[str, float]:
    """Largest allowed falls of dimensions, as changes of at least so much, by name."""
    found: dict[str, float] = {}
    for check in verdict.checks:
        if check.at_least is None:
            continue
        if check.metric == "worst_semantic_delta":
            found |= dict.fromkeys(verdict.semantic, check.at_least)
        elif check.metric.startswith("delta/"):
            found[check.metric.removeprefix("delta/")] = check.at_least
    return found


def _words(check: Check, verdict: Verdict) -> tuple[str, str]:
    """The requirement's name, and the sentence that says how it stands."""
    metric, worst = check.metric, _worst(verdict)
    if metric in ("win_rate_reward", "win_rate_judge"):
        by = "training reward" if metric == "win_rate_reward" else "oracle judge"
        paired = verdict.reward if metric == "win_rate_reward" else verdict.judge
        return f"wins by the {by}", _win(check, by, paired)
    if check.part == "minimum":
        return f"enough {metric}", f"{check.value or 0:g} {metric} of at least {check.at_least:g}"
    if check.part == "available":
        name = _plain(metric.removeprefix("aligned/"))
        return f"{name} is measured", f"{name} {'is' if check.shown else 'could not be'} measured"
    if metric == "worst_semantic_delta":
        if worst is None:
            return "prompt is still followed", "no dimension of the prompt's content could be measured"
        return f"{worst} change", _kept(check, f"{worst} change, the worst of what the prompt asks for,")
    name = _plain(metric.removeprefix("delta/")) + (" change" if metric.startswith("delta/") else "")
    if check.value is None:
        return name, f"{name.removesuffix(' change').removesuffix(' ratio')} could not be measured"
    return name, _kept(check, name)


def _win(check: Check, by: str, paired: Paired | None) -> str:
    if paired is None or check.value is None:
        return f"no {by} can look at these prompts, so nothing confirms the gain"
    rate = paired.rate
    of = f"the {by} prefers the aligned clip in {100 * rate.value:.0f} % of {paired.pairs} pairs"
    if not rate.known:
        return f"{of}; {paired.prompts} prompts are too few to show anything, an interval needs {FEWEST}"
    decided = "more than half" if rate.low > 0.5 else "fewer than half" if rate.high < 0.5 else ""
    more = decided or "which may be chance"
    return f"{of} (interval {100 * rate.low:.0f} to {100 * rate.high:.0f} %), {more}"


def _kept(check: Check, name: str) -> str:
    assert check.value is not None
    found = f"{name} is {check.value:.3f}"
    if check.low is not None and check.high is not None:
        found += f" (interval {check.low:.3f} to {check.high:.3f})"
    found = _minus(found)
    if not check.shown:
        return f"{found}, and nothing is shown by it: it has no interval"
    if not check.passed:
        estimate = allows(check, check.value, check.value)
        why = ": its interval reaches out of" if estimate else ", outside"
        return f"{found}{why} what is allowed ({_allowed(check)})"
    if check.sure is None:
        return f"{found}, inside what is allowed"
    if check.sure:
        return f"{found}, all of it inside what is allowed"
    return f"{found}: the estimate is inside what is allowed, its interval reaches out of it"


def _allowed(check: Check) -> str:
    """The bounds in words."""
    if check.part == "available":
        return "must be measured"
    digits = "g" if check.part == "minimum" else ".3f"
    if check.above is not None and check.at_most is None:
        allowed = f"{'interval ' if ', whole interval' in check.rule else ''}above {check.above:{digits}}"
    elif check.at_least is not None and check.at_most is not None:
        allowed = f"{check.at_least:{digits}} to {check.at_most:{digits}}"
    elif check.at_least is not None:
        allowed = f"at least {check.at_least:{digits}}"
    elif check.at_most is not None:
        allowed = f"at most {check.at_most:{digits}}"
    else:
        allowed = check.rule
    return _minus(allowed)


def _worst(verdict: Verdict) -> str | None:
    """The semantic dimension that fell most."""
    if not verdict.semantic:
        return None
    return _plain(min(verdict.semantic, key=lambda name: verdict.dimensions[name].difference.value))


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
