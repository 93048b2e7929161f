"""Where to cut a chain of blocks into stages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def balanced(costs: Sequence[float], stages: int) -> tuple[int, ...]:
    """Give the first block of each stage so that the dearest stage is as cheap as can be.

    The linear partition problem, by dynamic programming; no stage is empty. Among equals the
    earlier stages are the lighter ones: they hold more activations under 1F1B.

    Args:
        costs: Cost of each block, in order; none negative.
        stages: Number of stages, at most the number of blocks.
    """
    count = len(costs)
    assert 1 <= stages <= count, f"{stages} stages of {count} blocks"
    total = [0.0, *itertools.accumulate(costs)]
    best = np.array(total)  # the dearest stage of the first so many blocks
    last = best[None, :] - best[:, None]  # a stage from a block to another
    last[np.tril_indices(count + 1)] = best[0] = np.inf  # none is empty
    starts = []
    for _ in range(2, stages + 1):
        dearest = np.maximum(best[:, None], last)
        start = dearest.argmin(axis=0)
        best = dearest[start, np.arange(count + 1)]
        starts.append(start.tolist())
    firsts, stop = [], count
    for start in reversed(starts):
        stop = start[stop]
        firsts.append(stop)
    return (0, *reversed(firsts))
