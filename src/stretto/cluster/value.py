"""The cluster as a value: devices of one kind or of several, and the links that join them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from stretto.cluster.device import Device
from stretto.cluster.link import Level, common, count_problems, resized, tree_problems
from stretto.errors import ClusterError, Problem


@dataclass(frozen=True, slots=True)
class Part:
    """Devices of one kind.

    Attributes:
        device: Their kind.
        devices: How many.
        levels: The links among them; empty in a cluster of one part, whose own they are.
    """

    device: Device
    devices: int
    levels: tuple[Level, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a part that cannot be.

        Raises:
            ClusterError: All that is wrong.
        """
        problems = [*count_problems(self.devices), *tree_problems(self.levels, self.devices)]
        if problems:
            raise ClusterError(problems)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Devices that train together, numbered part by part.

    Attributes:
        name: What it is called.
        parts: The kinds of device; one unless the cluster is uneven.
        levels: The links, from the inside out; the outermost holds all devices. Where parts differ,
            what each level can promise in all of them.
        links: Measured bytes per second from one device of node i (row) to one of node j (column),
            in one direction; empty where nobody measured. Without a node level a device is a node.
        software: (constant, value) of our own runtime as it was measured here; what is left out is
            as everywhere.
        prior: (constant, value in SI units) of what a calibration changed, as it was before any
            did: other calibrations are held to that too.
    """

    name: str
    parts: tuple[Part, ...]
    levels: tuple[Level, ...] = ()
    links: tuple[tuple[float, ...], ...] = ()
    software: tuple[tuple[str, float], ...] = ()
    prior: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse a cluster that cannot be.

        Raises:
            ClusterError: All that is wrong.
        """
        problems = [*_cluster_problems(self)]
        if problems:
            raise ClusterError(problems)

    @property
    def devices(self) -> int:
        """The number of devices in all parts."""
        return sum(part.devices for part in self.parts)

    @property
    def device(self) -> Device:
        """The kind of device; in an uneven cluster the slowest."""
        return min((part.device for part in self.parts), key=_speed)

    @property
    def memory_bytes(self) -> float:
        """What every device has: the memory of the smallest."""
        return min(part.device.memory_bytes for part in self.parts)

    @property
    def nodes(self) -> int:
        """The number of nodes, the last perhaps incomplete."""
        return math.ceil(self.devices / self.per_node)

    @property
    def per_node(self) -> int:
        """The number of devices in a node; 1 without a node level."""
        return next((level.devices for level in self.levels if level.name == "node"), 1)

    def at(self, devices: int) -> Cluster:
        """Give the same system with another number of devices.

        Parts are filled in order, and the last takes what is over. The last node may be incomplete.

        Args:
            devices: How many.

        Raises:
            ClusterError: Fewer than one.
        """
        problems = [*count_problems(devices)]
        if problems:
            raise ClusterError(problems)
        parts = tuple(_filled(self.parts, devices))
        if len(self.parts) == 1:
            levels = resized(self.levels, devices)
        elif len(parts) == 1:
            parts, levels = (replace(parts[0], levels=()),), parts[0].levels
        else:
            joining = self.levels[len(common([part.levels for part in self.parts])) :]
            inner = common([part.levels for part in parts])
            levels = (*inner, *resized(joining, devices))
        cluster = Cluster(self.name, parts, levels, (), self.software, self.prior)
        nodes = cluster.nodes
        links = tuple(row[:nodes] for row in self.links[:nodes]) if nodes <= self.nodes else ()
        return replace(cluster, links=links)

    def part(self, index: int) -> Cluster:
        """Give one part as a cluster of its own.

        Args:
            index: Which part.
        """
        part = self.parts[index]
        if len(self.parts) == 1:
            return self
        name, own = f"{self.name}[{index}]", replace(part, levels=())
        return Cluster(name, (own,), part.levels, (), self.software, self.prior)


def _filled(parts: Sequence[Part], devices: int) -> Iterator[Part]:
    """Give parts of `devices` in all, in order."""
    left = devices
    for part in parts:
        size = left if part is parts[-1] else min(part.devices, left)
        if size:
            yield replace(part, devices=size, levels=resized(part.levels, size))
        left -= size


def _speed(device: Device) -> float:
    rates = dict(device.flops_per_s)
    return rates.get("bfloat16", max(rates.values()))


def _cluster_problems(cluster: Cluster) -> Iterator[Problem]:
    if not cluster.parts:
        yield Problem("parts", "there is none", "state a kind of device and how many")
        return
    if cluster.devices > 1 and not cluster.levels:
        yield Problem("levels", "nothing joins the devices", "state at least one level")
    if len(cluster.parts) > 1 and any(p.devices > 1 and not p.levels for p in cluster.parts):
        yield Problem("parts", "nothing joins the devices of one", "state the levels within each")
    yield from tree_problems(cluster.levels, cluster.devices)
    sizes = {len(cluster.links), *(len(row) for row in cluster.links)}
    if cluster.links and sizes != {cluster.nodes}:
        yield Problem(
            "links",
            f"must have a row and a column for each of {cluster.nodes} nodes, but has "
            f"{' and '.join(map(str, sorted(sizes)))}",
            "measure every pair, or leave it out",
        )
    if not all(math.isfinite(value) and value >= 0 for row in cluster.links for value in row):
        yield Problem("links", "holds a value below 0", "write bytes per second")
    for name, value in cluster.software:
        if not (math.isfinite(value) and value >= 0):
            yield Problem(f"software.{name}", f"is {value:g}, below 0", "write 0 or more")
    for name, value in cluster.prior:
        if not (math.isfinite(value) and value > 0):
            yield Problem(f"prior.{name}", f"is {value:g}, not above 0", "leave it out")
