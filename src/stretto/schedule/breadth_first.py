"""Breadth-first: every micro-batch through a stage before the rank's next (Lamy-Poirier, 2023)."""

from stretto.schedule.legal import require
from stretto.schedule.schedule import Action, Pass, Schedule
from stretto.schedule.weave import each


def breadth_first(ranks: int, micro_batches: int, *, chunks: int = 1) -> Schedule:
    """Give the breadth-first schedule: GPipe's bubble over v, m micro-batches in flight.

    A stage's parameters are used, and its gradients complete, all at once, so with sharded
    parameters each stage is gathered and reduced once a step. With fewer micro-batches than ranks
    a rank waits before each of its stages.
    """
    require("breadth-first", ranks=ranks, micro_batches=micro_batches, chunks=chunks)
    stages = ranks * chunks

    def order(r: int) -> tuple[Action, ...]:
        own = range(r, stages, ranks)
        forwards = [a for stage in own for a in each(Pass.FORWARD, stage, micro_batches)]
        backwards = [
            a for stage in reversed(own) for a in each(Pass.BACKWARD, stage, micro_batches)
        ]
        return (*forwards, *backwards)

    return Schedule(stages, micro_batches, tuple(order(r) for r in range(ranks)))
