"""Every rule of the gate, by itself."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from components.registry.gate import Standing, absolute, decide
from components.registry.params import ABSOLUTE, RELATIVE, RegistryParams, RelativeRule, Rule

GOOD = {
    "pairs": 192.0,
    "win_rate_reward_low": 0.8,
    "win_rate_judge_low": 0.6,
    "worst_semantic_delta": -0.01,
    "motion_ratio": 1.05,
    "diversity_ratio": 0.95,
    "aligned/judge": 0.70,
    "aligned/reward": 1.5,
}
DIGESTS = {"requests_digest": "r", "reward_digest": "w"}


def outcome(champion: Standing | None = None, **changes: float | None) -> tuple[str, tuple[str, ...]]:
    metrics = {key: value for key, value in (GOOD | changes).items() if value is not None}
    decision = decide(ABSOLUTE, RELATIVE, {"evaluation": metrics}, DIGESTS, champion)
    return decision.outcome, decision.reasons


def test_a_good_candidate_without_a_champion_is_accepted() -> None:
    assert outcome() == ("accepted", ())


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("pairs", 95),
        ("win_rate_reward_low", 0.5),
        ("win_rate_judge_low", 0.49),
        ("worst_semantic_delta", -0.031),
        ("motion_ratio", 0.84),
        ("motion_ratio", 1.16),
        ("diversity_ratio", 0.89),
    ],
)
def test_each_default_rule_refuses_alone_and_names_its_figure(metric: str, value: float) -> None:
    verdict, reasons = outcome(**{metric: value})
    assert verdict == "refused"
    assert len(reasons) == 1
    assert reasons[0].startswith(metric)
    assert f"{value:.4f}" in reasons[0]


@pytest.mark.parametrize("metric", ["win_rate_judge_low", "diversity_ratio"])
def test_an_absent_figure_refuses_unless_the_rule_says_skip(metric: str) -> None:
    verdict, reasons = outcome(**{metric: None})
    assert verdict == "refused"
    assert "absent" in reasons[0]
    assert absolute(Rule(metric=metric, above=0.5, when_absent="skip"), {}).passed is None


def test_bounds_are_inclusive_and_above_is_not() -> None:
    assert absolute(Rule(metric="x", at_least=1), {"x": 1.0}).passed
    assert absolute(Rule(metric="x", at_most=1), {"x": 1.0}).passed
    assert not absolute(Rule(metric="x", above=1), {"x": 1.0}).passed


def test_rules_reach_other_steps_metrics() -> None:
    rule = Rule(metric="srcc", source="reward", at_least=0.85)
    assert (
        decide([rule], [], {"reward": {"srcc": 0.9}, "evaluation": {"srcc": 0.1}}, {}, None).outcome
        == "accepted"
    )


def test_worse_than_the_champion_is_refused_within_the_allowed_drop_is_not() -> None:
    champion = Standing("3", GOOD, DIGESTS)
    assert outcome(champion)[0] == "accepted"
    assert outcome(champion, **{"aligned/judge": 0.696})[0] == "accepted"
    verdict, reasons = outcome(champion, **{"aligned/judge": 0.69})
    assert verdict == "refused"
    assert "champion version 3" in reasons[0]
    assert "0.7000" in reasons[0]


@pytest.mark.parametrize(
    ("digest", "word"), [("requests_digest", "prompts and seeds"), ("reward_digest", "reward")]
)
def test_other_prompts_or_another_reward_are_not_compared(digest: str, word: str) -> None:
    verdict, reasons = outcome(Standing("3", GOOD, DIGESTS | {digest: "other"}), **{"aligned/judge": 0.99})
    assert verdict == "refused"
    assert "not comparable" in reasons[0]
    assert word in reasons[0]


def test_a_figure_only_one_side_has_is_not_passed_over() -> None:
    champion = Standing("3", {key: value for key, value in GOOD.items() if key != "aligned/judge"}, DIGESTS)
    assert outcome(champion)[0] == "refused"
    relative = [RelativeRule(metric="nowhere")]
    assert decide([], relative, {"evaluation": {}}, DIGESTS, Standing("3", {}, DIGESTS)).outcome == "accepted"


def test_a_rule_without_a_bound_is_refused() -> None:
    with pytest.raises(ValidationError, match="at_least, above or at_most"):
        RegistryParams.model_validate({"rules": [{"metric": "x"}]})
