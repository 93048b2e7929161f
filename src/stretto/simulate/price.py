"""What the tasks of a graph take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stretto.cluster import LEVELS
from stretto.cost.instruction import Message, hidden_rate
from stretto.layout import Kind
from stretto.program.instruction import Compute, Update
from stretto.simulate.route import Pattern, Route, Wiring
from stretto.simulate.site import Site, Way
from stretto.simulate.symmetry import Ints
from stretto.simulate.task import DEVICE, Lane, Tasks

Floats = NDArray[np.float64]

End = tuple[int, int, int]
"""A player in a message, and which of its ports that takes: out of it, and into it."""


@dataclass(frozen=True, eq=False)
class Listed:
    """The tasks of a stage as arrays.

    Attributes:
        tasks: The tasks.
        work: Of each an index into its works.
        on_device: Those that keep the device busy.
        of_lane: The messages of each lane.
        before: Of every edge the task that must be done first.
        after: Of every edge the task that waits.
    """

    tasks: Tasks
    work: Ints
    on_device: Ints
    of_lane: tuple[Ints, ...]
    before: Ints
    after: Ints

    @staticmethod
    def of(tasks: Tasks) -> Listed:
        """Give the same tasks as arrays."""
        work, lane, before, after = (
            np.array(column, dtype=np.int64)
            for column in (tasks.work, tasks.lane, tasks.before, tasks.after)
        )
        of_lane = tuple(np.flatnonzero(lane == i) for i in range(len(tasks.lanes)))
        return Listed(tasks, work, np.flatnonzero(lane == DEVICE), of_lane, before, after)

    @cached_property
    def messages(self) -> tuple[tuple[tuple[Message, Ints], ...], ...]:
        """Of each lane what goes, and which of its messages do."""
        return tuple(
            tuple(
                (message, np.flatnonzero(self.work[mine] == j))
                for j in np.unique(self.work[mine]).tolist()
                if isinstance(message := self.tasks.works[j], Message)
            )
            for mine in self.of_lane
        )

    def device_s(self, site: Site, part: int) -> tuple[Floats, Floats]:
        """Give the seconds of what the device does, and when the host is done with starting it."""
        taken, host = np.zeros((2, len(self.tasks.works)))
        for j in np.unique(self.work[self.on_device]).tolist():
            what = self.tasks.works[j]
            assert isinstance(what, Compute | Update), "a device computes and updates"
            taken[j] = site.work_s(what, self.tasks.stage, part=part)
            host[j] = site.host_s(what, part=part)
        mine = self.work[self.on_device]
        return taken[mine], np.cumsum(host[mine])


@dataclass(slots=True, eq=False)
class Queue:
    """Messages between the same players, which keep their order.

    Attributes:
        place: Where they are in the graph.
        ends: The players that were added already.
        priced: Whether it is known what they take.
    """

    place: Ints
    ends: tuple[End, ...] = ()
    priced: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """What messages take of links between players.

    Attributes:
        routes: The links of messages between the same players.
        route: Of each task an index into `routes`; -1 for none.
        rate: Of each task what a rank sends to its neighbour if alone, in bytes per second.
        capacity: Of each link, in bytes per second.
    """

    routes: tuple[Route, ...]
    route: Ints
    rate: Floats
    capacity: tuple[float, ...]


class Priced:
    """What the tasks of a graph take."""

    def __init__(self, site: Site, count: int) -> None:
        """Begin without players.

        Args:
            site: What they run on.
            count: How many tasks there are.
        """
        self.site = site
        self.device = np.full(count, -1, dtype=np.int64)
        self.work_s, self.floor_s, self.hides, self.rate = (np.zeros(count) for _ in range(4))
        self.route = np.full(count, -1, dtype=np.int64)
        self.wiring = Wiring(site)
        self.known: dict[tuple[int, int], tuple[Floats, Floats]] = {}
        self.ports = 2 * len(LEVELS)

    def add(
        self,
        number: int,
        rank: int,
        *,
        listed: Listed,
        place: Ints,
        lanes: Sequence[tuple[tuple[int, ...], Queue]],
    ) -> None:
        """Price what a player does.

        Args:
            number: The player.
            rank: Its rank.
            listed: Its tasks.
            place: Where they are in the graph.
            lanes: Of each lane the ranks between which its messages go, and the queue that it is.
        """
        mine, part = place[listed.on_device], int(self.site.part[rank])
        key = listed.tasks.stage.stage, part
        if key not in self.known:
            self.known[key] = listed.device_s(self.site, part)
        taken, host = self.known[key]
        self.device[mine] = number
        self.work_s[mine] = taken * self.site.slow(rank)
        self.floor_s[mine] = host
        for i, (lane, (partners, queue)) in enumerate(zip(listed.tasks.lanes, lanes, strict=True)):
            way = self.site.way(partners, ring=lane.way in ("group", "all"))
            queue.ends += (self._end(number, lane, i, way.level),)
            if lane.way != "from" and not queue.priced:
                queue.priced = True
                self._price(lane, partners, way, queue, listed.messages[i])

    def _end(self, player: int, lane: Lane, index: int, level: int) -> End:
        """Give the ports that a player takes: out of it into a level, and back."""
        if self.site.network.routed:
            return player, index, index  # what shares links is played there
        match lane.way:
            case "to":
                return player, 2 * level, 2 * level
            case "from":
                return player, 2 * level + 1, 2 * level + 1
            case "group" | "all":
                return player, 2 * level, 2 * level + 1

    def _price(
        self,
        lane: Lane,
        partners: tuple[int, ...],
        way: Way,
        queue: Queue,
        messages: Sequence[tuple[Message, Ints]],
    ) -> None:
        """Price the messages of a queue."""
        routes: dict[Pattern, int] = {}
        for message, which in messages:
            place = queue.place[which]
            self.work_s[place] = seconds = self.site.message_s(message, partners, way=way)
            self.hides[place] = hidden_rate(message.role, self.site.stack)
            pattern = _pattern(message)
            if not self.site.network.routed or message.kind == "vote" or seconds <= 0:
                continue
            if pattern not in routes:
                kind = lane.way, lane.axes, lane.by, pattern
                routes[pattern] = self.wiring.add(partners, pattern=pattern, kind=kind)
            neighbours = len(partners) - 1 if pattern == "exchange" else 1
            self.route[place] = routes[pattern]
            self.rate[place] = message.sent_bytes / neighbours / seconds

    def traffic(self) -> Traffic | None:
        """Give what messages take of links, if those are played."""
        if not self.site.network.routed:
            return None
        routes = self.wiring.routes()
        return Traffic(routes, self.route, self.rate, tuple(self.wiring.capacity))


def _pattern(message: Message) -> Pattern:
    match message.kind:
        case "send":
            return "send"
        case Kind.ALL_TO_ALL:
            return "exchange"
        case _:
            return "ring"
