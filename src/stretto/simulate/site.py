"""What ranks run on: devices and links, and what faults make of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stretto.cluster import Cluster
from stretto.cost.instruction import Message, Prices
from stretto.cost.machine import Link, Machine
from stretto.cost.stack import Stack
from stretto.program.instruction import Compute, Program, StageProgram, Update
from stretto.simulate.fault import Fault, Halt, SlowLink, SlowRank
from stretto.simulate.symmetry import Ints


@dataclass(frozen=True)
class Site:
    """A program's ranks on a cluster's devices: rank i on device i.

    Attributes:
        program: The program.
        cluster: Where it runs.
        stack: With which software.
        faults: What is wrong.
    """

    program: Program
    cluster: Cluster
    stack: Stack
    faults: tuple[Fault, ...] = ()

    @property
    def halts(self) -> dict[int, Halt]:
        """Give the ranks that stop; of several stops of one, the first."""
        found = sorted((f for f in self.faults if isinstance(f, Halt)), key=lambda f: -f.at)
        return {f.rank: f for f in found}

    @cached_property
    def marks(self) -> list[Hashable]:
        """What tells each rank from others by itself."""
        halts = self.halts
        return [
            (part, slow, tuple(thin), halts.get(rank))
            for rank, (part, slow, thin) in enumerate(
                zip(self._part.tolist(), self._slow.tolist(), self._thin.tolist(), strict=True)
            )
        ]

    def work_s(self, work: Compute | Update, stage: StageProgram, *, rank: int) -> float:
        """Give the seconds of a compute or an update on a rank's device."""
        seconds = self._prices[int(self._part[rank])].seconds(work, stage)
        return seconds * float(self._slow[rank])

    def host_s(self, work: Compute | Update, *, rank: int) -> float:
        """Give the seconds of the host of a rank to start it."""
        prices = self._prices[int(self._part[rank])]
        return prices.host_s(work) if isinstance(work, Compute) else 0.0

    def message_s(self, message: Message, ranks: Sequence[int]) -> float:
        """Give the seconds of a message among `ranks` alone: as long as on the thinnest links."""
        thin = tuple(self._thin[list(ranks)].max(axis=0).tolist())
        far = self.levels(np.array([ranks])).tolist()
        key = message, thin, len(ranks), max(ranks) - min(ranks), *far
        if key not in self._known:
            self._known[key] = self._through(thin).message_s(message, ranks)
        return self._known[key]

    @cached_property
    def _known(self) -> dict[Hashable, float]:
        return {}

    def _through(self, thin: Sequence[float]) -> Prices:
        """Give prices on links of which each level carries so many times less."""
        links = tuple(
            replace(link, bytes_per_s=link.bytes_per_s / factor)
            for link, factor in zip(self.links, thin, strict=True)
        )
        return replace(self._prices[0], machine=replace(self._prices[0].machine, links=links))

    def levels(self, groups: Ints) -> Ints:
        """Give for each row of ranks the index of the innermost level of links that joins them."""
        found = np.full(len(groups), len(self.links) - 1)
        low, high = groups.min(axis=1), groups.max(axis=1)
        for i in reversed(range(len(self.links))):
            size = int(self.links[i].devices)
            found[low // size == high // size] = i
        return found

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """The levels of links, innermost first."""
        return Machine.of(self.cluster).links

    @cached_property
    def _prices(self) -> list[Prices]:
        """Prices on each kind of device, on the links of the whole cluster."""
        kinds = [Machine.of(self.cluster.part(i)) for i in range(len(self.cluster.parts))]
        return [Prices(self.program, replace(m, links=self.links), self.stack) for m in kinds]

    @cached_property
    def _part(self) -> Ints:
        counts = [part.devices for part in self.cluster.parts]
        return np.repeat(np.arange(len(counts)), counts)[: self.program.placement.mesh.size]

    @cached_property
    def _slow(self) -> NDArray[np.float64]:
        """How many times longer each rank computes."""
        factors = np.ones(self.program.placement.mesh.size)
        for fault in self.faults:
            if isinstance(fault, SlowRank):
                factors[fault.rank] *= fault.factor
        return factors

    @cached_property
    def _thin(self) -> NDArray[np.float64]:
        """How many times less each rank's links carry, by level."""
        factors = np.ones((self.program.placement.mesh.size, len(self.links)))
        names: list[str] = [level.name for level in self.cluster.levels]
        for fault in self.faults:
            if isinstance(fault, SlowLink):
                # The outermost level stands for all that a tree lacks further out.
                at = names.index(fault.level)
                stop = len(self.links) if at == len(names) - 1 else at + 1
                factors[list(fault.ranks), at:stop] *= fault.factor
        return factors
