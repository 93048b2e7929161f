"""Tables and numbers in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> Iterator[str]:
    """Give the lines of a table; columns of numbers stand at the right."""

    def numeric(cells: list[str]) -> bool:
        return all(re.fullmatch(r"[+\-–≤≥ ]*[\d,.]*( ?%|:1)?", c) for c in cells)

    rows = [list(line) for line in body]
    columns = [[row[i] for row in rows] for i in range(len(head))]
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---:" if numeric(column) else "---" for column in columns) + " |"
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def percent(value: float | None) -> str:
    """Give the size of a fraction in percent; a dash where there is none."""
    return "–" if value is None else f"{abs(value):.1%}"


def signed(value: float | None) -> str:
    """Give a fraction in percent with its sign; a dash where there is none."""
    return "–" if value is None else f"{value:+.1%}"
