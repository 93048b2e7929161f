"""What ranks run on: devices and links, and what faults make of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from stretto.cluster import LEVELS, Cluster, Level
from stretto.cluster.link import common
from stretto.cost.instruction import Message, Prices
from stretto.cost.machine import Link, Machine
from stretto.cost.numbers import record
from stretto.cost.stack import Stack
from stretto.program.instruction import Compute, Program, StageProgram, Update
from stretto.simulate.fault import Fault, Halt, SlowLink, SlowRank
from stretto.simulate.network import FAIR, Network
from stretto.simulate.symmetry import Ints
from stretto.timeline.value import Floats

SILENT_BYTES_PER_S = 1.0
"""Of a link over which nothing came when it was measured."""


@dataclass(frozen=True)
class Site:
    """A program's ranks on a cluster's devices: rank i on device i.

    Attributes:
        program: The program.
        cluster: Where it runs.
        stack: With which software.
        faults: What is wrong.
        network: How transfers share what lies between switches.
        apart: Whether every rank is played, even if it is like another.
    """

    program: Program
    cluster: Cluster
    stack: Stack
    faults: tuple[Fault, ...] = ()
    network: Network = FAIR
    apart: bool = False

    @property
    def halts(self) -> dict[int, Halt]:
        """Give the ranks that stop; of several stops of one, the first."""
        found = sorted((f for f in self.faults if isinstance(f, Halt)), key=lambda f: -f.at)
        return {f.rank: f for f in found}

    @cached_property
    def marks(self) -> list[Hashable]:
        """What tells each rank from others by itself."""
        halts = self.halts
        own = range(self._size) if self.apart or self.network.routed else (0,) * self._size
        return [
            (part, slow, tuple(thin), halts.get(rank), alone)
            for rank, (part, slow, thin, alone) in enumerate(
                zip(self.part.tolist(), self._slow.tolist(), self._thin.tolist(), own, strict=True)
            )
        ]

    # ── on devices ───────────────────────────────────────────────────────────────────────────────

    def work_s(self, work: Compute | Update, stage: StageProgram, *, part: int) -> float:
        """Give the seconds of a compute or an update on a device of a part in order."""
        return self._prices[part].seconds(work, stage)

    def host_s(self, work: Compute | Update, *, part: int) -> float:
        """Give the seconds of the host of such a device to start it."""
        return self._prices[part].host_s(work) if isinstance(work, Compute) else 0.0

    def slow(self, rank: int) -> float:
        """Give how many times longer a rank computes than its device in order."""
        return float(self._slow[rank])

    # ── on links ─────────────────────────────────────────────────────────────────────────────────

    def message_s(self, message: Message, ranks: Sequence[int], *, way: Way) -> float:
        """Give the seconds of a message among `ranks` alone, as long as on the thinnest links.

        Args:
            message: What goes.
            ranks: Between whom, the sender first.
            way: The way between them.
        """
        key = message, way, len(ranks), max(ranks) - min(ranks)
        if key not in self._known:
            first = self.first[way.part] if way.part >= 0 else 0
            local = [rank - first for rank in ranks]
            self._known[key] = self._through(way).message_s(message, local)
        return self._known[key]

    @cached_property
    def _known(self) -> dict[Hashable, float]:
        return {}

    def _through(self, way: Way) -> Prices:
        """Give prices on the links of a way."""
        levels = self.levels(way.part)
        links = []
        for i, link in enumerate(self.links[way.part]):
            level = levels[min(i, len(levels) - 1)] if levels else None
            thin = way.thin[LEVELS.index(level.name)] if level else 1.0
            bytes_per_s = link.bytes_per_s
            if level and np.isfinite(way.measured_bytes_per_s) and level.devices > self._per_node:
                shared = 1.0 if self.network.routed else level.sharers * level.oversubscription
                bytes_per_s = np.asarray(way.measured_bytes_per_s / shared)
            links.append(replace(link, bytes_per_s=bytes_per_s / thin))
        prices = self._prices[max(way.part, 0)]
        return replace(prices, machine=replace(prices.machine, links=tuple(links)))

    def way(self, ranks: Sequence[int], *, ring: bool) -> Way:
        """Give the way between ranks: in a ring, or from the first to the second."""
        (row,) = self.ways(np.array([ranks]), ring=ring).tolist()
        thin = tuple(self._thin[list(ranks)].max(axis=0).tolist())
        return Way(int(row[0]), int(row[1]), row[2], thin)

    def ways(self, groups: Ints, *, ring: bool) -> Floats:
        """Give for each row of ranks what is in a `Way`, but for faults: a row of numbers.

        Of ranks of one part that is the part's own tree of links; of others, the cluster's.
        """
        low, high = groups.min(axis=1), groups.max(axis=1)
        part = np.where(self.part[low] == self.part[high], self.part[low], -1)
        found = np.zeros(len(groups))
        for one in np.unique(part).tolist():
            mine = part == one
            first = self.first[one] if one >= 0 else 0
            found[mine] = self._joining(low[mine] - first, high[mine] - first, one)
        return np.stack([part, found, self._measured(groups, ring)], axis=1)

    def _joining(self, low: Ints, high: Ints, part: int) -> Ints:
        """Give the number among `LEVELS` of the innermost level that joins devices."""
        levels = self.levels(part)
        found = np.full(len(low), LEVELS.index(levels[-1].name) if levels else 0)
        # Devices of different parts have no node in common, wherever their numbers fall.
        inner = len(self.inner) if part < 0 else 0
        for level in reversed(levels[inner:]):
            found[low // level.devices == high // level.devices] = LEVELS.index(level.name)
        return found

    def _measured(self, groups: Ints, ring: bool) -> Floats:
        """Give the least bytes per second measured between neighbours in each row."""
        found = np.full(len(groups), np.inf)
        if not self.cluster.links:
            return found
        nodes = groups // self._per_node
        speeds = np.maximum(np.array(self.cluster.links), SILENT_BYTES_PER_S)
        for a, b in pairwise([*nodes.T, nodes.T[0]] if ring else nodes.T):
            found = np.where(a == b, found, np.minimum(found, speeds[a, b]))
        return found

    def levels(self, part: int) -> tuple[Level, ...]:
        """Give the levels of links of a part; of the whole cluster for -1."""
        return self.cluster.levels if part < 0 else self.cluster.part(part).levels

    @cached_property
    def links(self) -> dict[int, tuple[Link, ...]]:
        """The numbers of the levels of each part, innermost first, and of the cluster as -1."""
        found = {-1: Machine.of(self.cluster).links}
        found |= {i: p.machine.links for i, p in enumerate(self._prices)}
        if not self.network.routed:
            return found
        return {part: self._alone(part, links) for part, links in found.items()}

    def _alone(self, part: int, links: tuple[Link, ...]) -> tuple[Link, ...]:
        """Give links on which a device sends as if alone: who else does is played."""
        levels = self.levels(part)
        return tuple(
            record(
                Link,
                devices=link.devices,
                bytes_per_s=levels[min(i, len(levels) - 1)].alone_bytes_per_s,
                latency_s=link.latency_s,
            )
            if levels
            else link
            for i, link in enumerate(links)
        )

    @cached_property
    def _prices(self) -> list[Prices]:
        """Prices on each kind of device and its own links."""
        kinds = [Machine.of(self.cluster.part(i)) for i in range(len(self.cluster.parts))]
        return [Prices(self.program, machine, self.stack) for machine in kinds]

    @cached_property
    def part(self) -> Ints:
        """Of each rank the part of the cluster in which its device is."""
        counts = [part.devices for part in self.cluster.parts]
        return np.repeat(np.arange(len(counts)), counts)[: self._size]

    @cached_property
    def first(self) -> list[int]:
        """The first device of each part."""
        return [0, *np.cumsum([part.devices for part in self.cluster.parts]).tolist()]

    @cached_property
    def inner(self) -> tuple[Level, ...]:
        """The levels of an uneven cluster that stand within its parts; those beyond join them."""
        if len(self.cluster.parts) == 1:
            return ()
        count = len(common([part.levels for part in self.cluster.parts]))
        return self.cluster.levels[: min(count, len(self.cluster.levels) - 1)]

    @property
    def _per_node(self) -> int:
        return self.cluster.per_node

    @property
    def _size(self) -> int:
        return self.program.placement.mesh.size

    @cached_property
    def _slow(self) -> Floats:
        """How many times longer each rank computes."""
        factors = np.ones(self._size)
        for fault in self.faults:
            if isinstance(fault, SlowRank):
                factors[fault.rank] *= fault.factor
        return factors

    @cached_property
    def _thin(self) -> Floats:
        """How many times less each rank's links carry, by the number of the level in `LEVELS`."""
        factors = np.ones((self._size, len(LEVELS)))
        for fault in self.faults:
            if isinstance(fault, SlowLink):
                factors[list(fault.ranks), LEVELS.index(fault.level)] *= fault.factor
        return factors


@dataclass(frozen=True, slots=True)
class Way:
    """What lies between ranks.

    Attributes:
        part: The part of the cluster in which all of them are; -1 if they are in several.
        level: The number in `LEVELS` of the innermost level of links that joins them.
        measured_bytes_per_s: The least that was measured between two neighbours of them, from one
            device alone; infinite where nobody measured, and within a node.
        thin: How many times less the thinnest links carry, by the number of the level in `LEVELS`.
    """

    part: int
    level: int
    measured_bytes_per_s: float
    thin: tuple[float, ...]
