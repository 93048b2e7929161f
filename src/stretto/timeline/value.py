"""A step on a clock, as a value: when every instruction of every kind of rank ran, or would run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

KINDS = (
    "none",
    "device",
    "activation",
    "parameter",
    "gradient",
    "pipeline",
    "vote",
    "data",
    "host",
)
"""What a row is: nothing that takes time, work of a device, a message by what it is for, a wait for
micro-batches, or what a host does while its device waits: between two steps, and in between."""

HEADS = tuple(KINDS.index(kind) for kind in ("device", "vote", "data", "host"))
"""Kinds of what a rank does one after the other; what lies between it waits for messages."""


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
        measured: Whether it was recorded: then ends of messages are known as far as ranks waited.
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
    measured: bool = False

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
        return critical(self.cause, self.stop_s)


def critical(cause: Ints, stop_s: Floats) -> list[int]:
    """Give the critical path: from the last end back to what it waited for, and so on; in order.

    Args:
        cause: Of each thing that is done the one whose end it waited for; -1 for none.
        stop_s: When each is done; infinite for what never is.
    """
    ended = np.where(np.isfinite(stop_s), stop_s, -1.0)
    at, path = int(ended.argmax()), []
    while at >= 0:
        path.append(at)
        at = int(cause[at])
        assert len(path) <= len(cause), "what waits is waited for by itself"
    return path[::-1]
