"""What a rank's memory holds over a step, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from stretto.program.instruction import Compute, Program, Role, StageProgram, Update, Vote
from stretto.timeline.held import ROLES, changes, resting
from stretto.timeline.rows import after_vote
from stretto.timeline.value import Floats, Ints, Timeline

GROUPS: Mapping[Role, str] = MappingProxyType(
    {
        Role.PARAMETER: "parameters",
        Role.STATE: "optimizer",
        Role.GRADIENT: "gradients",
        Role.ACTIVATION: "activations",
        Role.GRAPH: "activations",
        Role.WORKING: "communication",
        Role.GIVEN: "other",
        Role.VERDICT: "other",
    }
)
"""What people call what a buffer holds; communication is what is gathered for use."""

NAMES = tuple(dict.fromkeys(GROUPS.values()))
"""The kinds of memory, the steadiest first."""


@dataclass(frozen=True, slots=True, eq=False)
class MemoryCurve:
    """What a rank's memory holds over a step; each value holds until the next time.

    Attributes:
        times_s: When it changes, ascending, from 0 on.
        held_bytes: By kind (`NAMES`) what is held from each of these times on.
        made: Of each time the index of the instruction that made the change; -1 for the beginning.
    """

    times_s: Floats
    held_bytes: Mapping[str, Ints]
    made: Ints

    @property
    def total_bytes(self) -> Ints:
        """All that is held from each time on."""
        total: Ints = np.stack(list(self.held_bytes.values())).sum(axis=0)
        return total

    @property
    def peak(self) -> int:
        """The index of the time from which on the most is held.

        A process keeps what it had, so that many are equal: then where most is of the program.
        """
        total = self.total_bytes
        most = np.flatnonzero(total == total.max())
        return int(most[(total - self.held_bytes["other"])[most].argmax()])


def curve(
    timeline: Timeline, program: Program, player: int, *, measured_bytes: Ints | None = None
) -> MemoryCurve:
    """Give what the memory of a rank holds over a step.

    A buffer is held from where the device has come when it is asked for to where it is freed, and
    what autograd keeps of a compute until its backward has run: see `held.changes`.

    Args:
        timeline: The step.
        program: What the ranks do.
        player: Whose memory: an index into `timeline.alike`.
        measured_bytes: Of each row of the timeline what the process or device held after it. What
            this is more than the program's buffers is "other": the interpreter, its libraries, and
            what an allocator keeps.
    """
    stage = program.of(timeline.alike[player][0])
    low, high = np.searchsorted(timeline.player, (player, player + 1)).tolist()
    rows = np.arange(low, high)[timeline.instruction[low:high] >= 0]
    first = np.unique(timeline.instruction[rows], return_index=True)[1]
    last = rows[np.append(first[1:], len(rows)) - 1]
    count, before = len(stage.instructions), after_vote(stage)
    order = np.roll(np.arange(count), -before)

    change = changes(program, stage)
    held = resting(program, stage) + change[:before].sum(axis=0)
    held = np.vstack([held, held + np.cumsum(change[order], axis=0)])
    told = np.append(True, change[order].any(axis=1))
    times = _reached(stage, timeline.start_s[rows[first]], timeline.stop_s[last], order)
    columns = {name: held[told][:, [GROUPS[r] == name for r in ROLES]].sum(1) for name in NAMES}
    if measured_bytes is not None:
        whole = measured_bytes[last][order]
        whole = np.append(whole[-1], whole)[told]  # before a step as after it
        rest = whole - np.sum(list(columns.values()), axis=0)
        columns["other"] = columns["other"] + np.maximum(rest, 0)
    return MemoryCurve(np.append(0.0, times)[told], columns, np.append(-1, order)[told])


def _reached(stage: StageProgram, start_s: Floats, stop_s: Floats, order: Ints) -> Floats:
    """Give for each instruction in `order` the second at which the device has come to it."""
    works = [isinstance(x, Compute | Update | Vote) for x in stage.instructions]
    begun, done = (np.where(works & np.isfinite(t), t, 0.0)[order] for t in (start_s, stop_s))
    earlier = np.append(0.0, np.maximum.accumulate(done)[:-1])
    reached: Floats = np.maximum(np.maximum.accumulate(begun), earlier)
    return reached
