"""1F1B: one forward, one backward (Narayanan et al., 2019; flush as in Narayanan et al., 2021)."""

from stretto.schedule.legal import require
from stretto.schedule.schedule import Action, Pass, Schedule
from stretto.schedule.weave import each, weave


def one_f_one_b(ranks: int, micro_batches: int, *, chunks: int = 1) -> Schedule:
    """Give the 1F1B schedule: GPipe's bubble, at most p - r micro-batches in flight on rank r."""
    require("1f1b", ranks=ranks, micro_batches=micro_batches, chunks=chunks)

    def order(r: int) -> tuple[Action, ...]:
        forwards, backwards = (each(d, r, micro_batches) for d in (Pass.FORWARD, Pass.BACKWARD))
        return weave((forwards, 0), (backwards, ranks - 1 - r))

    return Schedule(ranks, micro_batches, tuple(order(r) for r in range(ranks)))
