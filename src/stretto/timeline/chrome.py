"""A timeline in the format that Perfetto and Chrome show: a process a rank, a thread a stream.

The format is the Trace Event Format (Google, 2016): "X" is a piece of work, "s" and "f" the ends of
an arrow, "C" a counter, "M" a name. Times are in microseconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from stretto.program.instruction import Program, Recv, Send
from stretto.program.render import label
from stretto.timeline.memory import MemoryCurve
from stretto.timeline.value import KINDS, Ints, Timeline

STEP = 1_000_000
"""The thread on which the step as a whole is drawn; streams are those before it."""

PREDICTED = 1_000_000
"""The process of rank 0 in a step that was foretold: one that was recorded loads beside it."""

OWN_NAMES = {"data": "wait for micro-batches", "host": "host"}
"""Names of what is of no instruction, by kind."""


def chrome(
    timeline: Timeline,
    program: Program,
    *,
    name: str,
    first: int = 0,
    memory: Held | None = None,
    marks: Sequence[Mark] = (),
) -> Iterator[str]:
    """Give a timeline as a document of JSON, in pieces.

    Args:
        timeline: The step.
        program: What the ranks do.
        name: What it is: ``predicted``, ``step 50``; stands before each rank.
        first: The process of rank 0; others follow.
        memory: Of each rank that is played what it holds over the step.
        marks: Moments to be marked.
    """
    told = events(timeline, program, name=name, first=first, memory=memory, marks=marks)
    return document(told)


def document(events: Iterable[str]) -> Iterator[str]:
    """Give events as one document, in pieces; events of several timelines may follow each other."""
    yield '{"displayTimeUnit":"ms","traceEvents":['
    for i, event in enumerate(events):
        yield f",\n{event}" if i else f"\n{event}"
    yield "\n]}\n"


def events(
    timeline: Timeline,
    program: Program,
    *,
    name: str,
    title: str = "",
    at_s: float = 0.0,
    first: int = 0,
    memory: Held | None = None,
    marks: Sequence[Mark] = (),
    ranks: Container[int] | None = None,
) -> Iterator[str]:
    """Give the events of a timeline; those of a rank in the order of time.

    Several timelines can follow each other in one document, or stand above each other in it.

    Args:
        timeline: The step.
        program: What the ranks do.
        name: What it is; see `chrome`.
        title: What the whole step is called; as `name` if nothing else is said.
        at_s: When it begins on the clock of the document.
        first: The process of rank 0; others follow.
        memory: Of each rank that is played what it holds over the step.
        marks: Moments to be marked.
        ranks: Of those that are played, whom to draw; None for all.
    """
    stages = program.stages
    named = cache(lambda s, at: label(program, stages[s], stages[s].instructions[at]))
    tips = _tips(timeline, program)
    drawn = {p: a for p, a in enumerate(timeline.alike) if ranks is None or a[0] in ranks}
    for player, alike in drawn.items():
        pid, stage = first + alike[0], program.of(alike[0]).stage
        rows = np.arange(*np.searchsorted(timeline.player, (player, player + 1)))
        rows = rows[(timeline.kind[rows] > 0) & np.isfinite(timeline.stop_s[rows])]
        yield from _names(timeline, pid, f"{name} {_ranks(alike)}", rows)
        told = [_whole(timeline, pid, title or name)]
        for row in rows.tolist():
            at = int(timeline.instruction[row])
            told.append(_piece(timeline, row, pid, named(stage, at) if at >= 0 else ""))
            if row in tips and tips[row][2] in drawn:
                told.append(_tip(timeline, row, pid, *tips[row][:2], name=f"{name} {title}"))
        if memory is not None:
            told += _counters(memory[player], pid)
        told += [_instant(pid, when_s, what) for rank, when_s, what in marks if rank == alike[0]]
        told.sort(key=lambda event: (event["ts"], -event.get("dur", 0.0)))
        yield from (_json(_at(event, at_s * 1e6)) for event in told)


Event = dict[str, Any]

Held = Mapping[int, MemoryCurve] | Sequence[MemoryCurve]
"""By player what a rank holds over a step."""

Mark = tuple[int, float, str]
"""(a rank that is played, seconds since the step began, what happens then)."""


def _at(event: Event, since: float) -> Event:
    """Give an event in whole nanoseconds; what ends where another begins ends before it.

    Readers multiply by 1000 and cut off, so that an end is one nanosecond early.
    """
    begun = math.floor((event["ts"] + since) * 1e3)
    found = event | {"ts": begun / 1e3}
    if event["ph"] == "X":
        until = math.floor((event["ts"] + event["dur"] + since) * 1e3)
        found["dur"] = max(0, until - begun - 1) / 1e3
    return found


def _instant(pid: int, at_s: float, what: str) -> Event:
    """Give a moment, marked on all streams of a rank."""
    event: Event = {"ph": "i", "s": "p", "pid": pid, "tid": STEP, "name": what, "cat": "step"}
    return event | {"ts": at_s * 1e6}


def _json(event: Event) -> str:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def _ranks(ranks: tuple[int, ...]) -> str:
    alike = f" ({len(ranks)} alike)" if len(ranks) > 1 else ""
    return f"rank {ranks[0]}{alike}"


def _names(timeline: Timeline, pid: int, name: str, rows: Ints) -> Iterator[str]:
    """Give the names of a rank and of its streams, in their order."""
    head: Event = {"ph": "M", "pid": pid, "tid": 0}
    yield _json(head | {"name": "process_name", "args": {"name": name}})
    yield _json(head | {"name": "process_sort_index", "args": {"sort_index": pid}})
    streams = {i: timeline.streams[i] for i in np.unique(timeline.stream[rows]).tolist()}
    for order, (stream, called) in enumerate(({STEP: "step"} | streams).items()):
        own = head | {"tid": stream}
        yield _json(own | {"name": "thread_name", "args": {"name": called}})
        yield _json(own | {"name": "thread_sort_index", "args": {"sort_index": order}})


def _whole(timeline: Timeline, pid: int, title: str) -> Event:
    """Give the step as one piece, on a stream of its own above the others."""
    event: Event = {"ph": "X", "pid": pid, "tid": STEP, "name": title, "cat": "step"}
    return event | {"ts": 0.0, "dur": timeline.step_s * 1e6, "args": {}}


def _piece(timeline: Timeline, row: int, pid: int, name: str) -> Event:
    kind, sent = KINDS[timeline.kind[row]], int(timeline.sent_bytes[row])
    start_s, stop_s = float(timeline.start_s[row]), float(timeline.stop_s[row])
    args: Event = {"instruction": int(timeline.instruction[row])}
    if sent:
        args["sent_bytes"] = sent
    return {
        "ph": "X",
        "pid": pid,
        "tid": int(timeline.stream[row]),
        "name": name or OWN_NAMES[kind],
        "cat": kind,
        "ts": start_s * 1e6,
        "dur": stop_s * 1e6 - start_s * 1e6,
        "args": args,
    }


Tip = tuple[str, str, int]
"""(``s`` or ``f``, the name of an arrow, the player at its other end)."""


def _tips(timeline: Timeline, program: Program) -> dict[int, Tip]:
    """Give of each row of a send or receive between players the end of an arrow that it is."""
    mesh, found = program.placement.mesh, dict[int, Tip]()
    if len(program.stages) == 1:
        return found
    player_of = {rank: p for p, ranks in enumerate(timeline.alike) for rank in ranks}

    def other(player: int, by: int) -> int:
        return player_of.get(mesh.shift(timeline.alike[player][0], "pp", by=by), -1)

    rows = np.flatnonzero((timeline.kind == KINDS.index("pipeline")) & np.isfinite(timeline.stop_s))
    for row in rows.tolist():
        player = int(timeline.player[row])
        instruction = program.of(timeline.alike[player][0]).instructions[timeline.instruction[row]]
        assert isinstance(instruction, Send | Recv)
        theirs = other(player, instruction.by)
        if theirs >= 0 and other(theirs, -instruction.by) == player:  # each is the other's
            sends = isinstance(instruction, Send)
            ends = f"{player}-{theirs}" if sends else f"{theirs}-{player}"
            found[row] = "s" if sends else "f", f"{ends} {instruction.tag}", theirs
    return found


def _tip(timeline: Timeline, row: int, pid: int, end: str, arrow: str, *, name: str) -> Event:
    start_s, stop_s = float(timeline.start_s[row]), float(timeline.stop_s[row])
    at_s = start_s if end == "s" else start_s + 0.999 * (stop_s - start_s)  # within the piece
    event: Event = {"ph": end, "id": f"{name} {arrow}", "name": "message", "cat": "pipeline"}
    where: Event = {"pid": pid, "tid": int(timeline.stream[row]), "ts": at_s * 1e6}
    return event | where | ({"bp": "e"} if end == "f" else {})


def _counters(memory: MemoryCurve, pid: int) -> list[Event]:
    """Give the counters of what a rank holds, by kind."""
    return [
        {
            "ph": "C",
            "pid": pid,
            "tid": 0,
            "name": "memory, bytes",
            "ts": at_s * 1e6,
            "args": {kind: int(held[i]) for kind, held in memory.held_bytes.items()},
        }
        for i, at_s in enumerate(memory.times_s.tolist())
    ]
