"""Columns of plain text."""

from __future__ import annotations

from components.runtime.tables import columns


def test_columns_are_aligned_and_cells_stay_as_they_are() -> None:
    rows = [("name", "count", "note"), ("[bold]x", 12, "long " * 60), ("\u65e5\u672c",)]
    assert columns(rows, left=(0, 2), indent=1) == [
        " name     count  note",
        " [bold]x     12  " + ("long " * 60).rstrip(),
        " \u65e5\u672c",
    ]
    assert columns([]) == []
