"""Where the time of a rank goes in a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stretto.timeline.value import HEADS, KINDS, Timeline


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
    rows = np.arange(*np.searchsorted(line.player, (player, player + 1)))
    heads = rows[np.isin(line.kind[rows], HEADS)]  # what waits for messages
    heads = heads[np.lexsort((line.stop_s[heads], line.start_s[heads]))]
    taken = np.bincount(
        line.kind[heads], line.stop_s[heads] - line.start_s[heads], minlength=len(KINDS)
    )
    since, until = np.append(0.0, line.stop_s[heads[:-1]]), line.start_s[heads]
    at = line.cause[heads]
    while True:
        # A wait is for the message that ends it, before that for what this waited for, and so on.
        mine = (
            (until > since)
            & (at >= 0)
            & (line.player[at] == player)
            & ~np.isin(line.kind[at], HEADS)
        )
        at, since, until = at[mine], since[mine], until[mine]
        if not len(at):
            break
        begun = np.clip(line.start_s[at], since, until)
        taken += np.bincount(line.kind[at], until - begun, minlength=len(KINDS))
        at, until = line.cause[at], begun
    busy, exposed = (
        float(taken[KINDS.index("device")]),
        dict(zip(KINDS[2:], taken[2:].tolist(), strict=True)),
    )
    bubble = max(0.0, line.step_s - float(taken.sum()))
    return Usage(line.alike[player][0], busy, exposed, bubble)
