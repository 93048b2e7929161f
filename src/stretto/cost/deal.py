"""How many layers the ranks of a pipeline have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stretto.cost.choice import SCHEDULES
from stretto.cost.numbers import Number, ceil_div
from stretto.cost.pricing import Pricing


@dataclass(frozen=True, slots=True)
class Deal:
    """The layers of ranks of a pipeline; a part of one counts by its share of a layer's cost.

    Attributes:
        first: Of the first rank.
        inner: Of the fullest of those between the first and the last.
        last: Of the last rank, which predicts.
        other: Of the fullest but the last.
    """

    first: Number
    inner: Number
    last: Number
    other: Number


def deal(p: Pricing) -> Deal:
    """Give the layers of ranks, as the software deals them.

    Either layers are dealt whole and evenly, and those that do not divide left out at the ends,
    which embed and predict; or stages are cut so that the dearest costs as little as can be.
    """
    c, layers = p.choice, p.shape.layers
    single = c.pp == 1
    most = np.where(single, layers, ceil_div(layers, c.pp * c.interleave) * c.interleave)
    spared = np.minimum((most * c.pp - layers) / 2, c.interleave)
    # Of two ranks there is none between them.
    other = most - np.where(c.pp == 2, np.floor(spared), 0.0)
    even = Deal(most - spared, most, most - spared, other)
    spread = c.schedule == SCHEDULES.index("vocabulary")  # every rank has a share of the head
    cut = (p.stack.cut_by_cost > 0) & (c.first_layers >= 0) & (c.interleave == 1) & ~spread
    if not np.any(cut):
        return even
    fullest = np.maximum(c.first_layers, c.inner_layers)
    own = Deal(c.first_layers, c.inner_layers, c.last_layers, fullest)
    return Deal(*(np.where(cut, getattr(own, n), getattr(even, n)) for n in Deal.__slots__))
