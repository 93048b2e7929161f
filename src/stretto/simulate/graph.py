"""The tasks of every kind of rank joined into one graph, priced."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto.cost.instruction import Message
from stretto.program.instruction import Compute, Role, Update
from stretto.simulate.site import Site
from stretto.simulate.symmetry import Ints, alike, grouped, shifted
from stretto.simulate.task import DEVICE, Lane, Tasks, Work, after_vote, tasks

Floats = NDArray[np.float64]

End = tuple[int, int, int]
"""A player in a message, and which of its ports that takes: out of it, and into it."""


@dataclass(frozen=True, slots=True, eq=False)
class Player:
    """One rank for all that are alike.

    Attributes:
        ranks: Those that are alike; the first is the one that is played.
        tasks: Its tasks.
        place: Where each of them is in the graph.
        partners: For each lane the ranks between which its messages go, the sender first.
        halts: The task from which on it does nothing; how many there are if it never halts.
        crashes: Whether messages under way are lost then.
    """

    ranks: tuple[int, ...]
    tasks: Tasks
    place: Ints
    partners: tuple[tuple[int, ...], ...]
    halts: int
    crashes: bool


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Tasks, what they take, and what they wait for. A message between players is one task.

    Attributes:
        players: Who plays.
        device: The player whose device a task keeps busy; -1 for a message.
        work_s: What it takes alone.
        floor_s: When the host is done with starting it, at the earliest.
        hides: At which rate a message moves beside a compute.
        ends: Who takes part in a message.
        before: Of every edge the task that must be done first.
        after: Of every edge the task that waits.
        ports: The number of ports of a player.
    """

    players: tuple[Player, ...]
    device: Ints
    work_s: Floats
    floor_s: Floats
    hides: Floats
    ends: list[tuple[End, ...]]
    before: Ints
    after: Ints
    ports: int


def graph(site: Site) -> Graph:
    """Give the graph of a step from vote to vote."""
    return _Joiner(site).join()


class _Joiner:
    """A graph while it is being made."""

    def __init__(self, site: Site) -> None:
        self.site, self.mesh = site, site.program.placement.mesh
        self.lists = [tasks(site.program, stage) for stage in site.program.stages]
        axes = {lane.axes for one in self.lists for lane in one.lanes if lane.way == "group"}
        self.kind = alike(self.mesh, sorted(axes), marks=self._marks(sorted(axes)))
        self.everyone = tuple(range(self.mesh.size))
        self.count = 0
        self.queues: dict[Hashable, Ints] = {}
        self.edges: list[tuple[Ints, Ints]] = []

    def _marks(self, axes: Sequence[tuple[str, ...]]) -> list[Hashable]:
        """Give what tells each rank from others: what it runs on, and how far its partners are."""
        ranks = np.arange(self.mesh.size)
        far = [
            self.site.levels(np.stack([ranks, shifted(self.mesh, by)], axis=1)) for by in (1, -1)
        ]
        for names in axes:
            groups = grouped(self.mesh, names)
            far.append(np.empty_like(ranks))
            far[-1][groups] = self.site.levels(groups)[:, None]
        columns = np.stack(far, axis=1).tolist()
        return [(mark, *row) for mark, row in zip(self.site.marks, columns, strict=True)]

    def join(self) -> Graph:
        """Add a player for each kind of rank, then price what each does."""
        sizes = np.bincount(self.kind)
        kinds = np.split(np.argsort(self.kind, kind="stable"), np.cumsum(sizes)[:-1])
        players = tuple(self._player(tuple(ranks.tolist())) for ranks in kinds)
        before, after = (np.concatenate(side) for side in zip(*self.edges, strict=True))
        priced = _Priced(self.site, self.count)
        for number, player in enumerate(players):
            priced.add(number, player)
        return Graph(
            players,
            priced.device,
            priced.work_s,
            priced.floor_s,
            priced.hides,
            priced.ends,
            before,
            after,
            2 * len(self.site.links),
        )

    def _player(self, ranks: tuple[int, ...]) -> Player:
        """Give every task of a rank its place; a message that another has placed is the same."""
        rank = ranks[0]
        listed = self.lists[self.site.program.of(rank).stage]
        lanes = np.array(listed.lane, dtype=np.int64)
        place = np.empty(len(lanes), dtype=np.int64)
        place[lanes == DEVICE] = self._new(int((lanes == DEVICE).sum()))
        partners = tuple(self._partners(rank, lane) for lane in listed.lanes)
        for i, (lane, others) in enumerate(zip(listed.lanes, partners, strict=True)):
            key, count = self._key(lane, others), int((lanes == i).sum())
            if key not in self.queues:
                queue = self.queues[key] = self._new(count)
                self.edges.append((queue[:-1], queue[1:]))
            assert len(self.queues[key]) == count, "ranks differ in the messages that they share"
            place[lanes == i] = self.queues[key]
        self.edges.append((place[listed.before], place[listed.after]))
        halt = self.site.halts.get(rank)
        stop = len(place) if halt is None else _task_at(listed, halt.at)
        crashes = halt is not None and halt.how == "crash"
        return Player(ranks, listed, place, partners, stop, crashes)

    def _new(self, count: int) -> Ints:
        self.count += count
        return np.arange(self.count - count, self.count)

    def _partners(self, rank: int, lane: Lane) -> tuple[int, ...]:
        match lane.way:
            case "group":
                return self.mesh.group(rank, lane.axes)
            case "to":
                return rank, self.mesh.shift(rank, "pp", by=lane.by)
            case "from":
                return self.mesh.shift(rank, "pp", by=lane.by), rank
            case "all":
                return self.everyone

    def _key(self, lane: Lane, partners: tuple[int, ...]) -> Hashable:
        """Give what the lanes of several players have in common if they are one queue."""
        match lane.way:
            case "group":
                return lane.axes, frozenset(self.kind[list(partners)].tolist())
            case "to" | "from":
                return tuple(self.kind[list(partners)].tolist())
            case "all":
                return "all"


