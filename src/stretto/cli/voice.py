"""What is said to people, and kept in the log of a run."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TextIO

from stretto.cli.rundir import refusing


class Voice:
    """Prints, and keeps what is printed in the log of the run once there is one."""

    def __init__(self, stack: contextlib.ExitStack, log: Path | None, *, silent: bool) -> None:
        """Begin with nothing said.

        Args:
            stack: Closes the log in the end.
            log: Where it will be; None for none.
            silent: Whether to say nothing at all: another rank does.
        """
        self._stack, self._log, self._silent = stack, log, silent
        self._said: list[str] = []
        self._file: TextIO | None = None

    def __call__(self, text: str) -> None:
        """Print a text, and keep it."""
        if self._silent:
            return
        with contextlib.suppress(BrokenPipeError):  # a run goes on when nobody watches
            print(text, flush=True)
        self.note(text)

    def note(self, text: str) -> None:
        """Keep a text in the log without printing it."""
        if self._file is None:
            self._said.append(text)
        else:
            self._file.write(text + "\n")
            self._file.flush()

    def open(self) -> None:
        """Begin to write the log, with what was said so far."""
        if self._log is not None:
            with refusing(self._log):
                self._file = self._stack.enter_context(self._log.open("a", encoding="utf-8"))
                self._file.write("".join(f"{text}\n" for text in self._said))
                self._file.flush()
