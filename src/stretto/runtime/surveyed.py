"""A survey as a cluster: constants guessed from what was measured, then fitted to all of it."""

from __future__ import annotations

import math
import statistics
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from stretto.cluster import Cluster, Device, Fit, Level, LevelName, Part, Sample, dumps, fit, read
from stretto.cluster.sample import crossed, level_of, seconds
from stretto.runtime.measure_links import Matrix
from stretto.runtime.survey import Survey

_SOURCE = "stretto probe"
_GUESS = 0.9
"""The efficiency from which a fit begins, where the peak is the best that was measured."""


def fitted(survey: Survey) -> Fit:
    """Give the cluster that agrees best with a survey, as its file will give it back.

    Raises:
        ClusterError: What was measured cannot be.
    """
    found = fit(guess(survey), [one.sample for one in survey.measured])
    text = dumps(_rounded(found.cluster))
    return replace(found, cluster=read(tomllib.loads(text), where=_SOURCE))


def guess(survey: Survey) -> Cluster:
    """Give the cluster from which a fit begins.

    No link's bandwidth is below what any measurement shows, so that an efficiency is at most 1.
    """
    samples = [one.sample for one in survey.measured]
    device = survey.device if survey.known else _device(survey.device, samples)
    nodes = survey.ranks // survey.per_node
    name = survey.host if nodes == 1 else f"{nodes} hosts like {survey.host}"
    levels = tuple(_levels(survey, samples))
    cluster = Cluster(name, (Part(device, survey.ranks),), levels, _links(survey))
    return replace(cluster, levels=tuple(_raised(cluster, samples)))


def _device(device: Device, samples: Sequence[Sample]) -> Device:
    """Give a device whose peaks are the best rates that were measured."""
    peaks: dict[str, float] = {}
    for one in samples:
        if one.kind == "matrix":
            rate = 2.0 * math.prod(one.shape) / one.seconds
            peaks[one.precision] = max(rate, peaks.get(one.precision, 0.0))
    copies = [one for one in samples if one.kind == "memory"]
    sources = {"peak": f"{_SOURCE}: the best of all shapes"}
    return replace(
        device,
        flops_per_s=tuple(peaks.items()),
        efficiency=tuple((name, _GUESS) for name in peaks),
        memory_bytes_per_s=max(one.size_bytes / one.seconds for one in copies),
        launch_s=min(one.seconds for one in copies),
        sources=tuple((dict(device.sources) | sources).items()),
    )


def _levels(survey: Survey, samples: Sequence[Sample]) -> Iterator[Level]:
    """Give the level of a node's devices and that of nodes, where there are several of either."""
    per_node, ranks = survey.per_node, survey.ranks
    inside = [rate for matrix in survey.within for rate in _present(matrix)]
    outside = _present(survey.between)
    stated: tuple[tuple[LevelName, int, int, list[float]], ...] = (
        ("node", per_node, 1, inside),
        ("spine", ranks, per_node, outside),
    )
    for name, devices, stride, alone in stated:
        if not alone:
            continue
        sends = [one for one in samples if one.kind == "send" and one.stride == stride]
        sharers = _sharers(alone, sends, per_node) if name == "spine" else 1
        latency_s = min(one.seconds for one in sends)
        said = f"{_SOURCE}, {survey.backend}"
        yield Level(name, devices, max(alone), latency_s, sharers, efficiency=_GUESS, source=said)


def _sharers(alone: Sequence[float], sends: Sequence[Sample], per_node: int) -> int:
    """Give how many devices of a node share a link outwards.

    It is the divisor of `per_node` nearest to what one device has alone over what each has when all
    send at once.
    """
    largest = max(sends, key=lambda one: one.size_bytes)
    ratio = statistics.median(alone) / (largest.size_bytes / largest.seconds)
    divisors = (n for n in range(1, per_node + 1) if per_node % n == 0)
    return min(divisors, key=lambda n: abs(math.log(n / ratio)))


def _raised(cluster: Cluster, samples: Sequence[Sample]) -> Iterator[Level]:
    """Give the levels with at least the bandwidth that every measurement shows."""
    ideal = replace(
        cluster,
        levels=tuple(replace(v, latency_s=0.0, efficiency=1.0) for v in cluster.levels),
    )
    shown = {level.name: 1.0 for level in cluster.levels}
    for one in samples:
        names = [level.name for level in _used(ideal, one)]
        if len(names) == 1:
            shown[names[0]] = max(shown[names[0]], seconds(ideal, one) / one.seconds)
    for level in cluster.levels:
        yield replace(level, bytes_per_s=level.bytes_per_s * shown[level.name])


def _used(cluster: Cluster, sample: Sample) -> list[Level]:
    """Give the levels that a message crosses."""
    match sample.kind:
        case "matrix" | "memory":
            return []
        case "send":
            return [level_of(cluster, sample.stride)]
        case "all_reduce" | "all_gather" | "reduce_scatter" | "all_to_all":
            return [level for level, _, _ in crossed(cluster, sample)]


def _links(survey: Survey) -> Matrix:
    """Give what was measured between nodes, and on the diagonal within each; empty for one node."""
    own = [statistics.median(_present(matrix)) for matrix in survey.within]
    return tuple(
        tuple(own[i] if i == j and own else rate for j, rate in enumerate(row))
        for i, row in enumerate(survey.between)
    )


def _present(matrix: Matrix) -> list[float]:
    return [rate for row in matrix for rate in row if rate]


def _rounded(cluster: Cluster) -> Cluster:
    """Give a cluster whose measured constants have no more digits than a measurement can."""
    (part,) = cluster.parts
    device = replace(
        part.device,
        flops_per_s=tuple((name, _digits(rate)) for name, rate in part.device.flops_per_s),
        efficiency=tuple((name, _digits(share)) for name, share in part.device.efficiency),
        memory_bytes_per_s=_digits(part.device.memory_bytes_per_s),
        launch_s=_digits(part.device.launch_s),
    )
    levels = tuple(
        replace(
            level,
            bytes_per_s=_digits(level.bytes_per_s),
            latency_s=_digits(level.latency_s),
            efficiency=_digits(level.efficiency),
        )
        for level in cluster.levels
    )
    links = tuple(tuple(map(_digits, row)) for row in cluster.links)
    return replace(cluster, parts=(replace(part, device=device),), levels=levels, links=links)


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
