"""Where ranks stop in a step that does not end, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stretto.program.instruction import Free, Program
from stretto.program.render import label
from stretto.simulate.fault import Fault, Halt
from stretto.timeline.rows import after_vote
from stretto.timeline.value import HEADS, Timeline


@dataclass(frozen=True, slots=True)
class Stopped:
    """A rank that stops.

    Attributes:
        rank: Which.
        how: A ``crash`` or a ``hang``.
        instruction: Index of what it does not begin any more; what only frees buffers is passed
            over.
        name: What that is.
        count: How many instructions the rank has.
        at_s: When it has done all before it; None if it never comes there.
    """

    rank: int
    how: str
    instruction: int
    name: str
    count: int
    at_s: float | None

    @property
    def verb(self) -> str:
        """What happens to the rank."""
        return "dies" if self.how == "crash" else "hangs"


def stopped(line: Timeline, program: Program, *, faults: Sequence[Fault]) -> tuple[Stopped, ...]:
    """Give the ranks that stop in a step that was played; of several stops of one, the first."""
    halts = sorted((f for f in faults if isinstance(f, Halt)), key=lambda f: -f.at)
    return tuple(
        _stopped(line, program, halt) for _, halt in sorted({f.rank: f for f in halts}.items())
    )


def _stopped(line: Timeline, program: Program, halt: Halt) -> Stopped:
    stage = program.of(halt.rank)
    count, first = len(stage.instructions), after_vote(stage)
    player = next(p for p, ranks in enumerate(line.alike) if halt.rank in ranks)
    rows = np.arange(*np.searchsorted(line.player, (player, player + 1)))
    before = (line.instruction[rows] - first) % count < (halt.at - first) % count
    own = rows[before & (line.instruction[rows] >= 0) & np.isin(line.kind[rows], HEADS)]
    at_s = float(line.stop_s[own].max(initial=0.0))
    listed = enumerate(stage.instructions[halt.at :], start=halt.at)
    at = next((i for i, one in listed if not isinstance(one, Free)), halt.at)
    name, reached = label(program, stage, stage.instructions[at]), np.isfinite(at_s)
    return Stopped(halt.rank, halt.how, at, name, count, at_s if reached else None)
