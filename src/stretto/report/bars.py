"""Shares as bars in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.table import Table
from rich.text import Text

_BAR = 10


def bars(
    title: str, rows: Iterable[tuple[str, float]], *, whole: float, show: Callable[[float], str]
) -> Table:
    """Give a table of names, values, and bars as long as their share of `whole`.

    Args:
        title: What the values are of.
        rows: (name, value), in the order shown.
        whole: What a full bar is.
        show: Gives a value for people.
    """
    table = Table.grid(padding=(0, 1), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for name, value in rows:
        table.add_row(name, show(value), Text(stroke(value / whole), style="cyan"))
    whole_table = Table.grid()
    whole_table.add_row(Text(title, style="bold"))
    whole_table.add_row(table)
    return whole_table


def stroke(share: float, width: int = _BAR) -> str:
    """Give a bar without its empty rest; anything above nothing is seen."""
    eighths = max(1, round(share * width * 8)) if share > 0 else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
