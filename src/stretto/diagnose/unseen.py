"""Messages of recorded steps whose ends nobody saw, and what they took most likely.

A rank sees the end of a message when it waits for it. If it first does something else, it finds the
message there and does not know since when; if the message was there before the last rank had come,
it is not known what it took either. So of those only this is known: at most so long. What they took
is assumed to be what others took between the same ranks, of which the end was seen.
"""

from __future__ import annotations

import numpy as np

from stretto.diagnose.net import Net
from stretto.diagnose.replay import Bools, Parts
from stretto.timeline.value import HEADS, Floats, Timeline

NOTHING = 0.01
"""A message that takes a smaller share of what was predicted had come before it was asked for."""


def seen(web: Net, line: Timeline, *, taken: Parts, expected: Parts) -> Bools:
    """Give for each cell whether it is known what it took; of a simulated step that is all.

    Args:
        web: The tasks of the program.
        line: A step.
        taken: The same taken apart.
        expected: What was predicted.
    """
    known = taken.known
    if not line.measured:
        return known
    heads = np.flatnonzero(np.isin(line.kind, HEADS))
    ends = line.cause[heads]
    waited = np.zeros(len(line.kind) + 1, dtype=bool)
    waited[ends[(ends >= 0) & (line.player[ends] == line.player[heads])]] = True
    found = known & (taken.own_s > NOTHING * expected.own_s)
    for node in web.nodes:
        if node.lane is not None and node.lane.way != "all":
            any_of = waited[taken.row[node.cells]].any(axis=1, keepdims=True)
            found[node.cells] &= any_of
    return found


def most_s(web: Net, *, taken: Parts, expected: Parts, seen: Bools) -> Floats:
    """Give for each cell what it takes at most: what is likely, where it is not known.

    Args:
        web: The tasks of the program.
        taken: A step taken apart.
        expected: What was predicted.
        seen: Of which cells it is known what they took.
    """
    most = np.full(len(taken.row), np.inf)
    queues: dict[object, list[tuple[int, int]]] = {}
    for n, node in enumerate(web.nodes):
        if node.lane is not None:
            for i, ranks in enumerate(node.ranks.tolist()):
                queues.setdefault((node.lane.way, tuple(ranks)), []).append((n, i))
    for messages in queues.values():
        cells = [web.nodes[n].cells[i] for n, i in messages]
        first = np.array([c[0] for c in cells])
        clear = np.array([bool(seen[c].any()) for c in cells])
        was = expected.own_s[first]
        now = np.array([taken.own_s[c].max() for c in cells])
        usable = clear & (was > 0) & (now > 0)
        factor = float(np.median(now[usable] / was[usable])) if usable.any() else 1.0
        for c, told, expected_s in zip(cells, clear, was, strict=True):
            if not told:
                most[c] = factor * expected_s
    return most