def _task_at(tasks: Tasks, instruction: int) -> int:
    """Give the first task of an instruction, or the first after it."""
    first, count = after_vote(tasks.stage), len(tasks.stage.instructions)
    order = (np.array(tasks.instruction, dtype=np.int64) - first) % count
    return int(np.searchsorted(order, (instruction - first) % count))


class _Priced:
    """What the tasks of a graph take."""

    def __init__(self, site: Site, count: int) -> None:
        self.site = site
        self.device = np.full(count, -1, dtype=np.int64)
        self.work_s, self.floor_s, self.hides = (np.zeros(count) for _ in range(3))
        self.ends: list[tuple[End, ...]] = [()] * count

    def add(self, number: int, player: Player) -> None:
        """Price what a player does."""
        works = player.tasks.works
        work, lane = (np.array(c, dtype=np.int64) for c in (player.tasks.work, player.tasks.lane))
        mine = lane == DEVICE
        place, rank, stage = player.place[mine], player.ranks[0], player.tasks.stage
        taken, host = np.zeros(len(works)), np.zeros(len(works))
        for i, what in enumerate(works):
            if isinstance(what, Compute | Update):
                taken[i] = self.site.work_s(what, stage, rank=rank)
                host[i] = self.site.host_s(what, rank=rank)
        self.device[place] = number
        self.work_s[place] = taken[work[mine]]
        self.floor_s[place] = np.cumsum(host[work[mine]])
        for i in range(len(player.partners)):
            mine = lane == i
            for j in np.unique(work[mine]):
                self._messages(number, player, i, works[j], player.place[mine & (work == j)])

    def _messages(self, number: int, player: Player, lane: int, work: Work, place: Ints) -> None:
        """Price messages of a player that are alike."""
        partners = player.partners[lane]
        level = int(self.site.levels(np.array([partners]))[0])
        match player.tasks.lanes[lane].way:
            case "to":
                end = (number, 2 * level, 2 * level)
            case "from":
                end = (number, 2 * level + 1, 2 * level + 1)
            case "group" | "all":
                end = (number, 2 * level, 2 * level + 1)
        for task in place.tolist():
            self.ends[task] = (*self.ends[task], end)
        if isinstance(work, Message):
            seconds = self.site.message_s(work, partners)
            self.work_s[place] = np.maximum(self.work_s[place], seconds)
            self.hides[place] = self._hides(work)

    def _hides(self, message: Message) -> float:
        """Give the rate at which a message moves beside a compute."""
        stack = self.site.stack
        match message.role:
            case Role.GRADIENT:
                return min(1.0, float(stack.data_overlap))
            case Role.WORKING | Role.PARAMETER:
                return min(1.0, float(stack.gather_overlap))
            case _:
                return 1.0
