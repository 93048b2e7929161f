"""How transfers share what lies between switches, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from stretto.cluster import Cluster, Level
from stretto.errors import Problem

Balance = Literal["fair", "hash", "spray", "planned"]

BALANCES: tuple[str, ...] = get_args(Balance)

SWITCHED = ("rail", "leaf", "spine", "wide")
"""Levels of links between nodes. One that has another of them inside joins switches by uplinks."""


@dataclass(frozen=True, slots=True)
class Network:
    """How transfers share what lies between switches.

    Attributes:
        balance: With ``fair``, what a rank sends into a level shares its own part of that level,
            as if all ranks sent at all times. Else flows take uplinks of switches: by ``hash``,
            each the one that chance gives it, as equal-cost multi-path routing does; by ``spray``,
            all of them evenly, packet by packet; as ``planned``, those that least share.
        flows: Sub-flows into which a transfer is split, each hashed by itself.
        seed: Of chance.
    """

    balance: Balance = "fair"
    flows: int = 1
    seed: int = 0

    @property
    def routed(self) -> bool:
        """Whether flows take uplinks, so that every rank is one of its own."""
        return self.balance != "fair"


FAIR = Network()
"""What is played where nobody says."""


def joins_switches(levels: tuple[Level, ...], at: int) -> bool:
    """Tell whether a level joins switches: then it has several uplinks below it to choose from."""
    return at > 0 and levels[at].name in SWITCHED and levels[at - 1].name in SWITCHED


def network_problems(network: Network, cluster: Cluster) -> Iterator[Problem]:
    """Give what keeps a network from being played on a cluster."""
    if network.flows < 1:
        yield Problem("network.flows", f"is {network.flows}, below 1", "use 1 or more")
    trees = [cluster.levels, *(part.levels for part in cluster.parts)]
    if network.routed and not any(joins_switches(t, i) for t in trees for i in range(len(t))):
        names = ", ".join(level.name for level in cluster.levels) or "no links"
        rule = f"{cluster.name} has {names}: no level of switches inside another to hash over"
        remedy = "name a cluster with a leaf or rail level inside its spine, as dgx-h100x512"
        yield Problem("network", rule, remedy)
