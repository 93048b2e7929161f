"""The timeline of a graph that was played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stretto.cost.instruction import Message
from stretto.program.instruction import Role
from stretto.simulate.graph import Graph
from stretto.simulate.task import DEVICE, Lane, Tasks, Work
from stretto.timeline.value import KINDS, Floats, Ints, Timeline, Wait

Bools = NDArray[np.bool_]

TIE = 1e-9
"""Ends that differ by less, relative to the time since the step began, are at once."""


def timeline(
    graph: Graph, begun_s: Floats, done_s: Floats, *, straggle: float, waits: tuple[Wait, ...]
) -> Timeline:
    """Give the timeline of a graph that was played."""
    lists = {id(player.tasks): player.tasks for player in graph.players}
    names = [lane.name for tasks in lists.values() for lane in tasks.lanes]
    streams = ("none", "device", *dict.fromkeys(names))
    listed = {key: _listed(tasks, streams) for key, tasks in lists.items()}
    mine = [listed[id(player.tasks)] for player in graph.players]
    # Where the device has done nothing yet there is no task.
    parts = [
        np.append(player.place, -1)[rows.task]
        for player, rows in zip(graph.players, mine, strict=True)
    ]
    task = np.concatenate(parts)
    instruction, kind, stream, sent = (
        np.concatenate([getattr(rows, name) for rows in mine])
        for name in ("instruction", "kind", "stream", "sent_bytes")
    )
    timed = kind > 0
    start = np.where(timed, begun_s[task], 0.0)
    stop = np.where(timed | (task >= 0), done_s[task], 0.0)
    start = np.where(timed, start, stop)
    ended = done_s[np.isfinite(done_s)]
    return Timeline(
        tuple(player.ranks for player in graph.players),
        np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        instruction,
        kind,
        stream,
        streams,
        start,
        stop,
        np.where(timed, graph.work_s[task], 0.0),
        sent,
        _causes(graph, done_s, task, timed, mine),
        float(ended.max(initial=0.0)),
        straggle,
        waits,
    )


def hosted(line: Timeline, *, fixed_s: float) -> Timeline:
    """Give a timeline whose votes take no more than their message.

    What the software costs in every step is played with the vote, at which all ranks are together;
    it is the host's, as in a step that was recorded: a row of no instruction before the vote.

    Args:
        line: The step.
        fixed_s: What the software costs in every step.
    """
    votes = np.flatnonzero((line.kind == KINDS.index("vote")) & np.isfinite(line.stop_s))
    if fixed_s <= 0 or not len(votes):
        return line
    first = np.searchsorted(line.player, line.player[votes])
    place = np.arange(len(line.kind)) + np.searchsorted(first, np.arange(len(line.kind)), "right")
    cause = np.append(place, -1)[line.cause]
    begun = line.start_s[votes]
    until = np.minimum(begun + fixed_s, line.stop_s[votes])
    start, work = line.start_s.copy(), line.work_s.copy()
    start[votes], work[votes] = until, np.maximum(work[votes] - fixed_s, 0.0)
    rows: dict[str, tuple[NDArray[Any], Any]] = {
        "player": (line.player, line.player[votes]),
        "instruction": (line.instruction, -1),
        "kind": (line.kind, KINDS.index("host")),
        "stream": (line.stream, len(line.streams)),
        "start_s": (start, begun),
        "stop_s": (line.stop_s, until),
        "work_s": (work, until - begun),
        "sent_bytes": (line.sent_bytes, 0),
        "cause": (cause, cause[votes]),
    }
    found: dict[str, Any] = {k: np.insert(old, first, new) for k, (old, new) in rows.items()}
    found["cause"][place[votes]] = first + np.arange(len(votes))
    return replace(line, streams=(*line.streams, "host"), **found)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows of a stage, in the order of its list.

    Attributes:
        task: Of each row its task; of what takes no time the device's last before it, or -1.
        instruction: The index of its instruction.
        kind: An index into `KINDS`.
        stream: An index into the streams of the timeline.
        sent_bytes: What a rank sends in it.
        before: Of every edge between its tasks the one that must be done first.
        after: Of every edge the one that waits.
    """

    task: Ints
    instruction: Ints
    kind: Ints
    stream: Ints
    sent_bytes: Ints
    before: Ints
    after: Ints


def _listed(tasks: Tasks, streams: Sequence[str]) -> _Rows:
    """Give the rows of a stage."""
    idle = np.array(tasks.idle, dtype=np.int64).reshape(-1, 2)
    work, lane = (np.array(column, dtype=np.int64) for column in (tasks.work, tasks.lane))
    queues = [streams.index(lane.name) for lane in tasks.lanes]
    kinds = [[_kind(what, way) for what in tasks.works] for way in (*tasks.lanes, None)]
    sizes = [what.sent_bytes if isinstance(what, Message) else 0 for what in tasks.works]
    nothing = np.zeros(len(idle), dtype=np.int64)
    columns = (
        (np.arange(len(work)), idle[:, 1]),
        (np.array(tasks.instruction, dtype=np.int64), idle[:, 0]),
        (np.array(kinds, dtype=np.int64)[lane, work], nothing),
        (np.array([*queues, streams.index("device")])[lane], nothing),
        (np.array(sizes, dtype=np.int64)[work], nothing),
    )
    order = np.argsort(np.concatenate(columns[1]), kind="stable")
    before, after = (np.array(side, dtype=np.int64) for side in (tasks.before, tasks.after))
    whole, rows, kind, stream, sent = (np.concatenate(pair)[order] for pair in columns)
    return _Rows(whole, rows, kind, stream, sent, before, after)


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


def _causes(
    graph: Graph, done_s: Floats, task: Ints, timed: Bools, listed: Sequence[_Rows]
) -> Ints:
    """Give for each row the one whose end its task waited for, on the same rank if it is there.

    Of several that ended at once it is one of the same rank, if that has one.
    """
    last = np.full(len(done_s), -1, dtype=np.int64)
    waiting, ended = _last(done_s, graph.before, graph.after)
    last[waiting] = ended
    shared = np.array([len(ends) > 1 for ends in graph.ends])
    rows = np.arange(len(task))
    row = np.full(len(done_s) + 1, -1, dtype=np.int64)
    row[task[timed]] = rows[timed]
    causes = np.full(len(task), -1, dtype=np.int64)
    stop = 0
    for player, one in zip(graph.players, listed, strict=True):
        first, stop = stop, stop + len(one.task)
        mine = rows[first:stop][timed[first:stop]]
        row[task[mine]] = mine
        before, after = player.place[one.before], player.place[one.after]
        meets = shared[after]
        waiting, own = _last(done_s, before[meets], after[meets])
        late = done_s[own] >= done_s[last[waiting]] * (1.0 - TIE)
        waiting, own = waiting[late], own[late]
        others = last[waiting]
        last[waiting] = own
        causes[mine] = row[last[task[mine]]]
        last[waiting] = others
    return causes


def _last(done_s: Floats, before: Ints, after: Ints) -> tuple[Ints, Ints]:
    """Give tasks that wait, and for each the last to end of those that it waits for."""
    order = np.argsort(done_s[before], kind="stable")[::-1]
    waiting, first = np.unique(after[order], return_index=True)
    return waiting, before[order][first]


assert DEVICE == -1  # the last column of `queues` and the last row of `kinds` are the device's
