"""Every rule of the gate, by itself."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scipy import stats

from components.registry.gate.champion import difference
from components.registry.gate.gate import EvaluatedVersion, decide
from components.runtime.gate.rules import Margin
from components.runtime.gate.thresholds import Gate, SourcedRule, load_gate
from components.runtime.stats import Interval
from tests.registry.conftest import GOOD, pair_rows

DIGESTS = {"requests_digest": "r", "reward_digest": "w", "lora_digest": "l", "generator_digest": "g"}
GATE = load_gate()


def standing(version: str = "", rows: Any = (), lora: str = "l", **changes: float | None) -> EvaluatedVersion:
    metrics = {key: value for key, value in (GOOD | changes).items() if value is not None}
    unavailable = {"dynamic_degree": "no weights here"}
    return EvaluatedVersion(
        version, {"evaluation": metrics}, DIGESTS | {"lora_digest": lora}, rows, unavailable
    )


def outcome(
    champion: EvaluatedVersion | None = None, rows: Any = (), **changes: Any
) -> tuple[str, tuple[str, ...]]:
    decision = decide(GATE, standing(rows=rows, **changes), champion)
    return decision.outcome, decision.reasons


def champion(rows: Any = (), **changes: Any) -> EvaluatedVersion:
    return standing("3", rows=rows, lora="other", **changes)


def test_a_good_candidate_without_a_champion_is_accepted() -> None:
    assert outcome() == ("accepted", ())


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("prompts", 47),
        ("pairs", 95),
        ("win_rate_reward_low", 0.5),
        ("win_rate_judge_low", 0.49),
        ("worst_semantic_delta", -0.031),
        ("motion_ratio", 0.84),
        ("motion_ratio", 1.16),
        ("diversity_ratio", 0.89),
        ("delta_low/temporal_flickering", -0.011),
        ("delta_low/motion_smoothness", -0.02),
    ],
)
def test_each_shipped_rule_refuses_alone_and_gives_its_figure(metric: str, value: float) -> None:
    verdict, reasons = outcome(**{metric: value})
    assert verdict == "refused"
    assert len(reasons) == 1
    assert metric.removesuffix("_low").split("/")[-1] in reasons[0]
    assert f"{value:.4f}" in reasons[0]


def test_a_dimension_that_must_be_available_refuses_with_the_reason_it_is_not() -> None:
    verdict, reasons = outcome(**{"aligned/dynamic_degree": None})
    assert verdict == "refused"
    assert reasons == ("dynamic_degree is measured: absent (no weights here)",)


@pytest.mark.parametrize("metric", ["win_rate_judge", "diversity_ratio"])
def test_an_absent_figure_refuses_unless_the_rule_says_skip(metric: str) -> None:
    verdict, reasons = outcome(**{metric: None})
    assert verdict == "refused"
    assert "absent" in reasons[0]
    assert SourcedRule(metric=metric, above=0.5, when_absent="skip").check({}).passed is None


def test_bounds_are_inclusive_and_above_is_not() -> None:
    assert SourcedRule(metric="x", at_least=1).check({"x": 1.0}).passed
    assert SourcedRule(metric="x", at_most=1).check({"x": 1.0}).passed
    assert not SourcedRule(metric="x", above=1).check({"x": 1.0}).passed


def test_confident_asks_the_whole_interval_and_fails_without_one() -> None:
    figures = {"x": 1.0, "x_low": 0.9, "x_high": 1.2}
    for bound, passes in (({"at_least": 0.95}, False), ({"at_least": 0.9}, True), ({"at_most": 1.1}, False)):
        assert SourcedRule(metric="x", confident=True, **bound).check(figures).passed is passes
        assert SourcedRule(metric="x", **bound).check(figures).passed
    assert SourcedRule(metric="x", at_least=0, confident=True).check({"x": 1.0}).passed is False
    margin = Margin(metric="x", margin=0.1, confident=True)
    for half, passes in ((0.2, False), (0.1, True)):
        assert margin.check(Interval(0.0, -half, half), "base", "the base", "").passed is passes


def test_rules_reach_other_steps_metrics() -> None:
    rule = SourcedRule(metric="srcc", source="reward", at_least=0.85)
    assert rule.check({"srcc": 0.9}).rule == "reward srcc >= 0.85"
    one = EvaluatedVersion("", {"reward": {"srcc": 0.9}, "evaluation": {**GOOD, "srcc": 0.1}}, DIGESTS)
    assert decide(Gate(absolute=(rule,)), one, None).outcome == "accepted"


def test_worse_than_the_champion_is_refused_within_the_margin_is_not() -> None:
    theirs = pair_rows(name="theirs", judge=0.70, reward=1.5)
    assert outcome(champion(theirs), rows=pair_rows(judge=0.70, reward=1.5))[0] == "accepted"
    assert outcome(champion(theirs), rows=pair_rows(judge=0.69, reward=1.5))[0] == "accepted"
    verdict, reasons = outcome(champion(theirs), rows=pair_rows(judge=0.67, reward=1.5))
    assert verdict == "refused"
    assert "champion version 3" in reasons[0]
    assert "-0.0300 [-0.03" in reasons[0]


def test_pairs_that_never_differed_are_no_proof() -> None:
    """20 prompts, each with exactly the champion's figures: up to 1 - .025^(1/20) = .168 may differ by 1."""
    theirs = pair_rows(judge=0.70, reward=1.5)
    verdict, reasons = outcome(champion(theirs), rows=theirs)
    assert verdict == "refused"
    assert "0.0000 [-0.1684, 0.1684]" in reasons[0]


