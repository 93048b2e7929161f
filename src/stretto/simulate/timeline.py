"""A step on a clock, as a value: when every instruction of every kind of rank runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto.cost.instruction import Message
from stretto.program.instruction import Role
from stretto.simulate.graph import Floats, Graph, Player
from stretto.simulate.symmetry import Ints
from stretto.simulate.task import DEVICE, Lane, Work

Bools = NDArray[np.bool_]

KINDS = ("none", "device", "activation", "parameter", "gradient", "pipeline", "vote")
"""What a row is: nothing that takes time, work of a device, or a message by what it is for."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A rank that waits for ever.

    Attributes:
        rank: Which; those that are alike wait too.
        instruction: Index of what it cannot begin.
        on: The ranks that have not come to the message that it needs, or will not any more.
    """

    rank: int
    instruction: int
    on: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """A step from one vote to the next, in seconds since the first.

    Ranks that are alike are played once. A row is an instruction of a rank that is played, or one
    of the messages of a move of several; a message between ranks that are played has a row on each.
    Rows are in the order of ranks, of their lists, and of messages. Instructions after the vote
    come first in time: they belong to the vote with which the step begins.

    Attributes:
        alike: The ranks that are alike, the one that is played first.
        player: Of each row an index into `alike`.
        instruction: Of each row the index of the instruction in the rank's list.
        kind: Of each row an index into `KINDS`.
        stream: Of each row an index into `streams`.
        streams: What things run on: the device, and the queues of messages.
        start_s: When it begins; infinite for what never does.
        stop_s: When it is done.
        work_s: What it takes alone.
        sent_bytes: What the rank sends in it.
        cause: The row whose end it waited for; -1 for none.
        step_s: Seconds of the step; if it does not end, until nothing moves any more.
        straggle: Share of a step lost to the slowest of many ranks, by chance; it is not played.
        waits: Who waits for whom, if the step does not end.
    """

    alike: tuple[tuple[int, ...], ...]
    player: Ints
    instruction: Ints
    kind: Ints
    stream: Ints
    streams: tuple[str, ...]
    start_s: Floats
    stop_s: Floats
    work_s: Floats
    sent_bytes: Ints
    cause: Ints
    step_s: float
    straggle: float
    waits: tuple[Wait, ...]

    @property
    def rank(self) -> Ints:
        """Of each row the rank."""
        return np.array([ranks[0] for ranks in self.alike])[self.player]

    @property
    def finished(self) -> bool:
        """Whether the step comes to its end."""
        return bool(np.isfinite(self.stop_s).all())

    @property
    def expected_s(self) -> float:
        """Seconds of a step with what is lost by chance."""
        return self.step_s * (1.0 + self.straggle)

    def critical(self) -> list[int]:
        """Give the rows that the step's length comes from, each beginning when the last ends."""
        ended = np.where(np.isfinite(self.stop_s), self.stop_s, -1.0)
        at, path = int(ended.argmax()), []
        while at >= 0:
            path.append(at)
            at = int(self.cause[at])
        return path[::-1]


def timeline(
    graph: Graph, begun_s: Floats, done_s: Floats, *, straggle: float, waits: tuple[Wait, ...]
) -> Timeline:
    """Give the timeline of a graph that was played."""
    lanes = [lane.name for player in graph.players for lane in player.tasks.lanes]
    streams = ("none", "device", *dict.fromkeys(lanes))
    parts = [_rows(player, streams) for player in graph.players]
    task, instruction, kind, stream, sent = (
        np.concatenate([part[i] for part in parts]) for i in range(5)
    )
    lengths = [len(part[0]) for part in parts]
    timed = kind > 0
    start = np.where(timed, begun_s[task], 0.0)
    stop = np.where(timed | (task >= 0), done_s[task], 0.0)
    start = np.where(timed, start, stop)
    ended = done_s[np.isfinite(done_s)]
    return Timeline(
        tuple(player.ranks for player in graph.players),
        np.repeat(np.arange(len(parts)), lengths),
        instruction,
        kind,
        stream,
        streams,
        start,
        stop,
        np.where(timed, graph.work_s[task], 0.0),
        sent,
        _causes(graph, done_s, task, timed, lengths),
        float(ended.max(initial=0.0)),
        straggle,
        waits,
    )


def _rows(player: Player, streams: Sequence[str]) -> tuple[Ints, ...]:
    """Give task, instruction, kind, stream and bytes of the rows of a player."""
    tasks = player.tasks
    idle = np.array(tasks.idle, dtype=np.int64).reshape(-1, 2)
    work, lane = (np.array(column, dtype=np.int64) for column in (tasks.work, tasks.lane))
    places = np.append(player.place, -1)  # where the device has done nothing yet
    queues = [streams.index(lane.name) for lane in tasks.lanes]
    kinds = [[_kind(what, way) for what in tasks.works] for way in (*tasks.lanes, None)]
    sizes = [what.sent_bytes if isinstance(what, Message) else 0 for what in tasks.works]
    nothing = np.zeros(len(idle), dtype=np.int64)
    columns = (
        (places[:-1], places[idle[:, 1]]),
        (np.array(tasks.instruction, dtype=np.int64), idle[:, 0]),
        (np.array(kinds, dtype=np.int64)[lane, work], nothing),
        (np.array([*queues, streams.index("device")])[lane], nothing),
        (np.array(sizes, dtype=np.int64)[work], nothing),
    )
    order = np.argsort(np.concatenate(columns[1]), kind="stable")
    return tuple(np.concatenate(pair)[order] for pair in columns)


def _kind(work: Work, lane: Lane | None) -> int:
    """Give the index of the kind of a task; without a lane, of one on the device."""
    if lane is None:
        return KINDS.index("device")
    if lane.way in ("to", "from"):
        return KINDS.index("pipeline")
    if not isinstance(work, Message):
        return KINDS.index("none")
    match work.role:
        case Role.WORKING | Role.PARAMETER:
            return KINDS.index("parameter")
        case Role.GRADIENT:
            return KINDS.index("gradient")
        case Role.VERDICT:
            return KINDS.index("vote")
        case _:
            return KINDS.index("activation")


def _causes(graph: Graph, done_s: Floats, task: Ints, timed: Bools, lengths: Sequence[int]) -> Ints:
    """Give for each row the one whose end its task waited for, on the same rank if it is there."""
    last = np.full(len(done_s), -1, dtype=np.int64)
    order = np.argsort(done_s[graph.before], kind="stable")
    last[graph.after[order]] = graph.before[order]  # of several the last is kept
    rows = np.arange(len(task))
    row = np.full(len(done_s) + 1, -1, dtype=np.int64)
    row[task[timed]] = rows[timed]
    causes = np.full(len(task), -1, dtype=np.int64)
    stop = 0
    for length in lengths:
        mine = rows[stop : stop + length][timed[stop : stop + length]]
        row[task[mine]] = mine
        causes[mine] = row[last[task[mine]]]
        stop += length
    return causes


assert DEVICE == -1  # the last column of `queues` and the last row of `kinds` are the device's
