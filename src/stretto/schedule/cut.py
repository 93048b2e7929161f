"""Where to cut a chain of blocks into stages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


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
    # best[i] = (dearest stage, start of the last stage) of the first i blocks in s stages
    best: list[float] = total[:]
    starts: list[list[int]] = []
    for stage in range(2, stages + 1):
        row, start = [float("inf")] * (count + 1), [0] * (count + 1)
        for stop in range(stage, count + 1):
            for cut in range(stage - 1, stop):
                dearest = max(best[cut], total[stop] - total[cut])
                if dearest < row[stop]:
                    row[stop], start[stop] = dearest, cut
        best, starts = row, [*starts, start]
    firsts, stop = [], count
    for start in reversed(starts):
        stop = start[stop]
        firsts.append(stop)
    return (0, *reversed(firsts))
