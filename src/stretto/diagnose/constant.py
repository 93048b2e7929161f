"""The numbers of a cluster's file, and how much of what a program takes depends on each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stretto.cluster import Cluster, Device
from stretto.cost.instruction import Message, Prices
from stretto.cost.machine import Machine
from stretto.cost.stack import Stack
from stretto.program.instruction import Program, StageProgram
from stretto.simulate.task import Work
from stretto.timeline.value import Floats, Ints


@dataclass(frozen=True, slots=True)
class Constant:
    """A number of a cluster's file that times depend on.

    Attributes:
        name: As in the file: ``efficiency.float32``, ``memory_bandwidth``, ``node.latency``.
        level: The level of links that it is of; empty for one of devices.
        rate: Whether times grow as it shrinks.
        worse: The cluster if all that depends on it took twice as long.
    """

    name: str
    level: str
    rate: bool
    worse: Cluster


def constants(cluster: Cluster) -> tuple[Constant, ...]:
    """Give the numbers of a cluster that times depend on."""
    return (*_of_devices(cluster), *_of_links(cluster))


def _of_devices(cluster: Cluster) -> Iterator[Constant]:
    for i, part in enumerate(cluster.parts):
        prefix = f"{part.device.name}: " if len(cluster.parts) > 1 else ""
        for name, worse in _slower(part.device):
            parts = (*cluster.parts[:i], replace(part, device=worse), *cluster.parts[i + 1 :])
            rate = name != "launch"
            yield Constant(f"{prefix}{name}", "", rate, replace(cluster, parts=parts))


def _slower(device: Device) -> Iterator[tuple[str, Device]]:
    for name, _ in device.efficiency:
        rates = tuple((n, e / 2 if n == name else e) for n, e in device.efficiency)
        yield f"efficiency.{name}", replace(device, efficiency=rates)
    half = device.memory_bytes_per_s / 2
    yield "memory_bandwidth", replace(device, memory_bytes_per_s=half)
    yield "launch", replace(device, launch_s=device.launch_s * 2)


def _of_links(cluster: Cluster) -> Iterator[Constant]:
    for i, level in enumerate(cluster.levels):
        thin = replace(level, bytes_per_s=level.bytes_per_s / 2)
        far = replace(level, latency_s=level.latency_s * 2)
        for name, worse in (("one_way_bandwidth", thin), ("latency", far)):
            levels = (*cluster.levels[:i], worse, *cluster.levels[i + 1 :])
            changed = replace(cluster, levels=levels)
            yield Constant(f"{level.name}.{name}", level.name, worse is thin, changed)


class Sites:
    """What instructions take on a cluster, and how much of that depends on each of its constants.

    A time is a sum of parts in proportion to a constant or to its inverse; where it is the longest
    of several parts, those that do not decide have no share.
    """

    def __init__(self, program: Program, cluster: Cluster, stack: Stack) -> None:
        """Price a program on a cluster with some software."""
        self.program, self.cluster, self.stack = program, cluster, stack
        self.constants = constants(cluster)
        self.machine = Machine.of(cluster)
        self._usual = self._prices(cluster)
        self._worse = [self._prices(constant.worse) for constant in self.constants]

    def _prices(self, cluster: Cluster) -> list[Prices]:
        """Give the prices on each kind of device, on the links of the whole cluster."""
        links = Machine.of(cluster).links
        machines = [Machine.of(cluster.part(i)) for i in range(len(cluster.parts))]
        return [Prices(self.program, replace(m, links=links), self.stack) for m in machines]

    def levels(self, groups: Ints) -> Ints:
        """Give for each row of ranks the index of the innermost level of links that joins them."""
        low, high = groups.min(axis=1), groups.max(axis=1)
        found = np.full(len(groups), max(len(self.cluster.levels) - 1, 0))
        for i, level in reversed(list(enumerate(self.cluster.levels))):
            found[low // level.devices == high // level.devices] = i
        return found

    def far(self, groups: Ints) -> Ints:
        """Give for each row of ranks what tells its prices from others': level, part and span."""
        ends = np.cumsum([part.devices for part in self.cluster.parts])
        part = np.searchsorted(ends, groups[:, 0], side="right")
        span = groups.max(axis=1) - groups.min(axis=1)
        return np.stack([self.levels(groups), part, span], axis=1)

    def shares(self, work: Work, stage: StageProgram, *, ranks: Sequence[int], part: int) -> Floats:
        """Give the share of what some work takes that depends on each constant.

        Args:
            work: A compute or update of the first rank, or a message between all.
            stage: That of the first rank.
            ranks: Who takes part.
            part: The part of the cluster in which the first rank's device is.
        """
        usual = _seconds(self._usual[part], work, stage, ranks)
        times = np.array([_seconds(prices[part], work, stage, ranks) for prices in self._worse])
        shares: Floats = times / usual - 1.0 if usual else 0.0 * times
        return shares


def _seconds(prices: Prices, work: Work, stage: StageProgram, ranks: Sequence[int]) -> float:
    match work:
        case Message():
            return prices.message_s(work, ranks)
        case None:
            return 0.0
        case _:
            return prices.seconds(work, stage)
