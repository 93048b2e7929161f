"""The clock: tasks begin when what they wait for is done, and slow each other down.

Devices and messages progress at paces that change whenever something begins or ends beside them:

* Messages that take the same port of a rank, a level of links in one direction, share it evenly;
  one in which several ranks take part is as slow as on the slowest.
* Beside a compute, a message moves at its share `hides` of that, and takes the share `contention`
  of its time from the compute. So a message of T seconds beside enough compute adds contention·T to
  the step, and no more than `hides` of a compute's time hides messages: the closed form's terms.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush

import numpy as np

from stretto.simulate.graph import Floats, Graph


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
        flights: The messages under way of each player.
        load: How many of them take each of its ports.
        speed: The pace of a compute beside them.
        events: Heap of when tasks are due; of those of a task only the last counts.
    """

    __slots__ = (
        "after", "begun", "contention", "device", "done", "due", "ends", "events", "first",
        "flights", "graph", "hides", "left", "load", "need", "pace", "running", "since", "speed",
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
        self.running, self.speed = [-1] * players, [1.0] * players
        self.flights: list[list[int]] = [[] for _ in range(players)]
        self.load = [[0] * graph.ports for _ in range(players)]
        self.events: list[tuple[float, int]] = []

    def run(self) -> None:
        """Play until nothing moves any more."""
        due, floor, done, events = self.due, self.graph.floor_s.tolist(), self.done, self.events
        device, running, need = self.device, self.running, self.need
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
            if device[task] >= 0:
                running[device[task]] = -1
                touched = [device[task]]
            else:
                touched = self.land(task)
            if dying and task in dying:
                touched += self.lose(dying[task])
            ready = []
            for other in after[first[task] : first[task + 1]]:
                need[other] -= 1
                if not need[other]:
                    ready.append(other)
            self.begin(ready, t, touched)

    def begin(self, tasks: list[int], t: float, touched: list[int]) -> None:
        """Begin tasks; who is beside them, or was beside what has ended, goes on at a new pace.

        Args:
            tasks: What begins.
            t: Now.
            touched: The players in what has ended.
        """
        for task in tasks:
            self.begun[task] = self.since[task] = t
            player = self.device[task]
            if player >= 0:
                self.running[player] = task
                if player not in touched:
                    touched.append(player)
                continue
            for player, out, into in self.ends[task]:
                self.flights[player].append(task)
                load = self.load[player]
                load[out] += 1
                if into != out:
                    load[into] += 1
                if player not in touched:
                    touched.append(player)
        for player in touched:
            self.go_on(player, t)

    def go_on(self, player: int, t: float) -> None:
        """Set the paces of what a player has under way."""
        task, flights = self.running[player], self.flights[player]
        if task >= 0:
            pace = self.speed[player] = self._speed(player) if flights else 1.0
            if self.pace[task] != pace:
                self._change(task, pace, t)
        for message in flights:
            pace = self._share(message)
            if self.pace[message] != pace:
                self._change(message, pace, t)

    def land(self, message: int) -> list[int]:
        """Take a message out of flight, and give the players in it."""
        touched = []
        for player, out, into in self.ends[message]:
            self.flights[player].remove(message)
            load = self.load[player]
            load[out] -= 1
            if into != out:
                load[into] -= 1
            touched.append(player)
        return touched

    def lose(self, player: int) -> list[int]:
        """Lose all messages of a player, and give the players in them."""
        touched = [player]
        for message in self.flights[player].copy():
            self.due[message] = math.inf
            touched += self.land(message)
        for message in _messages(self.graph, player):
            self.need[message] += 1
        return touched

    def _speed(self, player: int) -> float:
        """Give the pace of a compute beside the messages of a player."""
        load, beside = self.load[player], 0.0
        for message in self.flights[player]:
            for other, out, into in self.ends[message]:
                if other == player:
                    a, b = load[out], load[into]
                    beside += self.hides[message] / (a if a > b else b)
        return 1.0 / (1.0 + self.contention * beside)

    def _share(self, message: int) -> float:
        """Give the pace of a message: as on the slowest of those in it."""
        slowest = 1.0
        for player, out, into in self.ends[message]:
            a, b = self.load[player][out], self.load[player][into]
            pace = 1.0 / (a if a > b else b)
            if self.running[player] >= 0:
                pace *= self.hides[message] * self.speed[player]
            if pace < slowest:
                slowest = pace
        return slowest

    def _change(self, task: int, pace: float, t: float) -> None:
        left = self.left[task] - (t - self.since[task]) * self.pace[task]
        if left < 0.0:  # it waits for its host, or by rounding
            left = 0.0
        self.left[task], self.since[task], self.pace[task] = left, t, pace
        due = t if left == 0.0 else t + left / pace if pace else math.inf
        self.due[task] = due
        if due < math.inf:  # else it goes on when the compute beside it is done
            heappush(self.events, (due, task))


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
