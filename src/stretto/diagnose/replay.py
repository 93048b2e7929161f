"""A timeline taken apart, and played again with other times: what a step would have been, if.

Every cell of a step is a wait, a gap that is its rank's own (data, or the host), a lag that nothing
explains, and the time that it takes itself. With these the step plays again to the second, so what
one of them costs is the difference to a step without it: what-if analysis (Lin et al., 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto.diagnose.net import Net
from stretto.simulate.task import Tasks
from stretto.timeline.value import KINDS, Floats, Ints, Timeline

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A step taken apart, in seconds of each cell.

    Attributes:
        row: Its row in the timeline; -1 where its rank was not recorded.
        start_s: When it begins: a message, when the last of its ranks has come.
        stop_s: When it is done.
        own_s: What it takes from then on.
        data_s: How long its rank, ready for it, waited for micro-batches.
        host_s: How long its rank, ready for it, was kept by its host.
        lag_s: How long after all that it waited for it began; below 0 if before.
    """

    row: Ints
    start_s: Floats
    stop_s: Floats
    own_s: Floats
    data_s: Floats
    host_s: Floats
    lag_s: Floats

    @property
    def known(self) -> Bools:
        """Whether the rank of a cell was recorded."""
        return self.row >= 0


def parts(web: Net, line: Timeline, *, most_s: Floats | None = None) -> Parts:
    """Take a timeline apart.

    Args:
        web: The tasks of its program.
        line: A step that ends.
        most_s: Of each cell what it took at most, where that is not what the timeline says.
    """
    row = _rows(web, line)
    known = row >= 0
    start, stop = (np.where(known, column[row], -np.inf) for column in (line.start_s, line.stop_s))
    for node in web.nodes:
        begun = start[node.cells].max(axis=1, keepdims=True)
        start[node.cells] = np.where(known[node.cells], begun, -np.inf)
    if most_s is not None:
        stop = np.where(known, np.minimum(stop, start + most_s), -np.inf)
    ends = np.append(stop, 0.0)  # what waits for nothing waits for second 0
    data, host, lag = (np.zeros(len(row)) for _ in range(3))
    idle = [_Idle(line, kind) for kind in ("data", "host")]
    for node in web.nodes:
        begun = start[node.cells].max(axis=1, keepdims=True)
        ready = ends[node.before].max(axis=2, initial=0.0)
        until = np.maximum(begun, ready)
        for column, spent in zip((data, host), idle, strict=True):
            column[node.cells] = spent.between(node.ranks, ready, until)
        come = np.where(known[node.cells], ready + data[node.cells] + host[node.cells], -np.inf)
        come = come.max(axis=1, keepdims=True)
        if node.previous.size:
            come = np.maximum(come, ends[node.previous].max(axis=1, keepdims=True))
        with np.errstate(invalid="ignore"):
            late = begun - come
        lag[node.cells] = np.where(np.isfinite(late), late, 0.0)
    with np.errstate(invalid="ignore"):
        own = np.where(known, stop - start, 0.0)
    return Parts(row, start, stop, own, data, host, lag)


def replay(web: Net, taken: Parts) -> tuple[Floats, Floats]:
    """Give when every cell begins and ends if it takes as long as `taken` says."""
    start = np.full(len(taken.row), -np.inf)
    ends = np.append(start, 0.0)
    known = taken.known
    for node in web.nodes:
        cells = node.cells
        come = (
            ends[node.before].max(axis=2, initial=0.0) + taken.data_s[cells] + taken.host_s[cells]
        )
        come = np.where(known[cells], come, -np.inf).max(axis=1, keepdims=True)
        if node.previous.size:
            come = np.maximum(come, ends[node.previous].max(axis=1, keepdims=True))
        begun = np.where(known[cells], come + taken.lag_s[cells], -np.inf)
        start[cells] = begun
        ends[cells] = begun + taken.own_s[cells]
    return start, ends[:-1]


def step_s(web: Net, taken: Parts) -> float:
    """Give the seconds of a step that is played again."""
    return float(replay(web, taken)[1].max(initial=0.0))


def causes(web: Net, taken: Parts) -> Ints:
    """Give of each cell the one whose end it waited for; -1 for none.

    Of a step that nobody saw nor played it is what `Timeline.cause` is of others: of what a cell
    waited for that is what came last; of a message, what its last rank waited for.
    """
    ends, found = np.append(taken.stop_s, 0.0), np.full(len(taken.row) + 1, -1)
    for node in web.nodes:
        cells = node.cells
        known, idle = taken.known[cells], taken.data_s[cells] + taken.host_s[cells]
        come = np.where(known, ends[node.before].max(axis=2, initial=0.0) + idle, -np.inf)
        own = np.full(cells.shape, -1)
        if node.before.shape[2]:
            at = ends[node.before].argmax(axis=2)[..., None]
            own = np.take_along_axis(node.before, at, axis=2)[..., 0]
        last = come.argmax(axis=1)[:, None]
        ready = np.take_along_axis(come, last, axis=1)
        cause = np.where(come < ready, np.take_along_axis(own, last, axis=1), own)
        if node.previous.size:
            queued = ends[node.previous].max(axis=1, keepdims=True) >= ready
            cause = np.where(queued, node.previous, cause)
        found[cells] = np.where(cause < len(taken.row), cause, -1)
    return found[:-1]


def _rows(web: Net, line: Timeline) -> Ints:
    """Give for each cell its row; -1 where its rank is not in the timeline."""
    found = np.full(len(web.rank), -1)
    listed = np.flatnonzero(line.instruction >= 0)
    first = listed[np.searchsorted(line.player[listed], np.arange(len(line.alike)))]
    for player, ranks in enumerate(line.alike):
        place = _places(web.lists[web.stage(ranks[0])])
        for rank in ranks:
            at = web.first[rank]
            found[at : at + len(place)] = first[player] + place
    return found


def _places(listed: Tasks) -> Ints:
    """Give for each task its row among those of its rank, in the order of the list."""
    idle = [index for index, _ in listed.idle]
    order = np.argsort(np.array([*listed.instruction, *idle]), kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place[: len(listed.instruction)]


class _Idle:
    """How long each rank has done one kind of waiting up to each moment."""

    def __init__(self, line: Timeline, kind: str) -> None:
        rows = np.flatnonzero(line.kind == KINDS.index(kind))
        rank, start, stop = line.rank[rows], line.start_s[rows], line.stop_s[rows]
        self.lead = np.zeros(1 + max(r for ranks in line.alike for r in ranks), dtype=np.int64)
        for ranks in line.alike:
            self.lead[list(ranks)] = ranks[0]
        # The clocks of all ranks on one axis, a day's length apart: one table serves them all.
        self.day = 2.0 * max(line.step_s, float(line.stop_s.max(initial=0.0))) + 1.0
        order = np.lexsort((start, rank))
        edges = np.stack([start, stop], axis=1)[order] + (rank[order] * self.day)[:, None]
        self.edges = edges.ravel()
        self.spent = np.cumsum(np.stack([0.0 * start, stop - start], axis=1)[order].ravel())

    def between(self, ranks: Ints, since: Floats, until: Floats) -> Floats:
        """Give how much of it there was between two moments of each rank."""
        if not len(self.edges):
            return np.zeros(ranks.shape)
        first = self.lead[np.minimum(ranks, len(self.lead) - 1)] * self.day
        a, b = (np.interp(first + t, self.edges, self.spent, left=0.0) for t in (since, until))
        spent: Floats = b - a
        return spent
