"""A cluster's constants fitted to recorded steps by robust least squares."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stretto.calibrate.constant import as_file, changed, constants, stated
from stretto.calibrate.evidence import Evidence
from stretto.calibrate.sample import Sample
from stretto.cluster import Cluster
from stretto.cost.instruction import Prices
from stretto.cost.machine import Machine
from stretto.cost.stacks import own
from stretto.errors import ClusterError, Problem
from stretto.program.instruction import Program
from stretto.simulate import simulate

NOISE = 0.02
"""Relative error that a sample is expected to have which is all of a step."""
STEP_NOISE = 0.003
"""Relative error that the whole step is expected to have."""
LARGE = 3.0
"""Errors, in deviations, from which on they count less and less (a Cauchy distribution)."""
_PLAIN = 100.0  # the same where squares are as good as plain
TOLD = 0.02
"""Share of a time that a constant must be of, for the time to tell of it."""

NOTHING = 0.5
"""What the least sum of squares must fall by, for constants to be others than they were."""

_SMALL = 1e-4  # of a logarithm, for derivatives
_ROUNDS = 30
_FINE = 1e-5  # of the sum of squares and of constants: far below what noise tells apart

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """A constant before and after.

    Attributes:
        name: As in the cluster's file.
        before: Its value there, in SI units.
        after: Its fitted value.
        error: The relative standard error of that value.
        samples: How many kinds of work told of it.
        residual: How far off these still are: the mean of |predicted / measured − 1|, weighted by
            their share of the step.
    """

    name: str
    before: float
    after: float
    error: float
    samples: int
    residual: float


@dataclass(frozen=True, slots=True)
class Residual:
    """How far off a sample was, and is.

    Attributes:
        sample: What was measured.
        share: Its part of all seconds that were.
        before_s: What was predicted.
        after_s: What is.
    """

    sample: Sample
    share: float
    before_s: float
    after_s: float


@dataclass(frozen=True, slots=True)
class Step:
    """A step as it was measured and is predicted.

    Attributes:
        measured_s: The middle of those that were recorded.
        count: How many were.
        spread: How far they are apart; see `Evidence`.
        before_s: What was predicted.
        after_s: What is.
    """

    measured_s: float
    count: int
    spread: float
    before_s: float
    after_s: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What came of it.

    Attributes:
        cluster: The cluster with what was fitted.
        changes: What changed.
        residuals: Of every sample, the longest first.
        steps: One for each run.
    """

    cluster: Cluster
    changes: tuple[Change, ...]
    residuals: tuple[Residual, ...]
    steps: tuple[Step, ...]


def calibrate(runs: Sequence[Evidence], cluster: Cluster, *, source: str) -> Calibration:
    """Give the cluster whose constants agree best with what was recorded.

    Least is the sum of squares of: how far off each kind of work is, weighted by its share of the
    step, large errors counted less; how far off the step is; and how far constants are from what
    they were before any run told of them. So what the runs do not tell of stays, and what they told
    already they tell once.

    Args:
        runs: What was recorded, one or more, on this cluster.
        cluster: Where to begin.
        source: What the file says of the constants: ``calibrated …``.

    Raises:
        ClusterError: The cluster has several kinds of device.
        InputError: It is smaller than a run, or states constants that no software has.
    """
    if len(cluster.parts) > 1:
        rule = f"{cluster.name} has {len(cluster.parts)} kinds of device"
        raise ClusterError(Problem("cluster", rule, "calibrate each part by itself"))
    problem = _Fit(runs, cluster)
    logs, errors = problem.solve()
    found = zip(problem.free, problem.values(logs).tolist(), strict=True)
    values = {one.name: value for one, value in found if value != one.value}
    after = as_file(cluster, values, source=source)
    return Calibration(
        after,
        tuple(problem.changes(after, errors)),
        problem.residuals(after),
        tuple(
            Step(
                run.step_s,
                len(run.steps_s),
                run.spread,
                *(_step_s(run.program, one) for one in (cluster, after)),
            )
            for run in runs
        ),
    )


def _step_s(program: Program, cluster: Cluster) -> float:
    return simulate(program, cluster, stack=own(cluster)).step_s


