"""The random numbers of each run: the same whatever is done about its failures.

So two setups meet the same failures, and their difference has little noise (common random numbers).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Number = NDArray[np.float64]
Index = NDArray[np.int64]

_FIRST = 64  # failures for which numbers are made at once, to begin with


class Source(Protocol):
    """Decides what fails when."""

    def at(self, run: Index, failure: Index) -> tuple[Number, Number, Number]:
        """Give what decides the failures with these numbers in these runs.

        Returns:
            When, as an exponential number of mean 1; which component, uniform in [0, 1); how long
            its repair takes, as an exponential number of mean 1.
        """


class Draws:
    """Three uniform numbers for each failure of each run, made when they are asked for."""

    def __init__(self, seed: int, runs: int) -> None:
        """Begin; run i draws the same however many there are."""
        self._generators = [
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,))) for i in range(runs)
        ]
        self._made = np.empty((runs, 0, 3))

    def at(self, run: Index, failure: Index) -> tuple[Number, Number, Number]:
        """Give what decides the failures with these numbers in these runs."""
        while (have := self._made.shape[1]) <= failure.max(initial=-1):
            more = [g.random((max(_FIRST, have), 3)) for g in self._generators]
            self._made = np.concatenate([self._made, np.stack(more)], axis=1)
        when, which, repair = self._made[run, failure].T
        return -np.log1p(-when), which, -np.log1p(-repair)
