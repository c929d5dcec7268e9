"""The card as a page: every number in it is one of the card's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from components.reward.card.card import (
    Agreement,
    Card,
    Column,
    GateCheck,
    GateResult,
    Slowed,
    Stillness,
    Uncertainty,
    Wins,
)
from components.reward.card.gate import checks, decide
from components.reward.card.markdown import _share, as_markdown
from components.reward.params import GateParams

NAN = float("nan")


def card() -> Card:
    labelled = Column(100, 30, 0.91, 0.72, 0.93, 0.14, 0.9, 0.975, 0.965, 0.99, 0.98, 0.98, 0.7)
    ordered = Column(
        60, 10, reference_above=0.855, adjacent_ordered=0.845, pairs_ordered=0.9, fully_ordered=0.5
    )
    return Card(
        columns={"world": labelled, "generated": ordered},
        baselines={"laplacian_variance": {"world": Column(100, srcc=0.123, adjacent_ordered=0.456)}},
        by_type={
            "blur": {"srcc": 0.3, "srcc_world": 0.7, "srcc_footage": 0.6, "above_world": 0.5},
            "freeze": {"srcc": 0.8, "srcc_world": 0.9, "srcc_footage": 0.4, "above_world": 1.0},
            "ghost": {"above_world": 0.25},
        },
        attacks={
            "world": {"frozen": Wins.counted(59, 60, 3)},
            "generated": {"frozen": Wins.counted(0, 0), "few_steps": Wins.counted(31, 32)},
        },
        stillness=Stillness({"world": 0.25}, {"pan_world_2x_slower": Slowed(Wins.counted(45, 60), 0.125)}),
        uncertainty=Uncertainty(
            0.321,
            {"world_ladders": {"beyond": Wins.counted(90, 100), "within": Wins.counted(30, 50)}},
            {"spatial": {"spatial": 1.0, "temporal": 0.111}, "temporal": {"spatial": 0.222, "temporal": 1.0}},
        ),
        judge=Agreement(0.523, 0.381, 0.652, 24),
        judge_pairs=0.777,
        time_reversal_change=0.055,
        data={
            "sources": {"world": {"clips": 100, "contents": 99, "ladders": 62}},
            "training": {"drawn": {"contents": 777, "ladders": 888}},
            "heldout_types": ["freeze"],
            "types": 62,
        },
        unavailable={"footage": "the corpus has no footage clips in its test split"},
    )


def page_of(found: Card, **bounds: float) -> str:
    """The page with the decision of a gate of these bounds."""
    found.gate = decide(found, GateParams(**bounds))
    return as_markdown(found)


def rows(page: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split(" | ")] for line in page.splitlines() if line[:1] == "|"]


def test_the_page_tells_what_the_card_holds() -> None:
    page = page_of(card(), reference_above=0.8, attacks=0.5, stillness_gain=1)
    assert "**Passed**" in page
    assert "| miniature world | 100 | 0.910 | 0.720 | 0.930 | 0.140 | 0.900 |" in page
    assert "| miniature world | 30 | 0.975 | 0.965 | 0.990 | 0.980 | 0.700 |" in page
    assert "| the generator's samples | 10 | 0.855 | 0.845 | - | 0.900 | 0.500 |" in page
    assert "the generator's samples | 60" not in page  # without labels, no row of correlations
    assert "| this reward | 0.910 |" in page and "| laplacian variance | 0.123 |" in page
    assert "| this reward | 0.965 | 0.845 |" in page and "| laplacian variance | 0.456 | - |" in page
    assert "0.523 [0.381, 0.652] over 24 prompts" in page and "judge's order: 0.777" in page
    assert "- footage: the corpus has no footage clips in its test split" in page
    assert "| world | 100 | 99 | 62 |" in page and "Types never trained on: freeze." in page
    assert "0.055 standard deviations" in page and "| drawn | 777 | 888 |" in page


def test_attacks_stand_with_interval_and_number() -> None:
    page = as_markdown(card())
    low, high = stats.binomtest(59, 60).proportion_ci(method="wilson")
    cell = f"0.983 [{low:.2f}, {high:.2f}] of 60"
    assert f"| frozen | 0.983, world | {cell} | - |" in page
    assert "| few steps | 0.969, generated | - | 0.969 [" in page
    assert "look the same: 3 pairs" in page


def test_the_worst_source_of_an_attack_is_shown_and_never_the_pool() -> None:
    found = card()
    found.attacks = {
        "world": {"erased": Wins.counted(600, 600)},
        "footage": {"erased": Wins.counted(10, 12, 1)},
    }
    page = as_markdown(found)
    assert "| erased | 0.833, footage |" in page
    assert "succeeds most often is erased on footage clips" in page.split("## ")[0]
    assert f"{610 / 612:.3f}" not in page and "together" not in page


@pytest.mark.parametrize(
    ("gain", "allowed", "said"),
    [
        (0.125, 0.1, "The score rewards stillness: moving less gains at most 0.125 levels"),
        (0.125, 0.25, "Moving less gains at most 0.125 levels"),
        (0.24, 0.25, "within the 0.25 that the gate allows"),
        (-0.4, 0.25, "The score does not reward stillness: moving less gains at most -0.400"),
    ],
)
def test_what_is_said_of_stillness_is_the_gates_verdict(gain: float, allowed: float, said: str) -> None:
    found = card()
    found.stillness = Stillness({"world": 0.25}, {"pan_world_2x_slower": Slowed(Wins.counted(45, 60), gain)})
    tried = checks(found, GateParams(stillness_gain=allowed))
    passed = next(check.passed for check in tried if check.metric == "stillness_gain")
    page = page_of(found, stillness_gain=allowed)
    assert said in page and ("The score rewards stillness" in page) == (not passed)
    assert "| pan world 2x slower | 0.750 [" in page and "world 0.250." in page


def test_without_a_probe_of_stillness_nothing_is_claimed() -> None:
    found = card()
    found.stillness = Stillness({"world": 0.25}, {"pan_world_2x_slower": Slowed(Wins.counted(0, 0, 4), NAN)})
    page = page_of(found)
    assert "No probe of stillness could be made." in page and "stillness:" not in page


def test_what_is_ranked_backwards_is_named_beside_the_verdict() -> None:
    """However well it is ranked on the other source, and on both together."""
    found = card()
    found.by_family = {"spatial": {"srcc": 0.7, "srcc_world": 0.9, "pairs_world": 0.9}}
    found.by_type = {
        "desaturate": {
            "srcc": 0.43, "srcc_world": 0.8, "srcc_footage": -0.3, "pairs_world": 0.9, "pairs_footage": 0.55,
        },
        "ghost": {"srcc": 0.9, "srcc_world": 0.9, "pairs_world": 0.95, "pairs_generated": 0.4},
        "blur": {"srcc": 0.9, "srcc_world": 0.9, "pairs_world": 0.95},
    }  # fmt: skip
    top = page_of(found).split("## ")[0]
    assert "Distortions ranked backwards" in top and "Families" not in top
    assert "desaturate on footage (SRCC -0.300, 0.550 of pairs in order)" in top
    assert "ghost on generated (0.400 of pairs in order)" in top
    assert "blur" not in top and "desaturate on world" not in top
    page = as_markdown(found)
    assert "| spatial | 0.900 | 0.900 |" in page and "0.430" not in page
    found.by_family["temporal"] = {"srcc_world": 0.9, "pairs_world": 0.9, "pairs_generated": 0.3}
    assert "Families ranked backwards" in as_markdown(found).split("## ")[0]


def test_a_requirement_that_was_not_measured_was_not_passed() -> None:
    tried = checks(card(), GateParams(reference_above=0.8, attacks=0.5, stillness_gain=1))
    unknown = [check for check in tried if check.passed is None]
    assert unknown and all(check.passed in (True, None) for check in tried)
    page = page_of(card(), reference_above=0.8, attacks=0.5, stillness_gain=1)
    assert f"that could be measured; {len(unknown)} of {len(tried)} could not be" in page
    known = card()
    known.gate = GateResult(True, [], [GateCheck("srcc_world", 0.9, 0.85, True)])
    assert "**Passed** every requirement of its gate." in as_markdown(known)


def test_uncertainty_and_aspects_have_their_section() -> None:
    page = as_markdown(card())
    assert "against the label: 0.321" in page
    assert "| ladders in the miniature world | 0.900 [" in page and "| 0.333 |" in page
    assert "| temporal damage | 0.222 | 1.000 |" in page


def test_the_hardest_distortion_comes_first_and_unknown_ones_last() -> None:
    page = as_markdown(card())
    table = [row for row in rows(page) if row[0].lstrip("| ") in ("freeze*", "blur", "ghost")]
    assert [row[0].lstrip("| ") for row in table] == ["freeze*", "blur", "ghost"]
    assert table[0][1:4] == ["temporal", "0.900", "0.400"] and table[2][2] == "-"


def test_a_refusal_leads_the_page() -> None:
    page = page_of(card(), srcc_world=0.95)
    assert page.splitlines()[2].startswith("**Refused**: srcc_world is 0.910, must be at least 0.95")
    assert "| srcc_world 0.910 >= 0.95 | NO |" in page


def test_every_table_is_rectangular() -> None:
    page = page_of(card())
    for block in page.split("\n\n"):
        if block.startswith("|"):
            assert len({len(row) for row in rows(block)}) == 1, block


def test_a_share_of_few_contents_says_why_it_has_no_interval() -> None:
    contents = [f"c{number % 4}" for number in range(20)]
    wins = Wins.of(np.arange(20) < 17, np.ones(20, bool), contents)
    assert _share(wins) == "0.850 of 20 (4 contents, too few for an interval)"
