"""The best way to give the layers of a model to the ranks of one plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stretto.cost import Number
from stretto.cost.bubble import Load, bubble_s
from stretto.search.frame import Frame, Split
from stretto.search.front import staircase
from stretto.search.partition import Choices, Index, cheapest
from stretto.search.ranks import Share, rank_cost
from stretto.search.staged import ends, sends_s

Mix = Callable[[tuple[int, ...]], Number]
"""Gives what may run again of some layers, told by their kinds in order: how many by way and kind,
a mixture to a place of the first axis."""

LEAST, MOST = 0.5, 1.5
"""Of the layers that a rank would have if all were equally busy, what it has at least and most, but
for two layers."""


def split(frame: Frame, *, mix: Mix, others: Sequence[float] = (0.0,)) -> Split | None:
    """Give the best way in which a plan's ranks may share the layers; None if none fits.

    Where a rank has one stage, stages are cut anywhere between layers; else they are even.

    Args:
        frame: What else is decided.
        mix: What may run again.
        others: Shares of a rank's layers that may rest by the frame's other ZeRO stage.
    """
    spans = _spans(frame)
    again, other, kinds = [], [], []
    for number, kind in enumerate(spans.contents):
        mixed = mix(kind)
        for count in sorted({round(share * len(kind)) for share in others}):
            again.append(mixed)
            other.append(np.full(len(mixed), float(count)))
            kinds.append(np.full(len(mixed), number))
    rows, resting, owner = (np.concatenate(parts) for parts in (again, other, kinds))
    spread, peak = _terms(frame, rows, resting)
    picked = cheapest(choices)
    ...
