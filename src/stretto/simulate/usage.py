"""Where the time of a rank goes in a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stretto.simulate.graph import Floats
from stretto.simulate.symmetry import Ints
from stretto.simulate.timeline import KINDS, Timeline


@dataclass(frozen=True, slots=True)
class Usage:
    """Where the time of a rank goes; its parts sum to the step.

    Attributes:
        rank: Which.
        busy_s: Its device works, contention included.
        exposed_s: It waits while a message is under way, by the kind of the message.
        bubble_s: It waits while none is: for other ranks.
    """

    rank: int
    busy_s: float
    exposed_s: Mapping[str, float]
    bubble_s: float

    @property
    def step_s(self) -> float:
        """The step."""
        return self.busy_s + sum(self.exposed_s.values()) + self.bubble_s


def usages(line: Timeline) -> tuple[Usage, ...]:
    """Give where the time of every rank that is played goes, in a step that ends."""
    return tuple(_usage(line, player) for player in range(len(line.alike)))


def _usage(line: Timeline, player: int) -> Usage:
    rows = np.flatnonzero(line.player == player)
    kinds = [KINDS.index(kind) for kind in ("device", "vote")]
    heads = _in_order(line, rows[np.isin(line.kind[rows], kinds)])  # what waits for messages
    since, until = np.append(0.0, line.stop_s[heads[:-1]]), line.start_s[heads]
    exposed = dict.fromkeys(KINDS[2:], 0.0)
    waiting = (until > since) & (line.player[line.cause[heads]] == player)
    cause, since, until = line.cause[heads][waiting], since[waiting], until[waiting]
    for stream in np.unique(line.stream[cause]):
        queue = _in_order(line, rows[line.stream[rows] == stream])
        under_way = _covered(line, queue, until) - _covered(line, queue, since)
        for kind in np.unique(line.kind[cause[line.stream[cause] == stream]]):
            mine = (line.stream[cause] == stream) & (line.kind[cause] == kind)
            exposed[KINDS[kind]] += float(under_way[mine].sum())
    taken = line.stop_s[heads] - line.start_s[heads]
    busy = float(taken[line.kind[heads] == kinds[0]].sum())
    exposed["vote"] += float(taken[line.kind[heads] == kinds[1]].sum())
    bubble = line.step_s - busy - sum(exposed.values())
    return Usage(line.alike[player][0], busy, exposed, max(0.0, bubble))


def _in_order(line: Timeline, rows: Ints) -> Ints:
    return rows[np.argsort(line.start_s[rows], kind="stable")]


def _covered(line: Timeline, rows: Ints, times_s: Floats) -> Floats:
    """Give for how long before each time one of `rows` was under way; they do not overlap."""
    start, stop = line.start_s[rows], line.stop_s[rows]
    total = np.append(0.0, np.cumsum(stop - start))
    begun = np.searchsorted(start, times_s, side="right")
    beyond = np.where(begun > 0, np.maximum(stop[begun - 1] - times_s, 0.0), 0.0)
    return total[begun] - beyond
