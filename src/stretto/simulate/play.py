"""The clock: tasks begin when what they wait for is done, and slow each other down.

Devices and messages progress at paces that change whenever something begins or ends beside them:

* Messages that take the same port of a rank, a level of links in one direction, share it evenly;
  one in which several ranks take part is as slow as on the slowest. Where links between ranks are
  played, those decide instead (see `share`).
* Beside a compute, a message moves at its share `hides` of that, and takes the share `contention`
  of its time from the compute. So a message of T seconds beside enough compute adds contention·T to
  the step, and no more than `hides` of a compute's time hides messages: the closed form's terms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from heapq import heappop, heappush

import numpy as np

from stretto.simulate.graph import Graph
from stretto.simulate.share import Shares
from stretto.timeline.value import Floats


def play(graph: Graph, *, contention: float) -> tuple[Floats, Floats]:
    """Give the seconds at which tasks begin and end; infinite for one that never does.

    Args:
        graph: The tasks.
        contention: Share of a hidden message's time that it takes from the compute beside it.
    """
    clock = _Clock(graph, contention)
    clock.run()
    return np.array(clock.begun), np.array(clock.done)


class _Clock:
    """What is under way.

    Attributes:
        after: Tasks that wait, in the order of those that they wait for.
        first: Where in `after` those that wait for a task begin.
        need: How many tasks each task still waits for.
        due: When a task will be done at its present pace; infinite before it begins.
        left: Seconds alone that it had still to do when its pace last changed.
        since: When that was.
        pace: Its pace; -1 before it begins.
        running: What runs on the device of each player; -1 for nothing.
        flights: The messages under way of each player, and the ports that they take.
        load: How many of them take each of its ports.
        allowed: Of each message under way the pace that each player in it allows.
        shares: How messages share links between players, where those are played.
        shifted: Messages whose share of those has changed.
        events: Heap of when tasks are due; of those of a task only the last counts.
    """

    __slots__ = (
        "after", "allowed", "begun", "contention", "device", "done", "due", "ends", "events",
        "first", "flights", "graph", "hides", "left", "load", "need", "pace", "running", "shares",
        "shifted", "since",
    )  # fmt: skip

    def __init__(self, graph: Graph, contention: float) -> None:
        count, players = len(graph.device), len(graph.players)
        self.graph, self.contention = graph, contention
        self.device, self.hides = graph.device.tolist(), graph.hides.tolist()
        self.ends = graph.ends
        self.after, self.first, self.need = _edges(graph)
        self.begun, self.done = [math.inf] * count, [math.inf] * count
        self.due, self.since, self.pace = [math.inf] * count, [0.0] * count, [-1.0] * count
        self.left = graph.work_s.tolist()
        self.running = [-1] * players
        self.flights: list[dict[int, tuple[int, int]]] = [{} for _ in range(players)]
        self.load = [[0] * graph.ports for _ in range(players)]
        self.allowed: dict[int, dict[int, float]] = {}
        self.events: list[tuple[float, int]] = []
        self.shares, self.shifted = _shares(graph), list[int]()

    def run(self) -> None:
        """Play until nothing moves any more."""
        due, floor, done, events = self.due, self.graph.floor_s.tolist(), self.done, self.events
        device, running, need, flights = self.device, self.running, self.need, self.flights
        after, first = self.after, self.first
        dying = _halted(self.graph, need)
        self.begin([task for task, n in enumerate(need) if n == 0], 0.0, [])
        while events:
            t, task = heappop(events)
            if due[task] != t:
                continue
            if floor[task] > t:  # the device is done, but the host is not
                self.left[task], due[task] = 0.0, floor[task]
                heappush(events, (due[task], task))
                continue
            due[task], done[task] = -1.0, t
            player = device[task]
            if player >= 0:
                running[player] = -1
                touched = [player] if flights[player] else []
            else:
                touched = self.land(task)
            if dying and task in dying:
                touched += self.lose(dying[task])
            ready = []
            for other in after[first[task] : first[task + 1]]:
                need[other] -= 1
                if not need[other]:
                    ready.append(other)
            if ready or touched:
                self.begin(ready, t, touched)

    def begin(self, tasks: Iterable[int], t: float, touched: list[int]) -> None:
        """Begin tasks; who is beside them, or was beside what has ended, goes on at a new pace.

        Args:
            tasks: What begins.
            t: Now.
            touched: The players in what has ended that have anything under way.
        """
        calm = []
        for task in tasks:
            self.begun[task] = self.since[task] = t
            player = self.device[task]
            if player < 0:
                beside = self.take_off(task)
            else:
                self.running[player] = task
                beside = [player] if self.flights[player] else []
            if beside:
                touched += beside
            else:
                calm.append(task)
        if touched:
            self.go_on(touched, t)
        for task in calm:
            if self.pace[task] < 0.0:  # nothing has begun beside it either
                self.pace[task] = 1.0
                self.due[task] = due = t + self.left[task]
                heappush(self.events, (due, task))

    def go_on(self, players: Iterable[int], t: float) -> None:
        """Set the paces of what players have under way."""
        beside, self.shifted = dict.fromkeys(self.shifted), []
        pace, contended = self.pace, self.contention > 0
        for player in dict.fromkeys(players):
            task, flights = self.running[player], self.flights[player]
            speed = self._speed(player) if contended and task >= 0 and flights else 1.0
            if task >= 0 and pace[task] != speed:
                self._change(task, speed, t)
            if flights:
                self._allow(player, speed, beside)
        for message in beside:
            most = min(self.allowed[message].values())  # as on the slowest of those in it
            if self.shares is not None:
                most *= self.shares.pace[message]
            if pace[message] != most:
                self._change(message, most, t)

    def _allow(self, player: int, speed: float, changed: dict[int, None]) -> None:
        """Say how fast a player lets its messages move, and add those that it now lets otherwise.

        Args:
            player: Which.
            speed: The pace of its compute, if it has one under way.
            changed: Is added to.
        """
        load, allowed, computes = self.load[player], self.allowed, self.running[player] >= 0
        for message, (out, into) in self.flights[player].items():
            a, b = load[out], load[into]
            most = 1.0 / (a if a > b else b)
            if computes:
                most *= self.hides[message] * speed
            own = allowed[message]
            if own.get(player) != most:
                own[player] = most
                changed[message] = None

    def take_off(self, message: int) -> list[int]:
        """Take a message into flight, and give the players in it, unless nothing is beside it."""
        touched, beside = [], self.shares is not None
        for player, out, into in self.ends[message]:
            flights, load = self.flights[player], self.load[player]
            beside = beside or bool(flights) or self.running[player] >= 0
            flights[message] = out, into
            load[out] += 1
            if into != out:
                load[into] += 1
            touched.append(player)
        self.allowed[message] = {} if beside else dict.fromkeys(touched, 1.0)
        if self.shares is not None:
            touched += self._shift(self.shares.begin(message))
        return touched if beside else []

    def land(self, message: int) -> list[int]:
        """Take a message out of flight, and give the players in it that had anything beside it."""
        touched = []
        del self.allowed[message]
        for player, out, into in self.ends[message]:
            flights, load = self.flights[player], self.load[player]
            del flights[message]
            load[out] -= 1
            if into != out:
                load[into] -= 1
            if flights or self.running[player] >= 0:
                touched.append(player)
        if self.shares is not None:
            touched += self._shift(self.shares.end(message))
        return touched

    def _shift(self, messages: list[int]) -> list[int]:
        """Take note of messages whose share of links has changed, and give the players in them."""
        self.shifted += messages
        return [player for message in messages for player, _, _ in self.ends[message]]

    def lose(self, player: int) -> list[int]:
        """Lose all messages of a player, and give the players in them."""
        touched = [player]
        for message in list(self.flights[player]):
            self.due[message] = math.inf
            touched += self.land(message)
        for message in _messages(self.graph, player):
            self.need[message] += 1
        return touched

    def _speed(self, player: int) -> float:
        """Give the pace of a compute beside the messages of a player."""
        load, beside, shares = self.load[player], 0.0, self.shares
        for message, (out, into) in self.flights[player].items():
            a, b = load[out], load[into]
            share = 1.0 if shares is None else shares.pace[message]
            beside += self.hides[message] * share / (a if a > b else b)
        return 1.0 / (1.0 + self.contention * beside)

    def _change(self, task: int, pace: float, t: float) -> None:
        left = self.left[task] - (t - self.since[task]) * self.pace[task]
        if left < 0.0:  # it waits for its host, or by rounding
            left = 0.0
        self.left[task], self.since[task], self.pace[task] = left, t, pace
        due = t if left == 0.0 else t + left / pace if pace else math.inf
        self.due[task] = due
        if due < math.inf:  # else it goes on when the compute beside it is done
            heappush(self.events, (due, task))


def _shares(graph: Graph) -> Shares | None:
    """Give how messages share links between players, where those are played."""
    traffic = graph.traffic
    if traffic is None:
        return None
    return Shares(
        traffic.routes,
        route=traffic.route.tolist(),
        rate=traffic.rate.tolist(),
        capacity=traffic.capacity,
    )


def _edges(graph: Graph) -> tuple[list[int], list[int], list[int]]:
    """Give who waits, in the order of what for; where each task's begin; how many it waits for."""
    count = len(graph.device)
    order = np.argsort(graph.before, kind="stable")
    first = np.searchsorted(graph.before[order], np.arange(count + 1)).tolist()
    need = np.bincount(graph.after, minlength=count).tolist()
    return graph.after[order].tolist(), first, need


def _halted(graph: Graph, need: list[int]) -> dict[int, int]:
    """Let what halted ranks do not begin wait for ever.

    Returns:
        The last task on the device of each player that crashes, and the player.
    """
    dying: dict[int, int] = {}
    for number, player in enumerate(graph.players):
        if player.halts == len(player.place):
            continue
        for task in player.place[player.halts :].tolist():
            need[task] += 1
        if player.crashes:
            done = player.place[: player.halts]
            done = done[graph.device[done] == number]
            if len(done):
                dying[int(done[-1])] = number
            else:
                for task in _messages(graph, number):
                    need[task] += 1
    return dying


def _messages(graph: Graph, player: int) -> list[int]:
    """Give the messages of a player."""
    place = graph.players[player].place
    messages: list[int] = place[graph.device[place] < 0].tolist()
    return messages
