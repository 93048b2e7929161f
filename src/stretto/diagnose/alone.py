"""What the cells of a step would have taken with nothing beside them.

A compute is slower beside messages, and a message beside computes and beside others that take the
same port: at the paces of `simulate.play`. To compare a step with another in which other things ran
beside each other these must be taken out, or a slow link would look like a slow device.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stretto.cost.instruction import Message, hidden_rate
from stretto.diagnose.constant import Sites
from stretto.diagnose.net import Net
from stretto.diagnose.replay import Bools, Parts
from stretto.program.instruction import Role
from stretto.timeline.value import Floats, Ints

Way = tuple[int, int, float]
"""The ports that a message takes, out of its rank and into it, and at which rate it moves beside a
compute. A level of links has two ports."""


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """What the cells of a program do to those beside them.

    Attributes:
        ways: The ways that messages go.
        way: Of each cell an index into `ways`; -1 on a device.
        contention: Share of a hidden message's time that it takes from the compute beside it.
    """

    ways: tuple[Way, ...]
    way: Ints
    contention: float

    @property
    def messages(self) -> Bools:
        """Whether a cell is a message."""
        return self.way >= 0


def beside(web: Net, sites: Sites) -> Beside:
    """Give what the cells of a program do to those beside them."""
    ways: dict[Way, int] = {}
    way = np.full(len(web.rank), -1)
    for node in web.nodes:
        if node.lane is None:
            continue
        role = node.work.role if isinstance(node.work, Message) else Role.ACTIVATION
        hides, levels = hidden_rate(role, sites.stack), sites.levels(node.ranks)
        for level in np.unique(levels).tolist():
            out, into = 2 * level, 2 * level + 1
            cells = node.cells[levels == level]
            if node.lane.way in ("to", "from"):  # sender and receiver take one direction each
                way[cells[:, 0]] = ways.setdefault((out, out, hides), len(ways))
                way[cells[:, 1]] = ways.setdefault((into, into, hides), len(ways))
            else:
                way[cells] = ways.setdefault((out, into, hides), len(ways))
    return Beside(tuple(ways), way, float(sites.stack.contention))


def alone_s(web: Net, taken: Parts, what: Beside, *, weight: Floats | None = None) -> Floats:
    """Give the seconds that every cell of a step would have taken with nothing beside it.

    Args:
        web: The tasks of its program.
        taken: The step.
        what: What cells do to those beside them.
        weight: Of each cell how much it slows computes beside it, where that is not 1.
    """
    found = np.zeros(len(taken.row))
    weight = np.ones(len(taken.row)) if weight is None else weight
    edges = np.append(np.flatnonzero(np.diff(web.rank, prepend=-1)), len(web.rank))
    known = taken.known
    for a, b in pairwise(edges.tolist()):
        if known[a]:
            found[a:b] = _of_rank(taken, what, slice(a, b), weight[a:b])
    for node in web.nodes:
        if node.lane is not None:  # as slow as on the slowest
            mine = np.where(known[node.cells], found[node.cells], np.inf)
            found[node.cells] = mine.min(axis=1, keepdims=True)
    return np.where(np.isfinite(found), found, 0.0)


def _of_rank(taken: Parts, what: Beside, cells: slice, weight: Floats) -> Floats:
    """Give them for a rank: paces are constant between two moments at which anything changes."""
    start, way = taken.start_s[cells], what.way[cells]
    stop = np.maximum(taken.stop_s[cells], start)
    times, at = np.unique(np.concatenate([start, stop]), return_inverse=True)
    first, last = at[: len(start)], at[len(start) :]

    def under_way(rows: Ints, amount: Floats) -> Floats:
        """Add up amounts from when rows begin until they end."""
        more, less = (
            np.bincount(moments[rows], amount[rows], minlength=len(times))
            for moments in (first, last)
        )
        total: Floats = np.cumsum(more - less)
        return total

    ones = np.ones(len(start))
    computes = np.flatnonzero(way < 0)
    busy = under_way(computes, ones) > 0.5
    flights = [(what.ways[i], np.flatnonzero(way == i)) for i in np.unique(way[way >= 0]).tolist()]
    load: dict[int, Floats] = {}
    for (out, into, _), rows in flights:
        there = under_way(rows, ones)
        for port in {out, into}:
            load[port] = load.get(port, 0.0) + there
    shares = [np.maximum(1.0, np.maximum(load[out], load[into])) for (out, into, _), _ in flights]
    hidden = np.zeros(len(times))
    for ((_, _, hides), rows), share in zip(flights, shares, strict=True):
        hidden += hides * under_way(rows, weight) / share
    speed = 1 / (1 + what.contention * hidden)
    width, done = np.diff(times, append=times[-1:]), np.zeros(len(start))

    def at_pace(rows: Ints, pace: Floats) -> None:
        total = np.append(0.0, np.cumsum(pace * width))
        done[rows] = total[last[rows]] - total[first[rows]]

    at_pace(computes, speed)
    for ((_, _, hides), rows), share in zip(flights, shares, strict=True):
        at_pace(rows, np.where(busy, hides * speed, 1.0) / share)
    return done
