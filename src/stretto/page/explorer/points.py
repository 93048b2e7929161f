"""What a search found as points of a picture: time against memory, money or energy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto.cost import Number
from stretto.search import Found, Objective, Row, staircase, thinned

Places = NDArray[np.int64]
"""Points, by their number."""

_SLOWEST = 10.0  # times as slow as the fastest: whoever waits longer has fewer devices
_WORTH = 0.01  # of what is saved: for less nobody waits, and no estimate tells it
_SPREAD, _WIDE = 1.1, 2.5  # times as slow as the slowest of the front, and as the fastest
_COLUMNS, _ROWS = 96, 64  # of the raster in which one point is kept of each kind


@dataclass(frozen=True, slots=True)
class Points:
    """Plans that can be, of one search or of several that differ in their devices.

    Attributes:
        founds: The searches.
        search: Which of them each point is of.
        place: Which of its candidates it is.
        time_s: Seconds of a step.
        against: What else is to be small: bytes, money or joules.
        family: The kind of each plan: see `stretto.search.families`.
        runs: Whether the runtime runs it today.
    """

    founds: tuple[Found, ...]
    search: Places
    place: Places
    time_s: Number
    against: Number
    family: Places
    runs: NDArray[np.bool_]

    @staticmethod
    def of(founds: Sequence[Found], objective: Objective) -> Points:
        """Give the candidates of searches as points.

        Args:
            founds: The searches.
            objective: What is best, which says against what time is drawn.
        """
        own = [found.candidates for found in founds]
        counts = [len(candidates) for candidates in own]
        return Points(
            tuple(founds),
            np.repeat(np.arange(len(own)), counts),
            np.concatenate([np.arange(count) for count in counts]),
            np.concatenate([c.time_s for c in own]),
            np.concatenate([_against(found, objective) for found in founds]),
            np.concatenate([c.family for c in own]),
            np.concatenate([c.runs for c in own]),
        )

    def front(self) -> list[int]:
        """Give the points that no other matches or beats in both, the fastest first.

        Each takes at least `_WORTH` less of what else is to be small than the one before.
        """
        places = staircase(self.time_s, self.against).astype(np.int64)
        near = places[self.time_s[places] <= _SLOWEST * self.time_s[places[0]]]
        worth = list[int]()
        for place in map(int, near):
            if not worth or self.against[place] <= (1 - _WORTH) * self.against[worth[-1]]:
                worth.append(place)
        return worth

    def told(self, front: Sequence[int], most: int) -> list[int]:
        """Give so many points of the front that are told in full, spread evenly over it."""
        return [*map(int, thinned(np.array(front), by=self.against, most=most))]

    def cloud(self, most: int, *, front: Sequence[int]) -> Places:
        """Give a sample of points that shows where they lie and of which kinds."""
        slowest = _SPREAD * np.max(self.time_s[front])
        wide = _WIDE * len(self.founds) * np.min(self.time_s)
        shown = np.flatnonzero(self.time_s <= max(slowest, wide))
        cells = _cells(np.log(self.time_s[shown]), _COLUMNS) * _ROWS
        cells = (cells + _cells(self.against[shown], _ROWS)) * 64 + self.family[shown]
        _, firsts = np.unique(cells, return_index=True)
        if len(firsts) > most:
            firsts = firsts[np.linspace(0, len(firsts) - 1, most).astype(np.int64)]
        return np.sort(shown[firsts])

    def best(self, found: Found) -> int:
        """Give the point that is the best plan of one of the searches."""
        return self._number(found, int(np.argmin(found.value)))

    def running(self, found: Found) -> int | None:
        """Give the fastest plan of a search that the runtime runs today, if there is one."""
        candidates = found.candidates
        seconds = np.where(candidates.runs, candidates.time_s, np.inf)
        return self._number(found, int(np.argmin(seconds))) if candidates.runs.any() else None

    def rival(self, point: int) -> int | None:
        """Give the fastest plan of another kind that takes no more of what else is to be small."""
        other = (self.against <= self.against[point]) & (self.family != self.family[point])
        places = np.flatnonzero(other)
        return int(places[np.argmin(self.time_s[places])]) if len(places) else None

    def beaten(self, point: int) -> int:
        """Count the plans that take no more of it, itself among them."""
        return int(np.count_nonzero(self.against <= self.against[point]))

    def demand(self, point: int, objective: Objective) -> tuple[str, ...]:
        """Give the option of ``stretto plan`` that makes this plan of the front its answer."""
        mine = self.search == self.search[point]
        faster = mine & (self.time_s < self.time_s[point])
        key, unit, size = _UNITS[objective]
        if not faster.any() or key == "cost":  # the fastest of its devices is the cheapest of them
            return ()
        value, least = self.against[point] / size, np.min(self.against[faster]) / size
        for digits in range(1, 16):
            limit = math.ceil(value * 10**digits) / 10**digits
            if value <= limit < least:
                break
        return (f"--constraint '{key}<={limit:.{digits}f}{unit}'",)

    def rows(self, points: Sequence[int]) -> Iterator[tuple[Found, list[int], Row]]:
        """Give the decisions of some points, search by search: (search, points of it, rows)."""
        for i, found in enumerate(self.founds):
            own = [point for point in points if self.search[point] == i]
            if own:
                yield found, own, found.candidates.rows(self.place[own])

    def _number(self, found: Found, place: int) -> int:
        search = next(i for i, one in enumerate(self.founds) if one is found)
        return int(np.argmax(self.search == search)) + place


_UNITS: dict[Objective, tuple[str, str, float]] = {
    "time": ("memory", "GiB", 2.0**30),
    "memory-headroom": ("memory", "GiB", 2.0**30),
    "cost": ("cost", "", 1.0),
    "energy": ("energy", "kWh", 3.6e6),
}
"""The key of a constraint on what time is drawn against, and a unit of it."""


def _against(found: Found, objective: Objective) -> Number:
    match objective:
        case "time" | "memory-headroom":
            return found.candidates.memory_bytes
        case "cost":
            price = found.task.devices * found.task.machine.price_per_s
            return np.asarray(found.candidates.time_s * price)
        case "energy":
            return found.candidates.energy_j


def _cells(values: Number, count: int) -> Places:
    """Give in which of so many equal intervals each value lies."""
    least, most = np.min(values), np.max(values)
    share = (values - least) / (most - least) if most > least else np.zeros_like(values)
    return np.minimum(count - 1, share * count).astype(np.int64)
