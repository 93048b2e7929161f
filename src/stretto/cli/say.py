"""What people are told: content as wide as there is room for, and all problems, aligned."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from stretto.errors import Problem, StrettoError

if TYPE_CHECKING:
    from rich.console import RenderableType

T = TypeVar("T")

_WIDEST = 100  # characters of a line; as many where nobody knows the terminal
_FIELD = 28  # characters of a field; a longer one has a line of its own


def show(content: RenderableType) -> None:
    """Print tables and text, as wide as the terminal, or for a file as wide as is read well."""
    from rich.console import Console

    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(content)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def wrapped(lines: Iterable[str]) -> Iterator[str]:
    """Give lines as wide as there is room for; what is over stands below what it belongs to."""
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    for line in lines:
        label = re.match(r" +|\S.*?\S {2,}", line)  # what a column of words begins with
        hang = " " * (label.end() if label else 2)
        room = max(width, len(hang) + 40)
        yield from textwrap.wrap(
            line, room, subsequent_indent=hang, break_on_hyphens=False, break_long_words=False
        ) or [""]


def complain(error: StrettoError, *, rank: int | None = None) -> None:
    """Print what is wrong.

    Args:
        error: What is wrong.
        rank: The rank on its host of a process beside others that will say the same: it says no
            more than a line.
    """
    count = len(error.problems)
    if rank is not None:
        more = f" (and {count - 1} more)" if count > 1 else ""
        print(f"stretto, local rank {rank}: {error.problems[0]}{more}", file=sys.stderr)
        return
    head = "stretto: " + ("cannot do that" if count == 1 else f"{count} things are wrong")
    print("\n".join([head, *table(error.problems)]), file=sys.stderr)


def table(problems: Iterable[Problem]) -> Iterator[str]:
    """Give problems as lines: the field; what must hold; after an arrow, what would satisfy it."""
    listed = tuple(problems)
    width = max((len(p.field) for p in listed if len(p.field) <= _FIELD), default=0)
    room = max(40, shutil.get_terminal_size((_WIDEST, 24)).columns - width - 4)
    for problem in listed:
        lines = [
            *textwrap.wrap(problem.rule, room, break_on_hyphens=False),
            *textwrap.wrap(
                f"→ {problem.remedy}", room, subsequent_indent="  ", break_on_hyphens=False
            ),
        ]
        if len(problem.field) > _FIELD:
            yield f"  {problem.field}"
            yield from (f"  {'':{width}}  {line}" for line in lines)
        else:
            yield f"  {problem.field:{width}}  {lines[0]}"
            yield from (f"  {'':{width}}  {line}" for line in lines[1:])


def attempt(action: Callable[[], T], problems: list[Problem]) -> T | None:
    """Give what `action` gives; None, and what is wrong in `problems`, where it cannot."""
    try:
        return action()
    except StrettoError as error:
        problems += error.problems
        return None
