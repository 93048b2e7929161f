"""Who is told of every step of a run: its files, TensorBoard, its log, and the screen."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from stretto.cli.rundir import RunDirectory, refusing
from stretto.report.doubt import Doubt
from stretto.report.metrics import Board, JsonLines
from stretto.report.progress import Lines, progress

if TYPE_CHECKING:
    from stretto.runtime.train import Record


def logged(run: RunDirectory, text: str) -> None:
    """Add a text to the log of a run.

    Raises:
        MachineError: The disk refuses.
    """
    with refusing(run.log), run.log.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


class Audience:
    """Tells of every step, and beside it of what was predicted."""

    def __init__(self, run: RunDirectory, *, predicted_s: float | None, hints: bool) -> None:
        """Begin with nothing told.

        Args:
            run: The run.
            predicted_s: What a step is predicted to take; None for no prediction.
            hints: Whether to say, once, what to do where it takes something else for a while.
        """
        self._run, self._predicted_s = run, predicted_s
        self._doubt = Doubt(run.path) if hints else None
        self._begun = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        board = self._stack.enter_context(Board(self._run.path))
        self._lines = Lines(lambda text: logged(self._run, text))
        self._screen = progress(sys.stdout)
        self._on_disk = JsonLines(self._run.metrics), board, self._lines
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, record: Record) -> None:
        """Tell of a step.

        Raises:
            MachineError: The disk refuses.
        """
        record = replace(record, predicted_s=self._predicted_s)
        hint = self._doubt(record) if self._doubt else None
        if not self._begun:
            self._run.went_on(record.step - 1)
            self._begun = True
        with refusing(self._run.path):
            for sink in self._on_disk:
                sink(record)
        with contextlib.suppress(BrokenPipeError):  # a run goes on when nobody watches
            self._screen(record)
        if hint is not None:
            self._lines.leave(hint)
            with contextlib.suppress(BrokenPipeError):
                self._screen.leave(hint)
