"""Actions woven by rounds: how most papers' schedules are written here."""

from __future__ import annotations

from collections.abc import Sequence

from stretto.schedule.schedule import Action, Pass

Track = tuple[Sequence[Action], int]
"""Actions in order, and the round in which the first of them runs."""


def weave(*tracks: Track) -> tuple[Action, ...]:
    """Give the actions of all tracks: in each round the next one of every track that has begun.

    A rank's list is one building block, a pass of each kind, repeated for every micro-batch and
    squeezed (Qi et al., 2024): how much later a pass comes than the forward of its micro-batch is
    all that tells 1F1B from a zero-bubble schedule.

    Args:
        tracks: In the order within a round.
    """
    rounds = max(begins + len(actions) for actions, begins in tracks)
    return tuple(
        actions[i - begins]
        for i in range(rounds)
        for actions, begins in tracks
        if 0 <= i - begins < len(actions)
    )


def each(direction: Pass, stage: int, micro_batches: int) -> tuple[Action, ...]:
    """Give a pass of a stage on every micro-batch in order."""
    return tuple(Action(direction, stage, m) for m in range(micro_batches))