class _Fit:
    """Runs, and the constants that they tell of."""

    def __init__(self, runs: Sequence[Evidence], cluster: Cluster) -> None:
        self.runs, self.cluster = runs, cluster
        dtypes = dict.fromkeys(run.program.plan.numerics.dtype for run in runs)
        every = dict.fromkeys(c for name in dtypes for c in constants(cluster, dtype=name))
        self.samples = [sample for run in runs for sample in run.samples]
        spent = [np.array([s.seconds * s.count for s in run.samples]) for run in runs]
        self.shares = np.concatenate([one / one.sum() for one in spent])
        self.measured = np.log([s.seconds for s in self.samples] + [r.step_s for r in runs])
        self.weights = np.append(np.sqrt(self.shares) / NOISE, [1 / STEP_NOISE] * len(runs))
        self.free = list(every)
        told = np.abs(self.slopes(np.zeros(len(self.free)))) > TOLD
        some = np.flatnonzero(told.any(axis=0))
        self.told, self.free = told[:, some], [self.free[i] for i in some]
        self.deviations = np.array([c.deviation for c in self.free])
        self.most = np.log([c.most / c.value for c in self.free])
        self.prior = np.log([(c.prior or c.value) / c.value for c in self.free])

    def values(self, logs: Floats) -> Floats:
        """Give the constants that are so far from where they were."""
        return np.array([c.value for c in self.free]) * np.exp(logs)

    def predicted(self, logs: Floats) -> Floats:
        """Give the logarithms of what samples and steps take."""
        names = (c.name for c in self.free)
        trial = changed(self.cluster, dict(zip(names, self.values(logs).tolist(), strict=True)))
        times = [s for run in self.runs for s in _priced_s(run, trial)]
        return np.log(np.maximum([*times, *(_step_s(r.program, trial) for r in self.runs)], 1e-12))

    def slopes(self, logs: Floats) -> Floats:
        """Give how the logarithms of times change with those of constants."""
        base = self.predicted(logs)
        moved = logs + _SMALL * np.eye(len(logs))
        return np.array([(self.predicted(one) - base) / _SMALL for one in moved]).T

    def solve(self) -> tuple[Floats, Floats]:
        """Give how far the best constants are from where they were, and their standard errors."""
        from scipy.optimize import least_squares

        first = np.zeros(len(self.free))
        start = np.minimum(first, self.most - 1e-6)
        bounds = (-np.inf, np.maximum(self.most, start + 1e-6))

        def least(begin: Floats, large: float) -> Any:
            return least_squares(
                self.off,
                begin,
                self.off_slopes,
                bounds=bounds,
                max_nfev=_ROUNDS,
                args=(large,),
                ftol=_FINE,
                xtol=_FINE,
            )

        found = least(start, LARGE)
        if (np.abs(self.errors(found.x)[: len(self.samples)]) > LARGE).any():
            # Large errors may count too little to be mended: from where plain squares lead, too.
            found = min(found, least(least(start, _PLAIN).x, LARGE), key=lambda one: one.cost)
        spread = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))
        better = float(np.sum(self.off(first, LARGE) ** 2)) - 2 * float(found.cost) > NOTHING
        return np.asarray(found.x) if better else first, spread

    def errors(self, logs: Floats) -> Floats:
        """Give how far off samples and steps are, in deviations."""
        return np.asarray((self.predicted(logs) - self.measured) * self.weights)

    def off(self, logs: Floats, large: float) -> Floats:
        """Give what squares are summed of: of samples, of steps, and of constants."""
        count, errors = len(self.samples), self.errors(logs)
        held = (logs - self.prior) / self.deviations
        return np.concatenate([_robust(errors[:count], large), errors[count:], held])

    def off_slopes(self, logs: Floats, large: float) -> Floats:
        """Give how these change with the logarithms of constants."""
        count, errors = len(self.samples), self.errors(logs)
        scale = np.append(_robust_slope(errors[:count], large), np.ones(len(self.runs)))
        rows = self.slopes(logs) * (self.weights * scale)[:, None]
        return np.concatenate([rows, np.diag(1 / self.deviations)])

    def changes(self, after: Cluster, errors: Floats) -> Iterator[Change]:
        """Give what is not as it was."""
        before, now = stated(self.cluster), stated(after)
        off = np.abs(np.exp(self._off(after)) - 1)
        known = {c.name: i for i, c in enumerate(self.free)}
        for name, value in now.items():
            i = known.get(_share_of(name))
            if i is None or value == before[name]:
                continue
            mine = self.told[: len(self.samples), i]
            share = self.shares[mine]
            residual = float(share @ off[mine] / share.sum()) if mine.any() else 0.0
            yield Change(name, before[name], value, float(errors[i]), int(mine.sum()), residual)

    def _off(self, cluster: Cluster) -> list[float]:
        times = [s for run in self.runs for s in _priced_s(run, cluster)]
        return [
            math.log(max(priced, 1e-12) / sample.seconds)
            for priced, sample in zip(times, self.samples, strict=True)
        ]

    def residuals(self, after: Cluster) -> tuple[Residual, ...]:
        """Give how far off every sample was and is, the longest first."""
        before_s, after_s = (
            [s for run in self.runs for s in _priced_s(run, one)] for one in (self.cluster, after)
        )
        found = map(Residual, self.samples, self.shares.tolist(), before_s, after_s)
        return tuple(sorted(found, key=lambda one: -one.share))


def _share_of(name: str) -> str:
    """Give the constant with which another one is fitted: a peak with the share of it."""
    return name.replace("peak.", "efficiency.").replace("one_way_bandwidth", "efficiency")


def _priced_s(run: Evidence, cluster: Cluster) -> list[float]:
    prices = Prices(run.program, Machine.of(cluster), own(cluster))
    return [sample.priced_s(prices) for sample in run.samples]


def _robust(errors: Floats, large: float) -> Floats:
    """Give errors whose squares grow ever more slowly, so that a spoilt one pulls little."""
    return np.asarray(np.sign(errors) * large * np.sqrt(np.log1p((errors / large) ** 2)))


def _robust_slope(errors: Floats, large: float) -> Floats:
    """Give how these change with the errors."""
    size = np.maximum(np.abs(errors), 1e-9)
    return np.asarray(size / np.abs(_robust(size, large)) / (1 + (size / large) ** 2))
