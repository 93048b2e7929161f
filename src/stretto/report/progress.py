"""Progress on a terminal or in a file: a line that is kept up to date, or a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.text import Text

from stretto.report.words import bar, cells, events, fitted, line

if TYPE_CHECKING:
    from stretto.runtime.train import Record

EVERY_S = 10.0
"""Seconds between two lines where there is no terminal."""

_BAR = 24
_SHORTEST_BAR = 6


Say = Callable[[str], None]
"""Takes lines, the last one without its end."""


class Lines:
    """Says a line at the first step, at the last, at every evaluation, and now and then."""

    def __init__(
        self,
        say: Say,
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            say: Takes the lines.
            every_s: Seconds from one line to the next, at least.
            clock: Gives seconds.
        """
        self._say, self._every_s, self._clock = say, every_s, clock
        self._due_s = -float("inf")
        self._valid_loss: float | None = None

    def __call__(self, record: Record) -> None:
        """Tell of a step, or not."""
        found = record.valid_loss is not None
        self._valid_loss = record.valid_loss if found else self._valid_loss
        said = list(events(record))
        if found or record.step == record.steps or self._clock() >= self._due_s:
            said.insert(0, line(record, self._valid_loss))
            self._due_s = self._clock() + self._every_s
        if said:
            self._say("\n".join(said))

    def leave(self, text: str) -> None:
        """Leave a line behind."""
        self._say(text)


class LiveLine:
    """Keeps one line of a terminal up to date, and leaves lines behind for what is to stay."""

    def __init__(self, stream: TextIO, *, width: int | None = None) -> None:
        """Write to the terminal `stream`; colours as `rich` finds them, and ``NO_COLOR`` asks.

        Args:
            stream: The terminal.
            width: Its columns; None to ask it each time.
        """
        self._console = Console(file=stream, highlight=False, width=width, soft_wrap=True)
        self._valid_loss: float | None = None

    def __call__(self, record: Record) -> None:
        """Tell of a step."""
        if record.valid_loss is not None:
            self._valid_loss = record.valid_loss
        room = self._console.width - 1
        for event in events(record):
            self._print(Text(event, style="dim"), room, end="\n")
        head, *rest = cells(record, self._valid_loss)
        tail = fitted(rest, room - len(head) - 2)
        left = min(_BAR, room - len(head) - len(tail) - 4)
        text = Text(head)
        if left >= _SHORTEST_BAR:
            text.append("  ").append(bar(record.step / record.steps, left), style="cyan")
        text.append(f"  {tail}")
        stays = record.valid_loss is not None or record.step == record.steps
        self._print(text, room, end="\n" if stays else "\r")

    def leave(self, text: str) -> None:
        """Leave a line behind."""
        self._print(Text(text, style="dim"), self._console.width - 1, end="\n")

    def _print(self, text: Text, room: int, *, end: str) -> None:
        """Print over the line as it is; a return leaves the cursor where the next begins."""
        text.truncate(room, pad=True)
        self._console.print(text, end=end, no_wrap=True, overflow="crop", crop=False)
        self._console.file.flush()


def progress(stream: TextIO) -> LiveLine | Lines:
    """Give what tells of progress on `stream`: a live line on a terminal, lines elsewhere."""
    if stream.isatty():
        return LiveLine(stream)
    return Lines(lambda text: print(text, file=stream, flush=True))
