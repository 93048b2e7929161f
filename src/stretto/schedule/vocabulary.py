"""Vocabulary parallelism: 1F1B whose ranks share the output layer (Yeung et al., 2024)."""

import math

from stretto.schedule.legal import require
from stretto.schedule.schedule import Action, Pass, Schedule
from stretto.schedule.weave import each, weave


def vocabulary(
    ranks: int, micro_batches: int, *, chunks: int = 1, backward: float = 2.0
) -> Schedule:
    """Give 1F1B with vocabulary passes between forward and backward: p - r + 1 in flight.

    This is the paper's algorithm 2, with one barrier: the last stage's backward waits for the
    vocabulary pass of all ranks, so it comes one round later than in 1F1B, and each rank holds one
    more micro-batch. A rank does its vocabulary pass when the last stage has done the forward,
    which the rank itself did a while before. The input layer's passes, a lookup, are no actions.

    Args:
        ranks: Pipeline ranks.
        micro_batches: Micro-batches of a step.
        chunks: Stages of a rank: one.
        backward: Seconds of a stage's backward for each of its forward.
    """
    require("vocabulary", ranks=ranks, micro_batches=micro_batches, chunks=chunks)

    def order(r: int) -> tuple[Action, ...]:
        forwards, backwards, outputs, weights = (
            each(d, r, micro_batches)
            for d in (Pass.FORWARD, Pass.BACKWARD, Pass.VOCABULARY, Pass.VOCABULARY_WEIGHT)
        )
        # The last stage is (p - 1 - r) forwards away, and a round takes 1 + backward of them.
        away = math.ceil((ranks - 1 - r) / (1.0 + backward))
        return weave((forwards, 0), (outputs, away), (weights, away + 1), (backwards, ranks - r))

    return Schedule(ranks, micro_batches, tuple(order(r) for r in range(ranks)))
