"""The card as a page: every number in it is one of the card's."""

from __future__ import annotations

from components.reward.card import Card, Column
from components.reward.correlation import Interval
from components.reward.gate import checks, refusals
from components.reward.markdown import as_markdown
from components.reward.params import GateParams

NAN = float("nan")


def card() -> Card:
    labelled = Column(100, 0.91, 0.72, 0.93, 0.14, 0.9, 0.975, 0.965, 0.7)
    ordered = Column(60, NAN, NAN, NAN, NAN, NAN, 0.855, 0.845, 0.5)
    return Card(
        columns={"world": labelled, "generated": ordered},
        baselines={"laplacian_variance": {"world": Column(100, 0.123, *[0.0] * 7)}},
        by_type={"blur": {"world": 0.5, "world_srcc": -1.0, "generated": 0.25}, "freeze": {"world": 1.0}},
        attacks={"world": {"frozen": 0.987}, "generated": {"frozen": NAN}},
        judge=Interval(0.523, 0.381, 0.652, 24),
        unavailable={"footage": "the corpus has no footage clips in its test split"},
    )


def rows(page: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split(" | ")] for line in page.splitlines() if line[:1] == "|"]


def test_the_page_tells_what_the_card_holds() -> None:
    page = as_markdown(card(), checks(card(), GateParams()), [])
    assert "**Passed**" in page
    assert "| miniature world | 100 | 0.910 | 0.720 | 0.930 | 0.140 | 0.975 | 0.965 |" in page
    assert "| the generator's samples | 60 | - | - | - | - | 0.855 | 0.845 |" in page
    assert "| this reward | 0.910 |" in page and "| laplacian variance | 0.123 |" in page
    assert "| world | 0.987 |" in page and "| generated | - |" in page
    assert "0.523 [0.381, 0.652] over 24 prompts" in page
    # (.5 + .25) / 2: the correlations beside the shares are no part of the mean.
    assert page.index("| blur | 0.375 |") < page.index("| freeze | 1.000 |")
    assert "- footage: the corpus has no footage clips in its test split" in page


def test_a_refusal_leads_the_page() -> None:
    found = checks(card(), GateParams(srcc_world=0.95))
    page = as_markdown(card(), found, refusals(found))
    assert page.splitlines()[2].startswith("**Refused**: srcc_world is 0.910, must be at least 0.95")
    assert "| srcc_world 0.910 >= 0.95 | NO |" in page


def test_every_table_is_rectangular() -> None:
    page = as_markdown(card(), checks(card(), GateParams()), [])
    for block in page.split("\n\n"):
        if block.startswith("|"):
            assert len({len(row) for row in rows(block)}) == 1, block
