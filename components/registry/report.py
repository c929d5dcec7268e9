"""The registry's copy of the evaluation's page: the same page, and what was decided with every rule."""

from __future__ import annotations

from markupsafe import Markup

from components.registry.gate.gate import Decision
from components.runtime.gate.rules import Check
from components.runtime.io.page_slots import DECISION, OUTCOME, fill

_WORDS = {True: ("good", "passed"), False: ("bad", "failed"), None: ("open", "skipped")}
_TITLES = {"accepted": "Promoted", "refused": "Refused", "unchanged": "Unchanged"}


def decided_page(page: str, decision: Decision, model: str, version: str) -> str | None:
    """The evaluation's page with the decision in its slots; None for a page of a version without slots."""
    with_outcome = fill(page, OUTCOME, _outcome(decision, model, version))
    return None if with_outcome is None else fill(with_outcome, DECISION, _decision(decision))


def _outcome(decision: Decision, model: str, version: str) -> Markup:
    return Markup('<p class="decided {}"><b>{} by the registry:</b> {}.</p>').format(
        decision.outcome, _TITLES[decision.outcome], decision.sentence(f"version {version} of {model}")
    )


def _decision(decision: Decision) -> Markup:
    beside = f"beside champion version {decision.champion}" if decision.champion else "no champion before"
    counts = [sum(check.passed is held for check in decision.checks) for held in (True, False, None)]
    head = Markup("<p><b>{}</b>, {}: {} rules passed, {} failed, {} skipped.</p>").format(
        _TITLES[decision.outcome], beside, *counts
    )
    if decision.note:
        head += Markup("<p>{}</p>").format(decision.note)
    rules = Markup("").join(map(_rule, decision.checks))
    return head + Markup('<ul class="checks">{}</ul>').format(rules)


def _rule(check: Check) -> Markup:
    tone, word = _WORDS[check.passed]
    return Markup('<li><span class="mark {}">{}</span> {}</li>').format(tone, word, check.reason)
