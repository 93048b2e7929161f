"""The tasks of every kind of rank joined into one graph, priced."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stretto.simulate.price import End, Floats, Listed, Priced, Queue, Traffic
from stretto.simulate.site import Site
from stretto.simulate.symmetry import Ints, alike, grouped, shifted
from stretto.simulate.task import Lane, Tasks, tasks
from stretto.timeline.rows import after_vote

__all__ = ["End", "Floats", "Graph", "Player", "Traffic", "graph"]


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
        traffic: What messages take of links between players, where those are played.
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
    traffic: Traffic | None = None


def graph(site: Site) -> Graph:
    """Give the graph of a step from vote to vote."""
    return _Joiner(site).join()


class _Joiner:
    """A graph while it is being made: first everything is given its place, then its price."""

    def __init__(self, site: Site) -> None:
        self.site, self.mesh = site, site.program.placement.mesh
        self.lists = [Listed.of(tasks(site.program, stage)) for stage in site.program.stages]
        lanes = [lane for one in self.lists for lane in one.tasks.lanes]
        axes = sorted({lane.axes for lane in lanes if lane.way == "group"})
        self.kind = alike(self.mesh, axes, marks=self._marks(axes))
        self.everyone = tuple(range(self.mesh.size))
        self.queues: dict[Hashable, Queue] = {}
        self.edges: list[tuple[Ints, Ints]] = []
        self.count = 0

    def _marks(self, axes: Sequence[tuple[str, ...]]) -> list[Hashable]:
        """Give what tells each rank from others: what it runs on, and how far its partners are."""
        ranks = np.arange(self.mesh.size)
        pairs = [np.stack([ranks, shifted(self.mesh, by)], axis=1) for by in (1, -1)]
        far = [self.site.ways(pair, ring=True) for pair in pairs]
        for names in axes:
            groups = grouped(self.mesh, names)
            far.append(np.empty_like(far[0]))
            far[-1][groups] = self.site.ways(groups, ring=True)[:, None]
        columns = np.concatenate(far, axis=1).tolist()
        return [(mark, *row) for mark, row in zip(self.site.marks, columns, strict=True)]

    def join(self) -> Graph:
        """Add a player for each kind of rank, then price what each does."""
        sizes = np.bincount(self.kind)
        kinds = np.split(np.argsort(self.kind, kind="stable"), np.cumsum(sizes)[:-1])
        players = self._in_order([self._player(tuple(ranks.tolist())) for ranks in kinds])
        before, after = (np.concatenate(side) for side in zip(*self.edges, strict=True))
        priced = Priced(self.site, self.count)
        for number, player in enumerate(players):
            priced.add(
                number,
                player.ranks[0],
                listed=self._listed(player.ranks[0]),
                place=player.place,
                lanes=list(zip(player.partners, self._queues(player), strict=True)),
            )
        ends: list[tuple[End, ...]] = [()] * self.count
        for queue in self.queues.values():
            for task in queue.place.tolist():
                ends[task] = queue.ends
        return Graph(
            players,
            priced.device,
            priced.work_s,
            priced.floor_s,
            priced.hides,
            ends,
            before,
            after,
            priced.ports,
            priced.traffic(),
        )

    def _in_order(self, players: Sequence[Player]) -> tuple[Player, ...]:
        """Number tasks about as they come in time, so that the clock finds them side by side."""
        share = np.zeros(self.count)
        for player in players:
            share[player.place] = np.arange(len(player.place)) / max(1, len(player.place))
        new = np.empty(self.count, dtype=np.int64)
        new[np.argsort(share, kind="stable")] = np.arange(self.count)
        self.edges = [(new[before], new[after]) for before, after in self.edges]
        for queue in self.queues.values():
            queue.place = new[queue.place]
        return tuple(replace(player, place=new[player.place]) for player in players)

    def _listed(self, rank: int) -> Listed:
        return self.lists[self.site.program.of(rank).stage]

    def _queues(self, player: Player) -> list[Queue]:
        lanes = zip(player.tasks.lanes, player.partners, strict=True)
        return [self.queues[self._key(lane, partners)] for lane, partners in lanes]

    def _player(self, ranks: tuple[int, ...]) -> Player:
        """Give every task of a rank its place; a message that another has placed is the same."""
        rank = ranks[0]
        listed = self._listed(rank)
        place = np.empty(len(listed.work), dtype=np.int64)
        place[listed.on_device] = self._new(len(listed.on_device))
        partners = tuple(self._partners(rank, lane) for lane in listed.tasks.lanes)
        for lane, others, mine in zip(listed.tasks.lanes, partners, listed.of_lane, strict=True):
            key = self._key(lane, others)
            if key not in self.queues:
                self.queues[key] = Queue(self._new(len(mine)))
            place[mine] = self.queues[key].place
        self.edges.append((place[listed.before], place[listed.after]))
        halt = self.site.halts.get(rank)
        stop = len(place) if halt is None else _task_at(listed.tasks, halt.at)
        crashes = halt is not None and halt.how == "crash"
        return Player(ranks, listed.tasks, place, partners, stop, crashes)

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
