"""What one rank saw of a step, understood: when it worked, and what it waited for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stretto.errors import InputError, Problem
from stretto.timeline.rows import Rows
from stretto.timeline.track import Track
from stretto.timeline.value import HEADS, KINDS, Floats, Ints

LEAST_S = 1e-6
"""Shorter gaps are not told of: they are what looking at the clock takes."""

Waits = dict[int, list[tuple[float, float, int]]]
"""For the gap before a head (since, until, the message's row) of each wait, in order."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The rows of a rank: first what is of no instruction, then those of its list.

    Attributes:
        instruction: Of each row the index of its instruction; -1 for none.
        kind: An index into `KINDS`.
        queue: An index into the queues of its stage; -1 for what is no message.
        sent_bytes: What the rank sends in it.
        start_s: When it began; of a message when this rank was ready for it.
        stop_s: When it was done; infinite for a message whose end nobody saw.
        memory_bytes: What was held after it.
        after: The row of this rank that it waited for, of a message the one in or after which it
            was issued; -1 for none.
    """

    instruction: Ints
    kind: Ints
    queue: Ints
    sent_bytes: Ints
    start_s: Floats
    stop_s: Floats
    memory_bytes: Ints
    after: Ints


def seen(track: Track, listed: Rows, *, late_s: float = 0.0) -> Seen:
    """Give what a rank saw, understood.

    Args:
        track: What it saw.
        listed: The rows of its program.
        late_s: How much later than others the rank began to count seconds.

    Raises:
        InputError: They are not those that it saw.
    """
    order = np.argsort(track.instruction, kind="stable")
    order = order[track.instruction[order] >= 0]
    if not np.array_equal(track.instruction[order], listed.instruction):
        rule = f"rank {track.counters.rank} recorded another program than this"
        remedy = "read it with the program of the plan that it keeps"
        raise InputError(Problem(f"step {track.step}", rule, remedy))
    count = len(track.instruction)
    kind, queue, sent = track.kind.copy(), np.full(count, -1), np.zeros(count, dtype=np.int64)
    kind[order], queue[order], sent[order] = listed.kind, listed.queue, listed.sent_bytes
    start, asked, stop = (t + late_s for t in (track.start_s, track.asked_s, track.stop_s))
    stop = _ends(start, stop, queue)
    heads = np.flatnonzero(np.isin(kind, HEADS))
    _one_by_one(heads, start, stop)
    line = _Line(heads, start, stop)
    line.fill(_waits(heads, start, stop, asked))

    more, begun, done = len(line.gaps), *np.array(line.gaps).reshape(-1, 2).T
    last = np.searchsorted(stop[heads], done, side="right") - 1
    memory = np.append(track.resting_bytes, track.memory_bytes[heads])[last + 1]
    after = np.full(count + more, -1)
    after[[*line.after]] = [*line.after.values()]
    for row in np.flatnonzero(queue >= 0).tolist():
        if kind[row] not in HEADS:
            after[row] = line.at(row)
    return _sorted(
        Seen(
            np.append(track.instruction, np.full(more, -1)),
            np.append(kind, np.full(more, KINDS.index("host"))),
            np.append(queue, np.full(more, -1)),
            np.append(sent, np.zeros(more, dtype=np.int64)),
            np.append(start, begun),
            np.append(stop, done),
            np.append(track.memory_bytes, memory),
            after,
        )
    )


def _ends(start: Floats, stop: Floats, queue: Ints) -> Floats:
    """Let a message end when that was seen of it or of a later one in its queue."""
    stop = np.where(np.isnan(stop), np.inf, stop)
    for one in range(int(queue.max(initial=-1)) + 1):
        mine = np.flatnonzero(queue == one)
        stop[mine] = np.minimum.accumulate(stop[mine][::-1])[::-1]
    return np.maximum(stop, start)


def _one_by_one(heads: Ints, start: Floats, stop: Floats) -> None:
    """Let nothing begin before what stands before it has ended."""
    done = 0.0
    for row in heads.tolist():
        start[row] = max(start[row], done)
        stop[row] = done = max(stop[row], start[row])


def _waits(heads: Ints, start: Floats, stop: Floats, asked: Floats) -> Waits:
    """Find the gaps in which the rank waited for messages: what followed came when they had."""
    found: Waits = {}
    rows = np.flatnonzero(np.isfinite(asked) & np.isfinite(stop))
    rows = rows[np.argsort(asked[rows], kind="stable")]
    over = np.maximum(asked[rows], stop[rows])
    places = np.searchsorted(start[heads], over, side="left")
    before = np.append(0.0, stop[heads])
    for row, place, until in zip(rows.tolist(), places.tolist(), over.tolist(), strict=True):
        since = max(float(asked[row]), float(before[place]))
        if place < len(heads) and until - since > LEAST_S:
            found.setdefault(place, []).append((since, until, row))
    return found


class _Line:
    """What a rank did one after the other, while what is missing is filled in.

    Attributes:
        gaps: When rows begin and end that are new: the host's.
        after: Of each row of the line what it waited for; rows that are new are counted on.
        between: New rows before each head.
    """

    def __init__(self, heads: Ints, start: Floats, stop: Floats) -> None:
        self.heads, self.start, self.stop = heads, start, stop
        self.gaps: list[tuple[float, float]] = []
        self.after: dict[int, int] = {}
        self.between: dict[int, list[int]] = {}

    def fill(self, waits: Waits) -> None:
        """Give the host what the rank neither works nor waits in."""
        last, done = -1, 0.0
        for place, head in enumerate(self.heads.tolist()):
            until = float(self.start[head])
            for since, over, message in (*waits.get(place, ()), (until, until, -1)):
                if since - done > LEAST_S:
                    row = len(self.start) + len(self.gaps)
                    self.gaps.append((done, since))
                    self.between.setdefault(place, []).append(row)
                    self.after[row], last = last, row
                done = max(done, over)
                last = message if message >= 0 else last
            self.after[head], last = last, head
            done = float(self.stop[head])

    def at(self, row: int) -> int:
        """Give the row of the line in or after which a message was issued; -1 for none."""
        place = int(np.searchsorted(self.heads, row))
        begun = [
            gap
            for gap in self.between.get(place, ())
            if self.gaps[gap - len(self.start)][0] <= self.start[row]
        ]
        return begun[-1] if begun else int(self.heads[place - 1]) if place else -1


def _sorted(rows: Seen) -> Seen:
    """Put rows in the order of the list; those of no instruction stand before, in that of time."""
    count = np.arange(len(rows.kind))
    key = np.where(rows.instruction < 0, rows.start_s, count)
    order = np.lexsort((count, key, rows.instruction))
    place = np.append(np.empty_like(count), -1)
    place[order] = count
    return Seen(
        rows.instruction[order],
        rows.kind[order],
        rows.queue[order],
        rows.sent_bytes[order],
        rows.start_s[order],
        rows.stop_s[order],
        rows.memory_bytes[order],
        place[rows.after[order]],
    )
