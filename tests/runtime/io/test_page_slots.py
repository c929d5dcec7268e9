"""Slots of a page: filled once, whole, and never by what a text says."""

from __future__ import annotations

import pytest
from markupsafe import Markup, escape

from components.runtime.io.page_slots import fill, slot


def test_a_slot_is_filled_and_filled_again() -> None:
    page = f"<p>{slot('a', 'not yet')}</p><p>{slot('b')}</p>"
    once = fill(page, "a", Markup("<b>yes</b>"))
    assert once is not None and "<b>yes</b>" in once and "not yet" not in once
    twice = fill(once, "a", "1 < 2")
    assert twice == f"<p>{slot('a', '1 < 2')}</p><p>{slot('b')}</p>"
    assert "1 &lt; 2" in twice


@pytest.mark.parametrize("page", ["", "<p></p>", str(slot("a")) * 2, str(slot("a"))[:-3]])
def test_a_page_without_exactly_one_is_left_alone(page: str) -> None:
    assert fill(page, "a", "x") is None


def test_a_text_of_the_page_is_no_slot() -> None:
    prompt = str(slot("a", "prompt"))
    page = f"<p>{escape(prompt)}</p>{slot('a')}"
    filled = fill(page, "a", "here")
    assert filled == f"<p>{escape(prompt)}</p>{slot('a', 'here')}"
