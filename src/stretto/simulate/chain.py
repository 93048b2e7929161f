"""A graph of tasks with what stands in a row as one, for those that plan on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stretto.simulate.graph import Floats, Graph
from stretto.simulate.symmetry import Ints


@dataclass(frozen=True, slots=True, eq=False)
class Chains:
    """Tasks in rows: of each row only the first waits for others, and only the last is waited for.

    Attributes:
        chain: Of each task its row.
        player: Of each row the player whose device works in it; -1 if none does.
        taken_s: Seconds that a row took.
        clocked_s: Those of them that a device's clock decides, at the highest.
        floor_s: Before which it cannot be done, for its host.
        before: Of every edge between rows the one that must be done first.
        after: Of every edge the one that waits.
    """

    chain: Ints
    player: Ints
    taken_s: Floats
    clocked_s: Floats
    floor_s: Floats
    before: Ints
    after: Ints


def chains(graph: Graph, *, clocked_s: Floats, taken_s: Floats) -> Chains:
    """Give the rows of a graph.

    Args:
        graph: The tasks.
        clocked_s: Of each task, the seconds that its device's clock decides.
        taken_s: Of each, the seconds that it took.
    """
    count = len(graph.device)
    before: list[set[int]] = [set() for _ in range(count)]
    for first, then in zip(graph.before.tolist(), graph.after.tolist(), strict=True):
        before[then].add(first)
    needed = [those - _implied(those, before) for those in before]
    waiters = np.zeros(count, dtype=np.int64)
    for those in needed:
        waiters[list(those)] += 1
    device = np.where(clocked_s > 0, graph.device, -1).tolist()
    chain, player = [-1] * count, list[int]()
    for task in _in_order(needed):
        (ahead, *more) = needed[task] or (-1,)
        joined = ahead >= 0 and not more and waiters[ahead] == 1
        row = chain[ahead] if joined else -1
        if row >= 0 and -1 not in (player[row], device[task]) and player[row] != device[task]:
            row = -1
        if row < 0:
            row = len(player)
            player.append(-1)
        chain[task] = row
        player[row] = max(player[row], device[task])
    rows = np.array(chain, dtype=np.int64)
    pairs = {
        (chain[first], chain[then])
        for then, those in enumerate(needed)
        for first in those
        if chain[first] != chain[then]
    }
    edges = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    floor = np.zeros(len(player))
    np.maximum.at(floor, rows, graph.floor_s)
    return Chains(
        rows,
        np.array(player, dtype=np.int64),
        _summed(rows, taken_s),
        _summed(rows, clocked_s),
        floor,
        edges[:, 0],
        edges[:, 1],
    )


def _summed(rows: Ints, seconds: Floats) -> Floats:
    """Give the sum of seconds in each row."""
    found: Floats = np.zeros(int(rows.max()) + 1)
    np.add.at(found, rows, seconds)
    return found


def _implied(those: set[int], before: list[set[int]]) -> set[int]:
    """Give those of a task's predecessors that come before another of them anyway."""
    return {first for first in those for other in those if first in before[other]}


def _in_order(needed: list[set[int]]) -> list[int]:
    """Give all tasks, each after those that it needs."""
    after: list[list[int]] = [[] for _ in needed]
    left = [len(those) for those in needed]
    for then, those in enumerate(needed):
        for first in those:
            after[first].append(then)
    ready = [task for task, count in enumerate(left) if not count]
    for task in ready:
        for other in after[task]:
            left[other] -= 1
            if not left[other]:
                ready.append(other)
    return ready
