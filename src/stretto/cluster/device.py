"""A kind of accelerator, as one rank sees it: what it holds, how fast, at what power and price."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from stretto.errors import ClusterError, Problem

Precision = Literal[
    "float64", "float32", "tensorfloat32", "float16", "bfloat16", "float8", "float4"
]
Rates = tuple[tuple[str, float], ...]

PRECISIONS: tuple[str, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True)
class Power:
    """What one device draws, in W.

    Attributes:
        idle: While it waits.
        memory_bound: While it streams from its memory.
        compute_bound: While it multiplies matrices: as a rule its power limit.
    """

    idle: float
    memory_bound: float
    compute_bound: float


@dataclass(frozen=True, slots=True)
class Device:
    """A kind of accelerator, as one rank sees it.

    Attributes:
        name: What it is called.
        memory_bytes: Memory that the driver offers to a process.
        memory_bytes_per_s: Peak bandwidth of that memory.
        flops_per_s: Peak matrix rate by precision, dense: never with sparsity.
        units: Multiprocessors, compute units or cores: matrix tiles that run at once.
        tile: Rows, columns and depth of the matrix tile that keeps one unit busy.
        efficiency: By precision, the fraction of the peak that a very large matrix product
            sustains, throttling for power included.
        power_w: What it draws, in W.
        price_per_hour: What one device costs on demand for an hour, in USD.
        launch_s: Host time to launch one kernel.
        source: Where the constants are from, where `sources` does not say.
        sources: (constant, where it is from).
        host: Whether it is its own host, as a core is: it starts what it runs, one after the other.
    """

    name: str
    memory_bytes: float
    memory_bytes_per_s: float
    flops_per_s: Rates
    units: int
    tile: tuple[int, int, int]
    efficiency: Rates
    power_w: Power
    price_per_hour: float
    launch_s: float
    source: str
    sources: tuple[tuple[str, str], ...] = ()
    host: bool = False

    def __post_init__(self) -> None:
        """Refuse constants that no device has.

        Raises:
            ClusterError: All that is wrong.
        """
        problems = [*_device_problems(self)]
        if problems:
            raise ClusterError(problems)

    def peak_flops_per_s(self, precision: str) -> float:
        """Give the data sheet's dense matrix rate.

        Raises:
            ClusterError: It has no matrix units for this precision.
        """
        return _rate(self, self.flops_per_s, precision)

    def sustained_flops_per_s(self, precision: str) -> float:
        """Give the rate of a very large matrix product.

        Raises:
            ClusterError: It has no matrix units for this precision.
        """
        return self.peak_flops_per_s(precision) * _rate(self, self.efficiency, precision)


def _rate(device: Device, rates: Rates, precision: str) -> float:
    value = dict(rates).get(precision)
    if value is None:
        has = ", ".join(name for name, _ in rates)
        raise ClusterError(Problem("precision", f"{device.name} has no {precision}", f"use {has}"))
    return value


def positive_problems(owner: object, names: Sequence[str]) -> Iterator[Problem]:
    """Give a problem for each attribute of `owner` that is not above 0."""
    for name in names:
        value = getattr(owner, name)
        if not (math.isfinite(value) and value > 0):
            yield Problem(name, f"is {value:g}, not above 0", "write what the device has")


def _device_problems(device: Device) -> Iterator[Problem]:
    yield from positive_problems(device, ("memory_bytes", "memory_bytes_per_s", "units"))
    for name in ("price_per_hour", "launch_s"):
        value = getattr(device, name)
        if not (math.isfinite(value) and value >= 0):
            yield Problem(name, f"is {value:g}, below 0", "write 0 or more")
    if min(device.tile) < 1:
        yield Problem("tile", f"is {list(device.tile)}", "write three numbers of 1 or more")
    yield from _rate_problems(device)
    power = device.power_w
    if not 0 <= power.idle <= power.memory_bound <= power.compute_bound < math.inf:
        yield Problem(
            "power_w",
            f"must rise from idle to compute_bound, but is {power.idle:g}, "
            f"{power.memory_bound:g}, {power.compute_bound:g}",
            "write W that a device draws idle, bound by memory, and bound by arithmetic",
        )


def _rate_problems(device: Device) -> Iterator[Problem]:
    if not device.flops_per_s:
        yield Problem("flops_per_s", "is empty", "state the rate of one precision at least")
    for name, value in device.flops_per_s:
        if name not in PRECISIONS:
            yield Problem(f"flops_per_s.{name}", "is no precision", f"use {', '.join(PRECISIONS)}")
        if not (math.isfinite(value) and value > 0):
            yield Problem(f"flops_per_s.{name}", f"is {value:g}, not above 0", "write its peak")
    for name, value in device.efficiency:
        if not 0 < value <= 1:
            yield Problem(
                f"efficiency.{name}", f"is {value:g}", "write a fraction above 0, at most 1"
            )
    for name in dict(device.flops_per_s).keys() ^ dict(device.efficiency).keys():
        yield Problem(f"efficiency.{name}", "needs both a peak and an efficiency", "state both")
