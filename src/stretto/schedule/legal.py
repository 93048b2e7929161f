"""Which numbers of ranks, micro-batches and stages a schedule takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stretto.errors import PlanError, Problem
from stretto.plan import ScheduleName

CHUNKS: Mapping[ScheduleName, tuple[int, float]] = MappingProxyType(
    {
        "gpipe": (1, 1),
        "1f1b": (1, 1),
        "interleaved": (1, math.inf),
        "breadth-first": (1, math.inf),
        "zb-1p": (1, 1),
        "zb-2p": (1, 1),
        "zb-v": (2, 2),
        "vocabulary": (1, 1),
    }
)
"""The least and the most stages that a rank may run."""


def problems(
    name: ScheduleName, *, ranks: int, micro_batches: int, chunks: int = 1
) -> tuple[Problem, ...]:
    """Give all that keeps a schedule from being built.

    Args:
        name: The schedule.
        ranks: Pipeline ranks.
        micro_batches: Micro-batches of a step.
        chunks: Stages of a rank.
    """
    found = [
        Problem(field, f"makes {count} {what}, below 1", "use more")
        for field, count, what in (
            ("mesh.pp", ranks, "pipeline ranks"),
            ("batch.sequences", micro_batches, "micro-batches"),
        )
        if count < 1
    ]
    least, most = CHUNKS[name]
    if not least <= chunks <= most:
        rule = f"{name} takes {least}{' or more' if most > least else ''} to a rank"
        remedy = f"use {least}" + (", or the schedule interleaved" if chunks > most == 1 else "")
        found.append(Problem("pipeline.interleave", f"{rule}, but is {chunks}", remedy))
    if not found and name == "interleaved" and chunks > 1 and micro_batches % ranks:
        below = micro_batches // ranks * ranks
        counts = " or ".join(str(c) for c in (below, below + ranks) if c)
        found.append(
            Problem(
                "batch.sequences",
                "interleaved takes as many micro-batches at a time as there are pp ranks, but "
                f"{micro_batches} % {ranks} = {micro_batches % ranks}",
                f"use {counts} micro-batches, or the schedule breadth-first",
            )
        )
    return tuple(found)


def possible(name: ScheduleName, *, p: ArrayLike, v: ArrayLike, m: ArrayLike) -> NDArray[np.bool_]:
    """Tell where a schedule has no `problems`, for arrays that broadcast.

    Args:
        name: The schedule.
        p: Pipeline ranks.
        v: Stages of a rank.
        m: Micro-batches of a step.
    """
    p, v, m = np.asarray(p), np.asarray(v), np.asarray(m)
    least, most = CHUNKS[name]
    fits = (p >= 1) & (m >= 1) & (v >= least) & (v <= most)
    if name == "interleaved":
        fits &= (v == 1) | (m % np.maximum(p, 1) == 0)
    return fits


def require(name: ScheduleName, *, ranks: int, micro_batches: int, chunks: int) -> None:
    """Refuse what `problems` finds.

    Raises:
        PlanError: All of it.
    """
    found = problems(name, ranks=ranks, micro_batches=micro_batches, chunks=chunks)
    if found:
        raise PlanError(found)
