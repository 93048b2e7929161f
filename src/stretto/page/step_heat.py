"""Where the time of every rank goes, moment by moment: a step seen from afar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto.page.step_rows import SORTS, Floats, phases, sorts, stage_of
from stretto.program.instruction import Program
from stretto.timeline import Timeline
from stretto.timeline.usage import moments

CELLS = 1 << 20
"""The most cells that a page is given of a map, ranks times bins."""
BINS = 512
"""The most bins of time."""


@dataclass(frozen=True, slots=True, eq=False)
class Heat:
    """Seconds of every player, bin of time and sort; those of a bin sum to its length.

    Attributes:
        seconds: By player, bin and index into `SORTS`.
        bin_s: How long a bin is.
    """

    seconds: NDArray[np.float32]
    bin_s: float

    @property
    def dominant(self) -> NDArray[np.uint8]:
        """By player and bin: the sort that takes most, and in the high four bits its share."""
        top = self.seconds.argmax(axis=2)
        share = np.take_along_axis(self.seconds, top[:, :, None], axis=2)[:, :, 0]
        level = np.clip(np.rint(15 * share / self.bin_s), 0, 15) if self.bin_s else share * 0
        cells: NDArray[np.uint8] = (top | (level.astype(np.int64) << 4)).astype(np.uint8)
        return cells

    @property
    def usage(self) -> NDArray[np.float32]:
        """Seconds of every player and sort: they sum to the step."""
        total: NDArray[np.float32] = self.seconds.sum(axis=1, dtype=np.float64).astype(np.float32)
        return total


def bins(players: int) -> int:
    """Give into how many bins of time a step of so many players is cut."""
    return int(np.clip(CELLS // max(players, 1), 64, BINS))


def heat(line: Timeline, program: Program, *, until_s: float) -> Heat:
    """Give where the time of every player goes, until `until_s`."""
    players, count = len(line.alike), bins(len(line.alike))
    edges = np.linspace(0.0, until_s, count + 1)
    seconds = np.zeros((players, count, len(SORTS)), dtype=np.float32)
    stages = stage_of(program, line)
    devices = [phases(stage) for stage in program.stages]
    for player in range(players):
        at, since, until = moments(line, player)
        sort = sorts(devices[stages[player]], line.instruction[at], kind=line.kind[at])
        for one in np.unique(sort):
            mine = sort == one
            covered = _covered(since[mine], until[mine], edges)
            seconds[player, :, one] = np.diff(covered)
        rest = (until_s / count if count else 0.0) - seconds[player].sum(axis=1)
        seconds[player, :, SORTS.index("idle")] = np.maximum(rest, 0.0)
    return Heat(seconds, until_s / count)


def _covered(since: Floats, until: Floats, edges: Floats) -> Floats:
    """Give how much of the time before each edge is in spans that do not overlap."""
    order = np.argsort(since, kind="stable")
    since, until = since[order], until[order]
    before = np.append(0.0, np.cumsum(until - since))
    at = np.searchsorted(since, edges, side="right")
    last = np.maximum(at - 1, 0)
    inside = np.where(at > 0, np.clip(edges - since[last], 0.0, until[last] - since[last]), 0.0)
    covered: Floats = before[last] + inside
    return covered
