"""Interleaved 1F1B: several stages a rank, in turn (Narayanan et al., 2021, section 2.2)."""

from stretto.schedule.legal import require
from stretto.schedule.schedule import Action, Pass, Schedule
from stretto.schedule.weave import weave


def interleaved(ranks: int, micro_batches: int, *, chunks: int = 1) -> Schedule:
    """Give the interleaved schedule: 1F1B's bubble over v, for more activations and messages.

    A rank takes as many micro-batches as there are ranks through its first stage, then through its
    second, and after the last begins with the next ones; backward in the opposite order of stages.
    With one stage a rank it is 1F1B.
    """
    require("interleaved", ranks=ranks, micro_batches=micro_batches, chunks=chunks)
    turns = [
        (chunk, m)
        for first in range(0, micro_batches, ranks)
        for chunk in range(chunks)
        for m in range(first, min(first + ranks, micro_batches))
    ]

    def order(r: int) -> tuple[Action, ...]:
        forwards = [Action(Pass.FORWARD, c * ranks + r, m) for c, m in turns]
        backwards = [Action(Pass.BACKWARD, (chunks - 1 - c) * ranks + r, m) for c, m in turns]
        after = ranks - 1 - r
        warm = 2 * after + (chunks - 1) * ranks if chunks > 1 else after
        return weave((forwards, 0), (backwards, warm))

    return Schedule(ranks * chunks, micro_batches, tuple(order(r) for r in range(ranks)))
