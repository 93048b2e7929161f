"""What goes wrong in a simulated step, as data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from stretto.cluster import LEVELS, Cluster
from stretto.errors import Problem
from stretto.program.instruction import Program
from stretto.simulate.network import Network, network_problems


@dataclass(frozen=True, slots=True)
class SlowRank:
    """A device that computes slowly.

    Attributes:
        rank: Which.
        factor: How many times longer its computes and updates take.
    """

    rank: int
    factor: float


@dataclass(frozen=True, slots=True)
class SlowLink:
    """Links of one level that carry less for some ranks: a bad cable, a congested switch.

    Attributes:
        ranks: Whose links into the level: those of a node, or of one device.
        level: Name of the level.
        factor: How many times less they carry.
    """

    ranks: tuple[int, ...]
    level: str
    factor: float


@dataclass(frozen=True, slots=True)
class Halt:
    """A rank that stops before one of its instructions.

    Attributes:
        rank: Which.
        at: Index of the instruction that it does not begin any more.
        how: A ``crash`` loses what it was sending and receiving; in a ``hang`` the messages that it
            had issued still go through.
        step: In which step. A step is like any other, so this changes nothing within it.
    """

    rank: int
    at: int = 0
    how: Literal["crash", "hang"] = "crash"
    step: int = 0


Fault = SlowRank | SlowLink | Halt


def problems(
    program: Program, cluster: Cluster, *, faults: Iterable[Fault], network: Network
) -> list[Problem]:
    """Give what keeps a step from being played."""
    size, found = program.placement.mesh.size, list[Problem]()
    if size > cluster.devices:
        rule = f"{cluster.name} has {cluster.devices} devices for {size} ranks"
        found.append(Problem("mesh", rule, f"simulate {size} devices or more"))
    found += network_problems(network, cluster)
    for i, fault in enumerate(faults):
        found += _fault_problems(fault, f"faults.{i}", program=program, cluster=cluster)
    return found


def _fault_problems(
    fault: Fault, field: str, *, program: Program, cluster: Cluster
) -> Iterator[Problem]:
    """Give what keeps a fault from being simulated."""
    size = program.placement.mesh.size
    ranks = fault.ranks if isinstance(fault, SlowLink) else (fault.rank,)
    for rank in ranks:
        if not 0 <= rank < size:
            yield Problem(field, f"there is no rank {rank} of {size}", f"use 0 to {size - 1}")
    match fault:
        case SlowRank(factor=factor) | SlowLink(factor=factor):
            if not 1 <= factor < math.inf:
                yield Problem(field, f"factor is {factor:g}, below 1 or none", "use 1 or more")
        case Halt(rank=rank, at=at):
            length = len(program.of(rank % size).instructions)
            if not 0 <= at < length:
                rule = f"rank {rank} has {length} instructions, but halts at {at}"
                yield Problem(field, rule, f"use 0 to {length - 1}")
    if isinstance(fault, SlowLink):
        levels = names(cluster)
        if fault.level not in levels:
            rule = f"{cluster.name} has no level {fault.level!r}"
            yield Problem(field, rule, f"use {', '.join(levels) or 'a cluster with links'}")


def names(cluster: Cluster) -> tuple[str, ...]:
    """Give the names of the levels of links of a cluster and its parts, innermost first."""
    trees = (cluster.levels, *(part.levels for part in cluster.parts))
    there = {level.name for tree in trees for level in tree}
    return tuple(name for name in LEVELS if name in there)