def test_a_loss_of_reward_must_be_shown_to_refuse() -> None:
    theirs = pair_rows(name="theirs", judge=0.70, reward=1.5)
    assert outcome(champion(theirs), rows=pair_rows(judge=0.70, reward=1.451))[0] == "accepted"
    assert outcome(champion(theirs), rows=pair_rows(judge=0.70, reward=1.40))[0] == "refused"


def test_few_prompts_show_nothing_against_a_champion() -> None:
    theirs = pair_rows(9, name="theirs", judge=0.70, reward=1.5)
    verdict, reasons = outcome(champion(theirs), rows=pair_rows(9, judge=0.80, reward=1.5))
    assert verdict == "refused"
    assert "an interval needs 10 prompts or more" in reasons[0]


def test_a_page_that_went_by_other_rules_is_named() -> None:
    candidate = EvaluatedVersion("", {"evaluation": GOOD}, DIGESTS | {"gate_digest": "0123456789abcdef"})
    decision = decide(GATE, candidate, None)
    assert decision.outcome == "accepted"
    assert decision.note == "the report page went by other rules (gate 0123456789ab)"
    same = EvaluatedVersion("", {"evaluation": GOOD}, DIGESTS | {"gate_digest": GATE.digest})
    assert decide(GATE, same, None).note == ""


def test_the_paired_interval_is_that_of_the_prompts_means() -> None:
    draws = random.Random(5)
    mine, theirs = pair_rows(60), pair_rows(60)
    for row in (*mine, *theirs):
        row["aligned"] = {"judge": draws.gauss(0.5, 0.1)}
    found = difference(mine, theirs[::-1], "judge")  # order does not matter, prompt and seed do
    assert found is not None and found.known
    each = [one["aligned"]["judge"] - two["aligned"]["judge"] for one, two in zip(mine, theirs, strict=True)]
    means = [(each[place] + each[place + 1]) / 2 for place in range(0, 120, 2)]
    low, high = stats.t.interval(0.95, 59, loc=sum(means) / 60, scale=stats.sem(means))
    assert found.value == pytest.approx(sum(means) / 60)
    # One end is Student's, the other is Hall's, a little further out, as the means are a little skewed.
    assert found.low <= low + 1e-12 and found.high >= high - 1e-12
    assert min(low - found.low, found.high - high) == pytest.approx(0, abs=1e-12)
    assert max(low - found.low, found.high - high) < 0.1 * (high - low)


def test_pairs_without_a_figure_on_one_side_are_left_out() -> None:
    mine, theirs = pair_rows(3, judge=0.6), pair_rows(3, judge=0.5)  # the same spread in both
    mine[0]["aligned"]["judge"] = None
    theirs[5]["aligned"]["judge"] = float("nan")
    found = difference(mine, theirs, "judge")
    assert found is not None and found.value == pytest.approx(0.1)
    assert difference(mine, theirs, "no_such") is None
    assert difference(mine, pair_rows(3, judge=0.5)[:0], "judge") is None


@pytest.mark.parametrize(
    ("digest", "word"), [("requests_digest", "prompts and seeds"), ("reward_digest", "reward")]
)
@pytest.mark.parametrize("theirs", ["other", None])
def test_other_prompts_or_another_reward_are_never_compared(
    digest: str, word: str, theirs: str | None
) -> None:
    digests = {name: value for name, value in (DIGESTS | {digest: theirs}).items() if value is not None}
    other = EvaluatedVersion("3", {"evaluation": GOOD}, digests | {"lora_digest": "other"})
    verdict, reasons = outcome(other, **{"aligned/judge": 0.99})
    assert verdict == "refused"
    assert len(reasons) == 1
    assert "not comparable" in reasons[0]
    assert word in reasons[0]


def test_rows_of_other_seeds_are_not_compared_whatever_the_digests_say() -> None:
    theirs = pair_rows(judge=0.70, reward=1.5)
    mine = [{**row, "seed": row["seed"] + 1} for row in theirs]
    verdict, reasons = outcome(champion(theirs), rows=mine)
    assert verdict == "refused"
    assert "other prompts and seeds" in reasons[0]


def test_without_rows_the_means_decide_and_nothing_is_proven() -> None:
    verdict, reasons = outcome(champion())
    assert verdict == "refused"
    assert "it has no interval, so nothing is shown" in reasons[0]
    estimate = Gate(champion=(Margin(metric="judge", margin=0.01),))
    assert decide(estimate, standing(**{"aligned/judge": 0.695}), champion()).outcome == "accepted"
    assert decide(estimate, standing(**{"aligned/judge": 0.68}), champion()).outcome == "refused"


def test_a_figure_only_one_side_has_is_not_passed_over() -> None:
    gate = Gate(champion=(Margin(metric="judge", when_absent="skip"),))
    assert decide(gate, standing(), champion(**{"aligned/judge": None})).outcome == "refused"
    neither = standing(**{"aligned/judge": None})
    assert decide(gate, neither, champion(**{"aligned/judge": None})).outcome == "accepted"


def test_the_champions_own_weights_are_not_compared_with_themselves() -> None:
    same = EvaluatedVersion("3", {"evaluation": GOOD}, DIGESTS | {"requests_digest": "other"})
    assert outcome(same) == ("accepted", ())
