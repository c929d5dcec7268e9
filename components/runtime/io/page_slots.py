"""Slots in an HTML page: one step writes the page, a later step that knows more fills them.

A slot is a pair of comments. Texts of a page go through autoescape, so no prompt and no file name can hold
one.
"""

from __future__ import annotations

from markupsafe import Markup, escape

#: Slots of the evaluation's page that the registry fills: one line at the top, and all rules of its gate.
OUTCOME, DECISION = "outcome", "decision"


def slot(name: str, content: str | Markup = "") -> Markup:
    """A slot with what stands in it until it is filled; plain text is escaped."""
    begin, end = _ends(name)
    return Markup(begin) + escape(content) + Markup(end)


def fill(page: str, name: str, content: str | Markup) -> str | None:
    """The page with `content` in the slot `name`; plain text is escaped.

    None for a page that does not have the slot exactly once: it was written by another version.
    """
    begin, end = _ends(name)
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(end) < page.index(begin):
        return None
    return page[: page.index(begin)] + str(slot(name, content)) + page[page.index(end) + len(end) :]


def _ends(name: str) -> tuple[str, str]:
    return f"<!--slot {name}-->", f"<!--end of slot {name}-->"
