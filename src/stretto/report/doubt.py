"""Whether steps take what was predicted, while they are measured."""

from __future__ import annotations

import statistics
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from stretto.report.quantities import step

if TYPE_CHECKING:
    from stretto.runtime.train import Record

WHILE = 30
"""Steps of which the middle one counts."""

OFF = 1.25
"""How many times longer or shorter than predicted it must be to be told of."""

_TEXT = (
    "note: steps take {measured}, predicted {predicted}; `stretto calibrate {run}` learns from it"
)


class Doubt:
    """Says once that steps have taken much longer or shorter than predicted for a while."""

    def __init__(self, run: Path) -> None:
        """Begin with nothing measured.

        Args:
            run: The directory of the run.
        """
        self._run = run
        self._steps: deque[float] | None = deque(maxlen=WHILE)

    def __call__(self, record: Record) -> str | None:
        """Take note of a step; give what there is to say."""
        predicted, steps = record.predicted_s, self._steps
        if predicted is None or steps is None:
            return None
        steps.append(record.step_s)
        middle = statistics.median(steps)
        if len(steps) < WHILE or predicted / OFF <= middle <= predicted * OFF:
            return None
        self._steps = None
        words = {"measured": step(middle), "predicted": step(predicted), "run": self._run}
        return _TEXT.format(**words)
