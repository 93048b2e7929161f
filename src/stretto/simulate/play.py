"""The clock: tasks begin when what they wait for is done, and slow each other down.

Devices and messages progress at rates that change whenever something begins or ends beside them:

* Messages that take the same port of a rank, a level of links in one direction, share it evenly; one
  that several ranks take part in is as slow as on the slowest.
* Beside a compute, a message moves at its share `hides` of that, and takes the share `contention` of
  its time from the compute. So a message of T seconds beside enough compute adds contention·T to the
  step, and at most `hides` of a compute's time hides messages: the terms of the closed form.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from itertools import pairwise

import numpy as np

from stretto.simulate.graph import Floats, Graph


def play(graph: Graph, *, contention: float) -> tuple[Floats, Floats]:
    """Give the seconds at which tasks begin and end; infinite for one that never does.

    Args:
        graph: The tasks.
        contention: Share of a hidden message's time that it takes from the compute beside it.
    """
    count, players = len(graph.device), len(graph.players)
    device, ends = graph.device.tolist(), graph.ends
    floor, hides = graph.floor_s.tolist(), graph.hides.tolist()
    after, need = _edges(graph)
    dying = _halted(graph, need)
    begun, done = [math.inf] * count, [math.inf] * count
    due = [math.inf] * count  # when a task is done at its present rate
    left, since, rate = graph.work_s.tolist(), [0.0] * count, [0.0] * count
    running = [-1] * players
    flights: list[list[int]] = [[] for _ in range(players)]
    load = [[0] * graph.ports for _ in range(players)]
    speed = [1.0] * players  # of a compute, beside what is in flight
    heap: list[tuple[float, int]] = []
    ready = [task for task, n in enumerate(need) if n == 0]
    touched: list[int] = []
    t = 0.0
    while True:
        for task in ready:
            begun[task] = since[task] = t
            player = device[task]
            if player >= 0:
                running[player] = task
                touched.append(player)
            else:
                for player, out, into in ends[task]:
                    flights[player].append(task)
                    load[player][out] += 1
                    if into != out:
                        load[player][into] += 1
                    touched.append(player)
        for player in touched:
            flying, task = flights[player], running[player]
            pace = 1.0
            if flying:
                ports, beside = load[player], 0.0
                for m in flying:
                    for p, out, into in ends[m]:
                        if p == player:
                            beside += hides[m] / max(ports[out], ports[into])
                pace = speed[player] = 1.0 / (1.0 + contention * beside)
            if task >= 0 and rate[task] != pace:
                left[task] -= (t - since[task]) * rate[task]
                since[task], rate[task] = t, pace
                due[task] = t + left[task] / pace
                heappush(heap, (due[task], task))
            for m in flying:
                pace = math.inf
                for p, out, into in ends[m]:
                    own = 1.0 / max(load[p][out], load[p][into])
                    if running[p] >= 0:
                        own *= hides[m] * speed[p]
                    if own < pace:
                        pace = own
                if rate[m] != pace:
                    left[m] -= (t - since[m]) * rate[m]
                    since[m], rate[m] = t, pace
                    due[m] = t + left[m] / pace
                    heappush(heap, (due[m], m))
        while heap:
            t, task = heappop(heap)
            if due[task] == t:
                if floor[task] <= t:
                    break
                left[task], since[task] = (floor[task] - t) * rate[task], t
                due[task] = floor[task]
                heappush(heap, (due[task], task))
        else:
            break
        due[task], done[task] = -1.0, t
        player = device[task]
        if player >= 0:
            running[player] = -1
            touched = [player]
        else:
            touched = []
            for player, out, into in ends[task]:
                flights[player].remove(task)
                load[player][out] -= 1
                if into != out:
                    load[player][into] -= 1
                touched.append(player)
        if task in dying:
            player = dying[task]
            for m in flights[player]:
                due[m] = math.inf
                for other, out, into in ends[m]:
                    if other != player:
                        flights[other].remove(m)
                        load[other][out] -= 1
                        if into != out:
                            load[other][into] -= 1
                    touched.append(other)
            flights[player].clear()
            load[player] = [0] * graph.ports
            for m in _messages(graph, player):
                need[m] += 1
        ready = []
        for task in after[task]:
            need[task] -= 1
            if not need[task]:
                ready.append(task)
    return np.array(begun), np.array(done)


def _edges(graph: Graph) -> tuple[list[list[int]], list[int]]:
    """Give for each task those that wait for it, and how many it waits for."""
    count = len(graph.device)
    order = np.argsort(graph.before, kind="stable")
    starts = np.searchsorted(graph.before[order], np.arange(count + 1)).tolist()
    waiting = graph.after[order].tolist()
    after = [waiting[a:b] for a, b in pairwise(starts)]
    return after, np.bincount(graph.after, minlength=count).tolist()


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
    return place[graph.device[place] < 0].tolist()
