"""What the ranks of a run saw of a step, joined to one timeline.

A rank knows when it issued a message, when it began to wait for it, and when the wait was over.
What that says of the message only all its ranks know together: it begins when the last of them has
issued it, and those before it in its queue are done. So the time before that is spent waiting for
another rank, and only the time after it on the message, as in a step that is simulated.

Ranks of one machine have one clock. Machines have theirs from the end of a vote, which comes to all
of them at once, but for the latency of a small message.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from stretto.errors import InputError, Problem
from stretto.program.instruction import Program
from stretto.timeline.rows import Queue, rows
from stretto.timeline.seen import seen
from stretto.timeline.track import (
    Counters,
    Track,
    files,
    forget,
    load,
    no_recording,
    plan_of,
    recorded_steps,
    thin,
    write,
)
from stretto.timeline.value import HEADS, KINDS, Ints, Timeline

__all__ = [
    "Counters", "Recording", "Track", "forget", "join", "plan_of", "read", "recorded_steps", "thin",
    "write",
]  # fmt: skip

STREAMS = ("none", "device", "host")
"""What things run on besides queues of messages; waits for data are the host's."""

LEAST_WAIT = 0.05
"""Who waits for a smaller share of a message's time has hardly waited: it just asked."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A step as it happened.

    Attributes:
        step: Steps done with it.
        timeline: When every instruction of every rank that is read ran. Where a rank neither worked
            nor waited, a row of the kind "host" says so.
        memory_bytes: Of each row what the process or device held after it.
        resting_bytes: Of each rank what it held at second 0.
        counters: What each rank counted.
    """

    step: int
    timeline: Timeline
    memory_bytes: Ints
    resting_bytes: Ints
    counters: tuple[Counters, ...]


def read(
    directory: Path, step: int, *, program: Program, ranks: Sequence[int] | None = None
) -> Recording:
    """Give a step that was recorded.

    Args:
        directory: That of the run.
        step: Which.
        program: What the ranks did.
        ranks: Whom to read; None for all. What a message waited for is known as far as its ranks
            are read.

    Raises:
        InputError: The step was not recorded, or of another program; a file is damaged.
    """
    found = files(directory, step)
    if not found:
        raise InputError(no_recording(directory, step))
    wanted = sorted(found if ranks is None else set(ranks))
    missing = [rank for rank in wanted if rank not in found]
    if missing or not wanted:
        rule = f"of step {step} there is no recording by rank {', '.join(map(str, missing))}"
        remedy = f"choose from {min(found)} … {max(found)}"
        raise InputError(Problem(str(directory), rule, remedy))
    return join([load(found[rank]) for rank in wanted], program)


def join(tracks: Sequence[Track], program: Program) -> Recording:
    """Give the step that ranks saw.

    Args:
        tracks: What each saw, in the order of ranks.
        program: What they did.

    Raises:
        InputError: They did not do that.
    """
    size = program.placement.mesh.size
    if any(track.world != size for track in tracks):
        rule = f"{tracks[0].world} ranks recorded it, but the program is of {size}"
        remedy = "read it with the program of the plan that it keeps"
        raise InputError(Problem(f"step {tracks[0].step}", rule, remedy))
    return _Joiner(tracks, program).join()


