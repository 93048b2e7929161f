"""What can be had for what: plans that no other beats in everything (Pareto)."""

from __future__ import annotations

import numpy as np

from stretto.cost import Number
from stretto.search.found import Found
from stretto.search.rule import Index


def staircase(first: Number, second: Number) -> Index:
    """Give the places that no other place matches or beats in both, by `first` ascending.

    Args:
        first: What is to be small.
        second: What else is.
    """
    order: Index = np.lexsort((second, first))
    least = np.minimum.accumulate(second[order])
    before = np.concatenate([[np.inf], least[:-1]])
    return order[least < before[: len(order)]]


def against_memory(found: Found) -> Index:
    """Give the candidates of which none faster needs as little memory, the fastest first."""
    return staircase(found.candidates.time_s, found.candidates.memory_bytes)


def against_energy(found: Found) -> Index:
    """Give the candidates of which none faster takes as little energy, the fastest first."""
    return staircase(found.candidates.time_s, found.candidates.energy_j)


def thinned(places: Index, *, by: Number, most: int) -> Index:
    """Give at most so many of some places, evenly spread over the values of `by`, ends included."""
    if len(places) <= most:
        return places
    values = by[places]
    wanted = np.linspace(values[0], values[-1], most)
    nearest: Index = np.abs(values[None] - wanted[:, None]).argmin(axis=1)
    return places[np.unique(nearest)]
