"""A measurement, and how long the same would take on a cluster by its constants alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stretto.cluster.link import Level
from stretto.cluster.value import Cluster

SampleKind = Literal[
    "matrix", "memory", "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send"
]

PRECISION_BYTES = {
    "float64": 8.0, "float32": 4.0, "tensorfloat32": 4.0, "float16": 2.0, "bfloat16": 2.0,
    "float8": 1.0, "float4": 0.5,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement.

    A collective was measured while all groups of its axis ran it at once, as they do in training.

    Attributes:
        kind: What was measured.
        seconds: How long it took.
        precision: Of a matrix product.
        shape: Of a matrix product: rows, columns and depth.
        size_bytes: ``memory``: read and written in all; ``send``: of the message; else of the
            whole buffer, as one rank has it before a reduction or after a gathering.
        ranks: Ranks of a group; 2 for ``send``.
        stride: Devices from one rank of a group to the next.
    """

    kind: SampleKind
    seconds: float
    precision: str = "bfloat16"
    shape: tuple[int, int, int] = (0, 0, 0)
    size_bytes: float = 0.0
    ranks: int = 1
    stride: int = 1

    @property
    def span(self) -> int:
        """The devices from the first rank of a group to its last."""
        return (self.ranks - 1) * self.stride + 1


def seconds(cluster: Cluster, sample: Sample) -> float:
    """Give how long what was measured should take, in seconds.

    Matrix products by roofline (Williams et al., 2009) in whole waves of tiles; messages by latency
    and bandwidth (Hockney, 1994), collectives as rings (Thakur et al., 2005) level by level: each
    level reduces or gathers what the ones inside it leave.
    """
    match sample.kind:
        case "matrix":
            return _matrix(cluster, sample)
        case "memory":
            device = cluster.device
            return device.launch_s + sample.size_bytes / device.memory_bytes_per_s
        case "all_reduce":
            return 2 * _ring(cluster, sample)
        case "all_gather" | "reduce_scatter":
            return _ring(cluster, sample)
        case "all_to_all":
            return sum(
                level.latency_s * (across - within)
                + sample.size_bytes * (across - within) / sample.ranks / level.share_bytes_per_s
                for level, within, across in crossed(cluster, sample)
            )
        case "send":
            level = level_of(cluster, sample.stride)
            return level.latency_s + sample.size_bytes / level.share_bytes_per_s


def level_of(cluster: Cluster, stride: int) -> Level:
    """Give the level that joins a device to the one that is `stride` further on."""
    return next(level for level in cluster.levels if level.devices > stride)


def crossed(cluster: Cluster, sample: Sample) -> Iterator[tuple[Level, int, int]]:
    """Give each level that a group crosses, with its ranks below one instance inside and of it."""
    within = 1
    for level in cluster.levels:
        across = min(sample.ranks, max(1, math.ceil(level.devices / sample.stride)))
        if across > within:
            yield level, within, across
        within = max(within, across)


def _matrix(cluster: Cluster, sample: Sample) -> float:
    device, (rows, columns, depth) = cluster.device, sample.shape
    tiles = math.ceil(rows / device.tile[0]) * math.ceil(columns / device.tile[1])
    waves = math.ceil(tiles / device.units)
    flops = 2.0 * waves * device.units * device.tile[0] * device.tile[1] * depth
    moved = (rows * depth + depth * columns + rows * columns) * PRECISION_BYTES[sample.precision]
    return device.launch_s + max(
        flops / device.sustained_flops_per_s(sample.precision), moved / device.memory_bytes_per_s
    )


def _ring(cluster: Cluster, sample: Sample) -> float:
    """One way of a ring on each level: a gathering, or a reduction that scatters."""
    total = 0.0
    for level, within, across in crossed(cluster, sample):
        members = across / within
        piece = sample.size_bytes / within * (members - 1) / members
        total += (members - 1) * level.latency_s + piece / level.share_bytes_per_s
    return total
