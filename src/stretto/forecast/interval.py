"""How often to save: in closed form, and found by playing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stretto.forecast.failures import Failures
from stretto.forecast.play import Progress, play
from stretto.forecast.result import Forecast
from stretto.forecast.setup import Checkpoint, Setup

FLAT = 0.001
"""Of goodput: what is so near the best makes no difference."""

_SPAN = 10.0  # times shorter and longer than the closed form's interval is looked
_COARSE, _FINE = 15, 7


def young_s(*, blocking_s: float, mtbf_s: float) -> float:
    """Give the best interval to first order, √(2δM) (Young, 1974).

    Args:
        blocking_s: Seconds that steps wait for a checkpoint, δ.
        mtbf_s: Mean seconds between failures, M.
    """
    return math.sqrt(2 * blocking_s * mtbf_s)


def daly_s(*, blocking_s: float, mtbf_s: float) -> float:
    """Give the best interval to higher order (Daly, 2006).

    √(2δM)·(1 + ⅓·√(δ/2M) + ⅑·δ/2M) − δ where δ < 2M, else M.

    Args:
        blocking_s: Seconds that steps wait for a checkpoint, δ.
        mtbf_s: Mean seconds between failures, M.
    """
    if blocking_s >= 2 * mtbf_s:
        return mtbf_s
    if math.isinf(mtbf_s):
        return math.inf
    half = blocking_s / (2 * mtbf_s)
    first = young_s(blocking_s=blocking_s, mtbf_s=mtbf_s)
    return first * (1 + math.sqrt(half) / 3 + half / 9) - blocking_s


def expected_s(
    work_s: float, *, every_s: float, blocking_s: float, restart_s: float, mtbf_s: float
) -> float:
    """Give the mean seconds of a training, M·e^(R/M)·(e^((τ+δ)/M) − 1)·W/τ (Daly, 2006).

    Args:
        work_s: Seconds of its steps, W: a multiple of τ.
        every_s: From one checkpoint to the next, τ.
        blocking_s: Of a checkpoint, δ.
        restart_s: Of a restart, R, in which it can fail too.
        mtbf_s: Mean seconds between failures, M; exponentially distributed.
    """
    segment = math.expm1((every_s + blocking_s) / mtbf_s)
    return mtbf_s * math.exp(restart_s / mtbf_s) * segment * work_s / every_s


@dataclass(frozen=True, slots=True)
class Intervals:
    """What intervals between checkpoints do.

    Attributes:
        every_s: The intervals that were played, shortest first.
        goodput: The mean share of time in steps that count under each.
        mtbf_s: Mean seconds of running between failures that lose work.
        young_s: The best of Young.
        daly_s: The best of Daly.
    """

    every_s: tuple[float, ...]
    goodput: tuple[float, ...]
    mtbf_s: float
    young_s: float
    daly_s: float

    @property
    def best_s(self) -> float:
        """The interval with the highest goodput."""
        return self.every_s[int(np.argmax(self.goodput))]

    @property
    def flat_s(self) -> tuple[float, float]:
        """The shortest and the longest interval that are as good, but for `FLAT`."""
        near = [
            every
            for every, share in zip(self.every_s, self.goodput, strict=True)
            if share >= max(self.goodput) - FLAT
        ]
        return near[0], near[-1]

    def at(self, every_s: float) -> float:
        """Give the goodput under an interval, between those that were played."""
        return float(np.interp(math.log(every_s), np.log(self.every_s), self.goodput))


def intervals(
    setup: Setup,
    failures: Failures,
    *,
    runs: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> Intervals:
    """Play a training with intervals far apart, then with some around the best of them.

    Every interval meets the same failures. It is a whole number of steps, and no shorter than a
    checkpoint takes to be stored.

    Args:
        setup: The training; its own interval does not count.
        failures: What fails.
        runs: Of each interval.
        seed: Of the random numbers.
        progress: Is told now and then which share is done.
    """
    job, saved = setup.job, setup.checkpoint
    mtbf_s, young, daly = _closed(setup, failures)
    shortest = _shortest(setup)
    centre = min(max(daly, shortest), job.work_s)
    low, high = max(centre / _SPAN, shortest), max(min(centre * _SPAN, job.work_s), shortest)
    halves = (None, None) if progress is None else (_part(progress, 0.0), _part(progress, 0.5))
    found: dict[float, float] = {}
    for count, tell in zip((_COARSE, _FINE), halves, strict=True):
        new = [e for e in _steps(low, high, count=count, setup=setup) if e not in found]
        tried = [replace(setup, checkpoint=replace(saved, every_s=e)) for e in new]
        played = play(tried, failures, runs=runs, seed=seed, progress=tell) if tried else ()
        found |= {e: float(f.goodput.mean()) for e, f in zip(new, played, strict=True)}
        every = sorted(found)
        best = every.index(max(every, key=found.__getitem__))
        low, high = every[max(best - 1, 0)], every[min(best + 1, len(every) - 1)]
    return Intervals(
        tuple(every),
        tuple(found[e] for e in every),
        mtbf_s,
        young,
        daly,
    )


def usual(setup: Setup, failures: Failures) -> Checkpoint:
    """Give checkpoints as often as the closed form says, or as is allowed: a first guess."""
    longest = max(_shortest(setup), setup.job.work_s)
    daly = min(max(_closed(setup, failures)[2], _shortest(setup)), longest)
    (every_s,) = _steps(daly, daly, count=1, setup=setup)
    return replace(setup.checkpoint, every_s=every_s)


def alone(forecast: Forecast) -> Intervals:
    """Give an interval that was played, where no other was."""
    every_s = forecast.setup.checkpoint.every_s
    closed = _closed(forecast.setup, forecast.failures)
    return Intervals((every_s,), (float(forecast.goodput.mean()),), *closed)


def _closed(setup: Setup, failures: Failures) -> tuple[float, float, float]:
    """Give the seconds between failures that lose work, and Young's and Daly's intervals."""
    blocking_s = setup.checkpoint.blocking_s
    mtbf_s = failures.unplanned.mtbf_s(devices=setup.job.devices, nodes=setup.job.nodes)
    young = young_s(blocking_s=blocking_s, mtbf_s=mtbf_s)
    return mtbf_s, young, daly_s(blocking_s=blocking_s, mtbf_s=mtbf_s)


def _shortest(setup: Setup) -> float:
    saved = setup.checkpoint
    return max(saved.background_s, saved.memory_every_s or 0.0, setup.job.step_s)


def _steps(low: float, high: float, *, count: int, setup: Setup) -> Sequence[float]:
    """Give intervals from one to another, as far apart in the logarithm, in whole steps."""
    job, shortest = setup.job, setup.checkpoint.background_s
    steps = np.round(np.geomspace(low, high, count) / job.step_s)
    least = max(1.0, math.ceil(shortest / job.step_s - 1e-9))
    return sorted({float(n * job.step_s) for n in np.clip(steps, least, max(job.steps, least))})


def _part(progress: Progress, begin: float) -> Progress:
    """Give what tells of one half of the work."""
    return lambda share: progress(begin + share / 2)
