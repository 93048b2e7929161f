"""A measured step beside a predicted one of the same program: what took longer, and where.

What a row takes itself is compared: a compute from when it began, a message from when the last of
its ranks had come. Waiting for others is nobody's extra time, but theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stretto.diagnose.net import Net, net
from stretto.diagnose.replay import Bools, Parts, parts
from stretto.diagnose.unseen import most_s, seen
from stretto.errors import InputError, Problem
from stretto.program.instruction import Program
from stretto.program.render import label
from stretto.timeline.value import Floats, Timeline


@dataclass(frozen=True, slots=True)
class Costly:
    """An instruction that took longer than predicted.

    Attributes:
        rank: Whose.
        instruction: Its index in the rank's list.
        label: What it is.
        start_s: When it began, in the measured step.
        predicted_s: What it was to take.
        measured_s: What it took.
        critical: Whether it is on the critical path of the measured step.
        row: Its first row in the measured step.
    """

    rank: int
    instruction: int
    label: str
    start_s: float
    predicted_s: float
    measured_s: float
    critical: bool
    row: int

    @property
    def extra_s(self) -> float:
        """How much longer it took."""
        return self.measured_s - self.predicted_s


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Two steps of a program, row beside row.

    Attributes:
        program: The program.
        predicted: What was to be.
        measured: What was.
        web: The tasks of all ranks.
        expected: The predicted step taken apart.
        taken: The measured step taken apart.
        sure: Of each cell whether it is known what it took.
        predicted_s: Of each measured row what it was to take; 0 of what is of no instruction.
        measured_s: Of each what it took; most likely, where nobody saw its end.
        critical: Of each whether it is on the critical path of the measured step.
    """

    program: Program
    predicted: Timeline
    measured: Timeline
    web: Net
    expected: Parts
    taken: Parts
    sure: Bools
    predicted_s: Floats
    measured_s: Floats
    critical: Bools

    @property
    def extra_s(self) -> Floats:
        """Of each measured row how much longer it took."""
        return self.measured_s - self.predicted_s

    def top(self, n: int = 5) -> tuple[Costly, ...]:
        """Give the instructions that cost the most extra time: first those that the step is of."""
        listed = self.measured.instruction >= 0
        rank, line = self.measured.rank, self.measured
        keys = np.stack([line.player, line.instruction], axis=1)
        rows = np.flatnonzero(listed)
        some, at = np.unique(keys[rows], axis=0, return_inverse=True)
        at = at.ravel()
        extra, was, now = (
            np.bincount(at, c[rows], minlength=len(some))
            for c in (self.extra_s, self.predicted_s, self.measured_s)
        )
        matters = np.bincount(at, self.critical[rows], minlength=len(some)) > 0
        first = rows[np.unique(at, return_index=True)[1]]
        order = np.lexsort((-extra, ~matters))
        found = []
        for i in order[:n].tolist():
            if extra[i] <= 0:
                break
            row = int(first[i])
            stage = self.program.of(int(rank[row]))
            index = int(line.instruction[row])
            found.append(
                Costly(
                    int(rank[row]), index, label(self.program, stage, stage.instructions[index]),
                    float(line.start_s[row]), float(was[i]), float(now[i]), bool(matters[i]), row,
                )
            )  # fmt: skip
        return tuple(found)


def compare(predicted: Timeline, measured: Timeline, *, program: Program) -> Comparison:
    """Put a measured step beside a predicted one.

    Args:
        predicted: What was to be, of all ranks.
        measured: What was, of all ranks or of some.
        program: What both are of.

    Raises:
        InputError: One does not end, or they are of another program.
    """
    problems = [*_problems(predicted, "predicted"), *_problems(measured, "measured")]
    if problems:
        raise InputError(problems)
    web = net(program)
    expected, taken = parts(web, predicted), parts(web, measured)
    sure = seen(web, measured, taken=taken, expected=expected)
    if not sure[taken.known].all():
        most = most_s(web, taken=taken, expected=expected, seen=sure)
        taken = parts(web, measured, most_s=most)
    was, now = np.zeros(len(measured.kind)), measured.stop_s - measured.start_s
    mine = np.flatnonzero(taken.known & expected.known)
    was[taken.row[mine]] = expected.own_s[mine]
    now[taken.row[mine]] = taken.own_s[mine]
    path = np.zeros(len(was), dtype=bool)
    path[measured.critical()] = True
    return Comparison(program, predicted, measured, web, expected, taken, sure, was, now, path)


def _problems(line: Timeline, name: str) -> list[Problem]:
    if line.finished:
        return []
    rule = "the step does not end"
    return [Problem(name, rule, "compare steps that end; `waits` says who waits for whom")]
