"""What every rank of a program does in a step, and what waits for what: many ranks at a time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

import numpy as np

from stretto.program.instruction import Program
from stretto.simulate.symmetry import coordinate, grouped, shifted
from stretto.simulate.task import DEVICE, Lane, Tasks, Work, tasks
from stretto.timeline.value import Ints


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One task of a stage on all its ranks, or the messages between ranks that belong to it.

    Attributes:
        work: What is done.
        lane: The queue of the messages; None on a device.
        cells: A row for each message, a column for each rank in it; on a device, for each rank.
        ranks: The same as ranks.
        before: For each cell those that it waits for; one past the last cell stands for none.
        previous: For each message the cells of the one before it in its queue, if there is one.
    """

    work: Work
    lane: Lane | None
    cells: Ints
    ranks: Ints
    before: Ints
    previous: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Net:
    """All tasks of all ranks. A cell is one task of one rank.

    Cells are in the order of stages, of ranks, and of a step from vote to vote.

    Attributes:
        program: What is done.
        lists: The tasks of each stage.
        first: Of each rank its first cell.
        rank: Of each cell the rank.
        task: Of each cell the index of the task in its stage's list.
        nodes: Each after all that it waits for.
    """

    program: Program
    lists: tuple[Tasks, ...]
    first: Ints
    rank: Ints
    task: Ints
    nodes: tuple[Node, ...]

    def stage(self, rank: int) -> int:
        """Give the stage of a rank."""
        return self.program.of(rank).stage

    def instruction(self, cell: int) -> int:
        """Give the index of a cell's instruction in its rank's list."""
        return self.lists[self.stage(int(self.rank[cell]))].instruction[int(self.task[cell])]


def net(program: Program) -> Net:
    """Give the tasks of all ranks."""
    return _Weaver(program).weave()


class _Weaver:
    """A net while it is being made."""

    def __init__(self, program: Program) -> None:
        self.program, self.mesh = program, program.placement.mesh
        self.lists = tuple(tasks(program, stage) for stage in program.stages)
        self.stage = coordinate(self.mesh, "pp")
        self.ranks = [np.flatnonzero(self.stage == s) for s in range(len(self.lists))]
        lengths = np.array([len(one.instruction) for one in self.lists])
        self.first = np.zeros(self.mesh.size, dtype=np.int64)
        order = np.concatenate(self.ranks)
        self.first[order] = np.cumsum(np.append(0, lengths[self.stage[order]][:-1]))
        self.count = int(lengths[self.stage].sum())
        self.before = [_before(one) for one in self.lists]
        self.nth, self.last = zip(*(_queued(one) for one in self.lists), strict=True)

    def weave(self) -> Net:
        """Join what several stages share, and put everything in order."""
        parts: dict[Hashable, list[tuple[int, int]]] = {}
        of: dict[tuple[int, int], Hashable] = {}
        for s, listed in enumerate(self.lists):
            for t in range(len(listed.instruction)):
                of[s, t] = key = self._key(s, t)
                parts.setdefault(key, []).append((s, t))
        waits = {
            key: {
                of[s, b] for s, t in some for b in (*self.before[s][t], self.last[s][t]) if b >= 0
            }
            for key, some in parts.items()
        }
        rank, task = np.empty(self.count, dtype=np.int64), np.empty(self.count, dtype=np.int64)
        for s, listed in enumerate(self.lists):
            cells = self.first[self.ranks[s]][:, None] + np.arange(len(listed.instruction))
            rank[cells], task[cells] = self.ranks[s][:, None], np.arange(len(listed.instruction))
        order = TopologicalSorter(waits).static_order()
        nodes = tuple(self._node(parts[key]) for key in order)
        return Net(self.program, self.lists, self.first, rank, task, nodes)

    def _key(self, s: int, t: int) -> Hashable:
        """Give what the tasks of several stages have in common if they are one."""
        at = self.lists[s].lane[t]
        if at == DEVICE:
            return s, t
        lane, nth = self.lists[s].lanes[at], self.nth[s][t]
        match lane.way:
            case "group":
                return s, t
            case "to":
                return s, lane.by, nth, "sent"
            case "from":
                return (s + lane.by) % len(self.lists), -lane.by, nth, "sent"
            case "all":
                return "all", nth

    def _node(self, parts: Sequence[tuple[int, int]]) -> Node:
        s, t = min(parts, key=lambda part: self._way(*part) == "from")
        listed, ranks = self.lists[s], self.ranks[s]
        lane = None if listed.lane[t] == DEVICE else listed.lanes[listed.lane[t]]
        task, last = np.full((2, len(self.lists)), -1)
        for stage, at in parts:
            task[stage], last[stage] = at, self.last[stage][at]
        match lane:
            case None:
                members = ranks[:, None]
            case Lane(way="group", axes=axes):
                groups = grouped(self.mesh, axes)
                members = groups[self.stage[groups[:, 0]] == s]
            case Lane(way="to" | "from", by=by):
                members = np.stack([ranks, shifted(self.mesh, by)[ranks]], axis=1)
            case Lane():
                members = np.arange(self.mesh.size)[None]
        stages = self.stage[members]
        first = self.first[members]
        previous = first + last[stages] if (last[stages] >= 0).all() else first[:, :0]
        most = max(len(self.before[stage][at]) for stage, at in parts)
        before = np.full((*members.shape, most), self.count)
        for stage, at in parts:
            mine = stages == stage
            some = self.before[stage][at]
            before[mine, : len(some)] = first[mine][:, None] + np.array(some, dtype=np.int64)
        work = listed.works[listed.work[t]]
        return Node(work, lane, first + task[stages], members, before, previous)

    def _way(self, s: int, t: int) -> str:
        at = self.lists[s].lane[t]
        return "device" if at == DEVICE else self.lists[s].lanes[at].way


def _before(listed: Tasks) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in listed.instruction]
    for before, after in zip(listed.before, listed.after, strict=True):
        found[after].append(before)
    return found


def _queued(listed: Tasks) -> tuple[list[int], list[int]]:
    """Give for each task its number in its queue, and the one before it there or -1."""
    nth, last = [0] * len(listed.lane), [-1] * len(listed.lane)
    latest = dict.fromkeys(range(len(listed.lanes)), (-1, -1))
    for task, lane in enumerate(listed.lane):
        if lane != DEVICE:
            number, last[task] = latest[lane]
            nth[task] = number + 1
            latest[lane] = nth[task], task
    return nth, last
