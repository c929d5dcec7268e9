"""Tables as plain text: the one place that aligns columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def columns(rows: Sequence[Sequence[object]], left: Collection[int] = (0,), indent: int = 0) -> list[str]:
    """Rows as lines of text whose columns stand two spaces apart, without colour, never wrapped.

    Args:
        rows: their cells, as text; a short row is padded.
        left: numbers of the columns that stand to the left; the others stand to the right.
        indent: spaces before each line.
    """
    if not rows:
        return []
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2), pad_edge=False)
    for column in range(max(map(len, rows))):
        table.add_column(justify="left" if column in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console(width=100_000, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return [" " * indent + line.rstrip() for line in captured.get().splitlines()]
