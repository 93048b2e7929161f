"""How long something takes: warmed up, repeated until it is stable or time is up.

Ranks stop together: every decision follows from numbers that all of them have seen, the clock of
rank 0 among them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
import torch.distributed as dist

from stretto.cluster import Sample
from stretto.runtime.environment import World

Action = Callable[[], None]
Tell = Callable[[Sample, float], None]
"""Takes what is measured, and the seconds that have gone."""
Together = Literal["apart", "together"]
"""Whether ranks work each by itself, or with one another and so as slowly as the slowest."""

T = TypeVar("T")

_FEWEST, _MOST = 3, 20
_STABLE = 0.03
_WINDOW_S = 3e-3
"""What is shorter is repeated within one reading of the clock."""

_COST = 1 + _FEWEST + 1
"""Runs that a timing takes at least: two to warm up."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long something took.

    Attributes:
        seconds: Median over readings: of the middle rank where ranks work apart, of the slowest
            where they work together.
        spread: Half the interquartile range of the readings over their median.
        readings: How many there are.
        rank_s: Each rank's own median, in seconds.
    """

    seconds: float
    spread: float
    readings: int
    rank_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """A measurement and how it came about.

    Attributes:
        sample: What a cluster is fitted to.
        timing: The readings.
    """

    sample: Sample
    timing: Timing


@dataclass(frozen=True, slots=True)
class Rung:
    """One size of what is measured in growing sizes.

    Attributes:
        sample: What is measured; its seconds are not known yet.
        size: How much it is; time grows about like it.
        prepare: Gives the action whose time is taken.
    """

    sample: Sample
    size: float
    prepare: Callable[[], Action]


class Meter:
    """Measures on all ranks at once; every rank calls the same methods in the same order."""

    def __init__(self, world: World, *, tell: Tell) -> None:
        """Begin the clock.

        Args:
            world: This process.
            tell: Is told of progress, on rank 0.
        """
        self.world = world
        self.device = world.device
        self.now_s = 0.0
        self._tell = tell
        self._began = time.perf_counter()

    def gather(self, value: float) -> tuple[float, ...]:
        """Give the value of every rank, once all have come; and set the common clock."""
        mine = torch.tensor([value, time.perf_counter() - self._began], dtype=torch.float64)
        every = mine.new_empty(self.world.size * 2)
        dist.all_gather_single(every, mine)
        values, clocks = every.view(-1, 2).T.tolist()
        self.now_s = clocks[0]
        return tuple(values)

    def tell(self, what: Sample) -> None:
        """Tell what is measured now."""
        if self.world.rank == 0:
            self._tell(what, self.now_s)

    def shared(self, items: Sequence[T], *, until_s: float) -> Iterator[tuple[T, float]]:
        """Give items, each with the time at which it should end: what is left, shared evenly."""
        for i, item in enumerate(items):
            yield item, self.now_s + max(0.0, until_s - self.now_s) / (len(items) - i)

    def climb(
        self, rungs: Sequence[Rung], *, until_s: float, ranks: Together
    ) -> Iterator[Measured]:
        """Give what was measured of each rung that there is time for; of the first in any case.

        Args:
            rungs: From small to large.
            until_s: When to end, on the common clock.
            ranks: How they work.
        """
        before: list[tuple[float, float]] = [(0.0, 0.0)]
        for rung, end_s in self.shared(rungs, until_s=until_s):
            expected_s = _extrapolated(before[-2:], rung.size)
            if self.now_s + _COST * expected_s > until_s and len(before) > 1:
                return
            self.tell(rung.sample)
            timing = self.time(rung.prepare(), until_s=end_s, ranks=ranks)
            yield Measured(replace(rung.sample, seconds=timing.seconds), timing)
            before.append((rung.size, timing.seconds))

    def time(self, action: Action, *, until_s: float, ranks: Together) -> Timing:
        """Give how long an action takes.

        Args:
            action: What every rank does.
            until_s: When to end, on the common clock, though never before a few readings.
            ranks: How they work.
        """
        action()  # makes connections, chooses kernels
        once = max(self.gather(elapsed(action, device=self.device)))
        times = min(1000, max(1, math.ceil(_WINDOW_S / max(once, 1e-7))))
        rows: list[tuple[float, ...]] = []
        while len(rows) < _FEWEST or (
            len(rows) < _MOST and self.now_s < until_s and not _stable(rows, ranks)
        ):
            rows.append(self.gather(elapsed(action, device=self.device, times=times)))
        of_all = [_of_all(row, ranks) for row in rows]
        middle = statistics.median(of_all)
        by_rank = tuple(statistics.median(column) for column in zip(*rows, strict=True))
        return Timing(middle, _spread(of_all), len(rows), by_rank)


def elapsed(action: Action, *, device: torch.device, times: int = 1) -> float:
    """Give the seconds that an action takes, the mean of `times` in a row."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        for _ in range(times):
            action()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / times
    began = time.perf_counter()
    for _ in range(times):
        action()
    return (time.perf_counter() - began) / times


def _extrapolated(known: Sequence[tuple[float, float]], size: float) -> float:
    """Give about the seconds that `size` takes, from the (size, seconds) before it.

    It is on the line through the last two, but noise shall not make that flat; nor is a line drawn
    through nothing, as the first message is all latency.
    """
    (size_0, seconds_0), (size_1, seconds_1) = known[0], known[-1]
    if not size_1:
        return 0.0
    line_s = seconds_1 + (seconds_1 - seconds_0) * (size - size_1) / (size_1 - size_0)
    least_s = seconds_1 * math.sqrt(size / size_1)
    return max(line_s, least_s) if size_0 else least_s


def _of_all(row: Sequence[float], ranks: Together) -> float:
    match ranks:
        case "apart":
            return statistics.median(row)
        case "together":
            return max(row)


def _stable(rows: Sequence[Sequence[float]], ranks: Together) -> bool:
    """Tell whether the median of readings is known well: to the width of half of them, over √n."""
    spread = _spread([_of_all(row, ranks) for row in rows])
    return spread / math.sqrt(len(rows)) < _STABLE / math.sqrt(_FEWEST)


def _spread(values: Sequence[float]) -> float:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / middle
