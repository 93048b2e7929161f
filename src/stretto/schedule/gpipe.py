"""GPipe: all forwards, then all backwards (Huang et al., 2019)."""

from stretto.schedule.legal import require
from stretto.schedule.schedule import Action, Pass, Schedule
from stretto.schedule.weave import each, weave


def gpipe(ranks: int, micro_batches: int, *, chunks: int = 1) -> Schedule:
    """Give the GPipe schedule: bubble (p - 1)/(m + p - 1), m micro-batches in flight."""
    require("gpipe", ranks=ranks, micro_batches=micro_batches, chunks=chunks)

    def order(r: int) -> tuple[Action, ...]:
        forwards, backwards = (each(d, r, micro_batches) for d in (Pass.FORWARD, Pass.BACKWARD))
        return weave((forwards, 0), (backwards, micro_batches))

    return Schedule(ranks, micro_batches, tuple(order(r) for r in range(ranks)))
