"""A cluster's constants adjusted to measurements by least squares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from stretto.cluster.keys import SPELLING
from stretto.cluster.link import Level
from stretto.cluster.sample import Sample, crossed, level_of, seconds
from stretto.cluster.value import Cluster
from stretto.errors import ClusterError, Problem

Predict = Callable[[Cluster, Sample], float]

_PRIOR = 0.01
"""How strongly a constant that no sample tells of is held where it was: a factor of e counts as an
error of 1 %."""


@dataclass(frozen=True, slots=True)
class Change:
    """A constant before and after.

    Attributes:
        name: Which: ``efficiency.bfloat16``, ``memory_bytes_per_s``, ``launch_s``,
            ``level.node.efficiency``, ``level.node.latency_s``.
        before: Its value in the cluster that was given.
        after: Its fitted value.
        error: The relative standard error of that value.
    """

    name: str
    before: float
    after: float
    error: float


@dataclass(frozen=True, slots=True)
class Residual:
    """How far the fitted cluster is from one sample.

    Attributes:
        sample: The measurement.
        predicted_s: What the fitted constants give.
    """

    sample: Sample
    predicted_s: float

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted_s / self.sample.seconds - 1


@dataclass(frozen=True, slots=True)
class Fit:
    """What came of fitting.

    Attributes:
        cluster: The cluster with the fitted constants.
        residuals: One for each sample, in their order.
        changes: One for each constant that was fitted.
    """

    cluster: Cluster
    residuals: tuple[Residual, ...]
    changes: tuple[Change, ...]


def fit(cluster: Cluster, samples: Sequence[Sample], *, predict: Predict = seconds) -> Fit:
    """Give the cluster whose constants agree best with measurements.

    The sum over samples of the squared logarithm of predicted over measured is least, with large
    errors counted less (a soft absolute value), so that one spoilt sample does not bend the rest.

    Args:
        cluster: Where to begin: which constants there are, and what they are if nothing tells.
        samples: Measurements; they fit the constants that they depend on.
        predict: How long a sample should take on a cluster.

    Raises:
        ClusterError: No samples, times that are not above 0, or an uneven cluster.
    """
    problems = [*_problems(cluster, samples)]
    if problems:
        raise ClusterError(problems)
    from numpy import array, concatenate, diag, exp, log, sqrt
    from numpy.linalg import inv
    from scipy.optimize import least_squares

    names = tuple(dict.fromkeys(name for sample in samples for name in _told(cluster, sample)))
    # Latencies of 0 have no logarithm.
    before = array([max(_constants(cluster)[name], 1e-9) for name in names])
    highest = array([0.0 if "efficiency" in name else math.inf for name in names])

    def errors(logs: Sequence[float]) -> object:
        trial = _with(cluster, dict(zip(names, exp(logs), strict=True)))
        off = [math.log(predict(trial, sample) / sample.seconds) for sample in samples]
        return concatenate([off, _PRIOR * (array(logs) - log(before))])

    start = [min(math.log(b), h - 1e-6) for b, h in zip(before, highest, strict=True)]
    found = least_squares(errors, start, bounds=(-math.inf, highest), loss="soft_l1", f_scale=0.1)
    after = exp(found.x)
    noise = math.sqrt(sum(found.fun[: len(samples)] ** 2) / max(1, len(samples) - len(names)))
    spread = noise * sqrt(diag(inv(found.jac.T @ found.jac)))
    fitted = _sourced(_with(cluster, dict(zip(names, after, strict=True))), names, len(samples))
    return Fit(
        fitted,
        tuple(Residual(sample, predict(fitted, sample)) for sample in samples),
        tuple(
            Change(name, float(b), float(a), float(e))
            for name, b, a, e in zip(names, before, after, spread, strict=True)
        ),
    )


def _told(cluster: Cluster, sample: Sample) -> Iterator[str]:
    """Give the names of the constants that a sample tells of."""
    match sample.kind:
        case "matrix":
            yield f"efficiency.{sample.precision}"
            yield "launch_s"
        case "memory":
            yield "memory_bytes_per_s"
            yield "launch_s"
        case "send":
            yield from _link(level_of(cluster, sample.stride))
        case "all_reduce" | "all_gather" | "reduce_scatter" | "all_to_all":
            for level, _, _ in crossed(cluster, sample):
                yield from _link(level)


def _link(level: Level) -> tuple[str, str]:
    return f"level.{level.name}.efficiency", f"level.{level.name}.latency_s"


def _constants(cluster: Cluster) -> dict[str, float]:
    """Give all constants that can be fitted, by name."""
    device = cluster.device
    found = {f"efficiency.{name}": value for name, value in device.efficiency}
    found |= {name: getattr(device, name) for name in ("memory_bytes_per_s", "launch_s")}
    for level in cluster.levels:
        found |= zip(_link(level), (level.efficiency, level.latency_s), strict=True)
    return found


def _with(cluster: Cluster, values: dict[str, float]) -> Cluster:
    """Give the cluster with some constants replaced, by name."""
    new = _constants(cluster) | {name: float(value) for name, value in values.items()}
    (part,) = cluster.parts
    device = replace(
        part.device,
        efficiency=tuple((name, new[f"efficiency.{name}"]) for name, _ in part.device.efficiency),
        memory_bytes_per_s=new["memory_bytes_per_s"],
        launch_s=new["launch_s"],
    )
    levels = []
    for level in cluster.levels:
        efficiency, latency = (new[name] for name in _link(level))
        levels.append(replace(level, efficiency=efficiency, latency_s=latency))
    return replace(cluster, parts=(replace(part, device=device),), levels=tuple(levels))


def _sourced(cluster: Cluster, names: Sequence[str], count: int) -> Cluster:
    """Give the cluster whose fitted constants say so."""
    said = f"fitted to {count} measurements"
    (part,) = cluster.parts
    keys = {SPELLING[name.split(".")[0]] for name in names if not name.startswith("level.")}
    sources = dict(part.device.sources) | dict.fromkeys(sorted(keys), said)
    device = replace(part.device, sources=tuple(sources.items()))
    touched = {name.split(".")[1] for name in names if name.startswith("level.")}
    levels = (
        replace(v, source=f"{v.source}; {said}".removeprefix("; ")) if v.name in touched else v
        for v in cluster.levels
    )
    return replace(cluster, parts=(replace(part, device=device),), levels=tuple(levels))


def _problems(cluster: Cluster, samples: Sequence[Sample]) -> Iterator[Problem]:
    if len(cluster.parts) > 1:
        rule = f"{cluster.name} has {len(cluster.parts)} kinds of device"
        yield Problem("cluster", rule, "fit each part by itself")
    if not samples:
        yield Problem("samples", "there are none", "measure something")
    for i, sample in enumerate(samples):
        if not (math.isfinite(sample.seconds) and sample.seconds > 0):
            rule = f"is {sample.seconds:g}, not above 0"
            yield Problem(f"samples[{i}].seconds", rule, "leave out what was not measured")
        rates = dict(cluster.device.efficiency)
        if sample.kind == "matrix" and sample.precision not in rates:
            rule = f"{cluster.device.name} has no {sample.precision}"
            yield Problem(f"samples[{i}].precision", rule, f"use {', '.join(rates)}")
        if sample.kind not in ("matrix", "memory") and sample.ranks < 2:
            rule = f"is {sample.ranks}, but a message needs two"
            yield Problem(f"samples[{i}].ranks", rule, "state how many took part")
        if sample.span > cluster.devices:
            rule = f"span {sample.span} devices of {cluster.devices}"
            yield Problem(f"samples[{i}].ranks", rule, "fit a cluster with as many")
