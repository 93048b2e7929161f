"""Where the time of a rank goes in a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stretto.timeline.value import KINDS, Timeline


@dataclass(frozen=True, slots=True)
class Usage:
    """Where the time of a rank goes; its parts sum to the step.

    Attributes:
        rank: Which.
        busy_s: Its device works, contention included.
        exposed_s: It waits while a message is under way, by the kind of the message.
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
    rows = np.flatnonzero(line.player == player)
    device, vote = KINDS.index("device"), KINDS.index("vote")
    heads = rows[np.isin(line.kind[rows], (device, vote))]  # what waits for messages
    heads = heads[np.argsort(line.start_s[heads], kind="stable")]
    taken = np.bincount(
        line.kind[heads], line.stop_s[heads] - line.start_s[heads], minlength=len(KINDS)
    )
    since, until = np.append(0.0, line.stop_s[heads[:-1]]), line.start_s[heads]
    at = line.cause[heads]
    while True:
        # A wait is for the message that ends it, before that for what this waited for, and so on.
        mine = (until > since) & (line.player[at] == player) & (line.kind[at] != device)
        at, since, until = at[mine], since[mine], until[mine]
        if not len(at):
            break
        begun = np.maximum(line.start_s[at], since)
        taken += np.bincount(line.kind[at], until - begun, minlength=len(KINDS))
        at, until = line.cause[at], begun
    busy, exposed = float(taken[device]), dict(zip(KINDS[2:], taken[2:].tolist(), strict=True))
    bubble = max(0.0, line.step_s - float(taken.sum()))
    return Usage(line.alike[player][0], busy, exposed, bubble)
