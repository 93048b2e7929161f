"""The numbers of a cluster that a price depends on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stretto.cluster import Cluster
from stretto.cost.choice import PRECISIONS
from stretto.cost.numbers import Number, record
from stretto.cost.stacks import machine_constants

LEVELS = 7
"""The most levels that a tree of links has."""

_ALIKE = (("float32", "tensorfloat32"), ("bfloat16", "float16"), ("float8",), ("float4",))
assert len(_ALIKE) == len(PRECISIONS)


@dataclass(frozen=True, slots=True)
class Link:
    """A level of the tree of links, innermost first.

    Attributes:
        devices: Devices below one instance.
        bytes_per_s: That a device sends through it when all do, in one direction, as reached by
            large messages.
        latency_s: Of one hop.
    """

    devices: Number
    bytes_per_s: Number
    latency_s: Number


@dataclass(frozen=True, slots=True)
class Machine:
    """A cluster of one kind of device, or an array of clusters.

    Attributes:
        matrix_flops_per_s: What a very large matrix product reaches, by `PRECISIONS`.
        double_flops_per_s: The same in float64.
        peak_flops_per_s: The data sheet's rate, by `PRECISIONS`.
        memory_bytes: That a rank may fill.
        memory_bytes_per_s: That large copies reach.
        units: Matrix units (streaming multiprocessors).
        tile_m: Rows of the output that a unit makes at once.
        tile_n: Columns.
        ramp: Depth of a product, in 16-bit elements, that its start and end cost.
        launch_s: Host time to start a kernel.
        host: 1 where the device is its own host, and so works or starts kernels, never both.
        links: Levels, innermost first; the last joins all.
        idle_w: Power of an idle device.
        memory_w: While it is bound by memory or waits for a link.
        compute_w: While it is bound by products.
        price_per_s: Money for a device.
    """

    matrix_flops_per_s: tuple[Number, ...]
    double_flops_per_s: Number
    peak_flops_per_s: tuple[Number, ...]
    memory_bytes: Number
    memory_bytes_per_s: Number
    units: Number
    tile_m: Number
    tile_n: Number
    ramp: Number
    launch_s: Number
    host: Number
    links: tuple[Link, ...]
    idle_w: Number
    memory_w: Number
    compute_w: Number
    price_per_s: Number

    def matrix(self, precision: Number) -> Number:
        """Give what large products reach in a precision."""
        return np.choose(precision.astype(np.int64), self.matrix_flops_per_s)

    def peak(self, precision: Number) -> Number:
        """Give the data sheet's rate in a precision."""
        return np.choose(precision.astype(np.int64), self.peak_flops_per_s)

    @staticmethod
    def of(cluster: Cluster) -> Machine:
        """Give the numbers of `cluster`; of an uneven one, those of its slowest device."""
        device, constants = cluster.device, machine_constants()
        peaks, sustained = dict(device.flops_per_s), {}
        for name, share in device.efficiency:
            sustained[name] = peaks[name] * share
        links = [
            record(
                Link,
                devices=level.devices,
                bytes_per_s=level.share_bytes_per_s,
                latency_s=level.latency_s,
            )
            for level in cluster.levels
        ] or [record(Link, devices=1, bytes_per_s=np.inf, latency_s=0.0)]
        # Every cluster has as many levels, so that clusters can be gathered; a repeated one
        # joins nothing new.
        links += links[-1:] * (LEVELS - len(links))
        half = _rate(peaks, 1)
        return Machine(
            matrix_flops_per_s=tuple(np.asarray(_rate(sustained, i)) for i in range(4)),
            peak_flops_per_s=tuple(np.asarray(_rate(peaks, i)) for i in range(4)),
            links=tuple(links),
            **{
                name: np.asarray(value, dtype=np.float64)
                for name, value in {
                    "double_flops_per_s": sustained.get("float64", _rate(sustained, 0) / 2),
                    "memory_bytes": cluster.memory_bytes,
                    "memory_bytes_per_s": device.memory_bytes_per_s * constants["memory"],
                    "units": device.units,
                    "tile_m": device.tile[0],
                    "tile_n": device.tile[1],
                    "ramp": constants["ramp"] * np.sqrt(half / device.units / 1e12),
                    "launch_s": device.launch_s,
                    "host": device.host,
                    "idle_w": device.power_w.idle,
                    "memory_w": device.power_w.memory_bound,
                    "compute_w": device.power_w.compute_bound,
                    "price_per_s": device.price_per_hour / 3600,
                }.items()
            },
        )


def _rate(rates: dict[str, float], precision: int) -> float:
    """Give a device's rate in a precision, or in the nearest wider one that it has."""
    for names in _ALIKE[precision::-1] + _ALIKE[precision + 1 :]:
        for name in names:
            if name in rates:
                return rates[name]
    return max(rates.values())