class _Joiner:
    """A step while its ranks are joined: all their rows, one rank after the other."""

    def __init__(self, tracks: Sequence[Track], program: Program) -> None:
        listed = cache(lambda stage: rows(program, program.stages[stage]))
        self.tracks, self.mesh = tracks, program.placement.mesh
        self.ranks = [track.counters.rank for track in tracks]
        stages = [listed(program.of(rank).stage) for rank in self.ranks]
        self.queues = [stage.queues for stage in stages]
        zero: dict[str, float] = {}
        for track in tracks:  # when the first rank of a machine knew what was voted
            zero[track.clock] = min(zero.get(track.clock, math.inf), track.zero_s)
        self.parts = [
            seen(track, stage, late_s=track.zero_s - zero[track.clock])
            for track, stage in zip(tracks, stages, strict=True)
        ]
        self.first = np.cumsum([0, *(len(part.kind) for part in self.parts)])
        self.ready_s, self.stop_s = (
            np.concatenate([getattr(part, name) for part in self.parts])
            for name in ("start_s", "stop_s")
        )
        self.start_s = self.ready_s.copy()
        self.after = self._all("after")
        for first, part in zip(self.first, self.parts, strict=False):
            here = slice(first, first + len(part.after))
            self.after[here] += np.where(part.after >= 0, first, 0)

    def _all(self, name: str) -> Ints:
        return np.concatenate([getattr(part, name) for part in self.parts])

    def join(self) -> Recording:
        """Let messages meet, and tell of everything in one."""
        kind = self._all("kind")
        vote = kind == KINDS.index("vote")
        ends: dict[str, float] = {}
        for track, end in zip(self.tracks, self.stop_s[vote].tolist(), strict=True):
            ends[track.clock] = min(ends.get(track.clock, math.inf), end)
        step_s = max(ends.values())
        self.ready_s, self.stop_s = (np.minimum(t, step_s) for t in (self.ready_s, self.stop_s))
        queues = [(queue, np.stack(rows)) for queue, rows in self._members().values()]
        for queue, everyone in queues:
            self._meet(queue, everyone)
        self.stop_s[vote] = step_s
        self._find(kind, [everyone for _, everyone in queues])
        cause = self.after.copy()
        for _, everyone in queues:
            cause[everyone] = self._waited(everyone)
        names = [queue.name for queues in self.queues for queue in queues]
        streams = (*STREAMS, *dict.fromkeys(names))
        return Recording(
            self.tracks[0].step,
            Timeline(
                tuple((rank,) for rank in self.ranks),
                np.repeat(np.arange(len(self.parts)), np.diff(self.first)),
                self._all("instruction"),
                kind,
                self._streams(streams),
                streams,
                np.minimum(self.start_s, self.stop_s),
                self.stop_s,
                np.maximum(self.stop_s - self.start_s, 0.0),
                self._all("sent_bytes"),
                cause,
                step_s,
                0.0,
                (),
                measured=True,
            ),
            self._all("memory_bytes"),
            np.array([track.resting_bytes for track in self.tracks]),
            tuple(track.counters for track in self.tracks),
        )

    def _streams(self, streams: Sequence[str]) -> Ints:
        """Give the stream of each row."""
        by_kind = {"none": "none", "device": "device", "data": "host", "host": "host"}
        alone = np.array([streams.index(by_kind.get(kind, "none")) for kind in KINDS])
        found = []
        for part, queues in zip(self.parts, self.queues, strict=True):
            places = np.array([streams.index(q.name) for q in queues] + [0])
            found.append(np.where(part.queue >= 0, places[part.queue], alone[part.kind]))
        return np.concatenate(found)

    def _find(self, kind: Ints, queues: Sequence[Ints]) -> None:
        """Let a rank that found a message there, as it asked for it, be after what it did itself.

        Asking takes a moment, in which it seems to wait. But another rank saw that the message had
        come before; or all of them only asked, and nobody saw when it came.
        """
        alone, most_s = np.isin(kind, HEADS), LEAST_WAIT * (self.stop_s - self.start_s)
        pairs = []
        for first, last in itertools.pairwise(self.first):
            line = np.flatnonzero(alone[first:last]) + first
            line = line[np.lexsort((self.stop_s[line], self.start_s[line]))]
            pairs.append((line[:-1], line[1:]))
        before, then = (np.concatenate(side) for side in zip(*pairs, strict=True))
        message = self.after[then]
        asks = (message >= 0) & ~alone[message]
        before, then, message = before[asks], then[asks], message[asks]
        short = self.stop_s[message] - self.stop_s[before] <= most_s[message]
        unseen, come_s = np.ones(len(kind), dtype=bool), self.stop_s.copy()
        unseen[message[~short]] = False
        for everyone in queues:
            unseen[everyone] = unseen[everyone].all(axis=0)
            come_s[everyone] = come_s[everyone].min(axis=0)
        found = short & (unseen[message] | (come_s[message] < self.stop_s[before]))
        self.after[then[found]] = before[found]

    def _members(self) -> dict[Hashable, tuple[Queue, list[Ints]]]:
        """Give for each queue of messages who takes part, with the rows of each in order."""
        found: dict[Hashable, tuple[Queue, list[Ints]]] = {}
        for i, (rank, part, queues) in enumerate(
            zip(self.ranks, self.parts, self.queues, strict=True)
        ):
            for number, queue in enumerate(queues):
                mine = np.flatnonzero(part.queue == number)
                mine = mine[np.argsort(part.start_s[mine], kind="stable")] + self.first[i]
                found.setdefault(queue.ends(self.mesh, rank), (queue, []))[1].append(mine)
        return found

    def _meet(self, queue: Queue, everyone: Ints) -> None:
        """Let the messages of a queue begin when the last of their ranks has come to them.

        Args:
            queue: The queue.
            everyone: The rows of its messages, of each rank in it.
        """
        ready = self.ready_s[everyone]
        if queue.way in ("to", "from"):  # what has arrived has left
            self.stop_s[everyone] = np.maximum(self.stop_s[everyone].min(axis=0), ready)
        before = np.insert(self.stop_s[everyone[:, :-1]], 0, 0.0, axis=1)
        begun = np.maximum(ready.max(axis=0), before)
        self.start_s[everyone] = np.minimum(begun, self.stop_s[everyone])

    def _waited(self, everyone: Ints) -> Ints:
        """Give of the messages of a queue what they waited for: the last rank, or one another."""
        ready, after = self.ready_s[everyone], self.after[everyone]
        come, latest = ready.max(axis=0), ready.argmax(axis=0)[None]
        cause = np.where(ready < come, np.take_along_axis(after, latest, axis=0), after)
        queued = self.stop_s[everyone[:, :-1]] >= come[1:]
        cause[:, 1:] = np.where(queued, everyone[:, :-1], cause[:, 1:])
        return cause
