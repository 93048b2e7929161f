"""Which layers each pipeline rank has, and how: the cheapest choice, by dynamic programming."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto.cost import Number

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Choices:
    """What ranks may take: spans of layers, each in several ways.

    A step takes Σ `spread` + max `peak` over ranks: under 1F1B with m micro-batches of t seconds on
    a rank, spread is t, and peak (m - 1)·t and what comes once in a step (Narayanan et al., 2021).

    Attributes:
        spread: What a rank adds to the step, by rank, kind of span and way; ∞ where it cannot be.
        peak: What it adds if it is the busiest.
        sizes: Layers of a span.
        kinds: The kind of the span that begins at a layer and has a size, by these; -1 for none.
    """

    spread: Number
    peak: Number
    sizes: Index
    kinds: Index

    @property
    def layers(self) -> int:
        """All layers."""
        return len(self.kinds) - 1


@dataclass(frozen=True, slots=True)
class Pick:
    """What one rank takes.

    Attributes:
        first: Its first layer.
        stop: The first after it.
        kind: The kind of the span.
        way: Which way.
    """

    first: int
    stop: int
    kind: int
    way: int


def cheapest(choices: Choices) -> tuple[Pick, ...]:
    """Give what every rank takes so that the step is shortest; nothing if no choice can be.

    For a bound on the busiest rank, a path of spans with the least sum is found by dynamic
    programming. The bound falls below the peak of each path found, as long as a lower one can pay
    off: so all that no other choice beats in both sum and peak are seen, and the best is exact.
    """
    low = _lowest_peak(choices)
    best: tuple[Pick, ...] = ()
    shortest = bound = np.inf
    while (found := _path(choices, below=bound)) is not None:
        picks, total, bound = found
        if total + bound < shortest:
            best, shortest = picks, total + bound
        if total + low >= shortest:
            break
    return best


def _lowest_peak(choices: Choices) -> float:
    """Give the least peak of any path; ∞ if there is none."""
    peaks = np.unique(choices.peak[np.isfinite(choices.peak)])
    low, high = 0, len(peaks)
    while low < high:
        middle = (low + high) // 2
        if _path(choices, below=np.nextafter(peaks[middle], np.inf)) is None:
            low = middle + 1
        else:
            high = middle
    return float(peaks[low]) if low < len(peaks) else np.inf


def _path(choices: Choices, *, below: float) -> tuple[tuple[Pick, ...], float, float] | None:
    """Give the picks with peaks below a bound whose sum is least, their sum and their peak."""
    spread = np.where(choices.peak < below, choices.spread, np.inf)
    ways = spread.argmin(-1)
    cost = np.take_along_axis(spread, ways[..., None], -1)[..., 0]
    stops = np.arange(choices.layers + 1)[:, None]
    firsts = stops - choices.sizes
    kinds = choices.kinds[np.maximum(firsts, 0), np.arange(len(choices.sizes))]
    allowed = (firsts >= 0) & (kinds >= 0)
    least = np.where(stops[:, 0] == 0, 0.0, np.inf)
    steps = []
    for own in cost:
        sums = np.where(allowed, least[firsts] + own[kinds], np.inf)
        steps.append(sums.argmin(-1))
        least = sums.min(-1)
    if not np.isfinite(least[-1]):
        return None
    picks: list[Pick] = []
    stop, peak = choices.layers, -np.inf
    for rank in reversed(range(len(cost))):
        size = steps[rank][stop]
        first, kind = int(firsts[stop, size]), int(kinds[stop, size])
        way = int(ways[rank, kind])
        picks.append(Pick(first, stop, kind, way))
        peak, stop = max(peak, float(choices.peak[rank, kind, way])), first
    return tuple(reversed(picks)), float(least[-1]), peak
