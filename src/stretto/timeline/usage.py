"""Where the time of a rank goes in a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stretto.timeline.value import HEADS, KINDS, Floats, Ints, Timeline


@dataclass(frozen=True, slots=True)
class Usage:
    """Where the time of a rank goes; its parts sum to the step.

    Attributes:
        rank: Which.
        busy_s: Its device works, contention included.
        exposed_s: It waits while a message is under way, by the kind of the message; "data" and
            "host" are waits for micro-batches and for its own host.
        bubble_s: It waits while none is: for other ranks.
    """

    rank: int
    busy_s: float
    exposed_s: Mapping[str, float]
    bubble_s: float

    @property
    def step_s(self) -> float:
        """The step."""
        return self.busy_s + sum(self.exposed_s.values()) + self.bubble_s


def usages(line: Timeline) -> tuple[Usage, ...]:
    """Give where the time of every rank that is played goes, in a step that ends."""
    return tuple(_usage(line, player) for player in range(len(line.alike)))


def _usage(line: Timeline, player: int) -> Usage:
    rows, since, until = moments(line, player)
    taken = np.bincount(line.kind[rows], until - since, minlength=len(KINDS))
    busy, exposed = (
        float(taken[KINDS.index("device")]),
        dict(zip(KINDS[2:], taken[2:].tolist(), strict=True)),
    )
    bubble = max(0.0, line.step_s - float(taken.sum()))
    return Usage(line.alike[player][0], busy, exposed, bubble)


def moments(line: Timeline, player: int) -> tuple[Ints, Floats, Floats]:
    """Give what the time of a player goes to: rows, from when, until when; they do not overlap.

    What a rank does one after the other counts first (`HEADS`). A wait is for the message that
    ends it, before that for what this waited for, and so on; what is left is nobody's: a bubble.
    """
    mine = np.arange(*np.searchsorted(line.player, (player, player + 1)))
    heads = mine[np.isin(line.kind[mine], HEADS) & np.isfinite(line.stop_s[mine])]
    heads = heads[np.lexsort((line.stop_s[heads], line.start_s[heads]))]
    done = np.append(0.0, np.maximum.accumulate(line.stop_s[heads]))
    since, until = done[:-1], np.maximum(line.start_s[heads], done[:-1])
    found = [(heads, until, done[1:])]
    at = line.cause[heads]
    while len(at):
        own = (until > since) & (at >= 0)
        own &= (line.player[at] == player) & ~np.isin(line.kind[at], HEADS)
        at, since, until = at[own], since[own], until[own]
        begun = np.clip(line.start_s[at], since, until)
        found.append((at, begun, until))
        at, until = line.cause[at], begun
    rows, begins, ends = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rows, begins, ends
