"""Which node is which: the order of nodes with which a plan is fastest over measured links.

Nodes that are alike on paper are not over their links. As Pipette does (Yim et al., 2024), neighbours
in a pipeline and rings of data-parallel ranks are laid over fast links, for the bandwidths measured
between each two nodes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stretto.cluster import Cluster
from stretto.cost import Number, Pricing
from stretto.search.frame import Frame
from stretto.search.ranks import Kinds, Pieces, RankCost, Share, rank_cost
from stretto.search.staged import Staged, step_s
from stretto.search.wires import Edges, Wires, measured, message_s

Orders = NDArray[np.int64]
"""The node that stands at each place of the mesh, along the last axis."""

EXACT = 8
"""Nodes up to which all orders are tried: 40,320 of eight."""

_STARTS = 12  # orders from which better ones are looked for
_KICK = 3  # swaps that leave a local optimum
_KICKS = 40
_RANDOM = 100  # orders with which the best is compared


@dataclass(frozen=True, slots=True)
class Assignment:
    """An order of nodes for a plan.

    Attributes:
        order: The node that takes each place, from the first rank on.
        step_s: Seconds of a step with it.
        as_is_s: With nodes in the order of their numbers.
        random_s: The mean of random orders.
        exact: Whether all orders were tried.
    """

    order: tuple[int, ...]
    step_s: float
    as_is_s: float
    random_s: float
    exact: bool

    @property
    def speedup(self) -> float:
        """How many times as fast as nodes in the order of their numbers."""
        return self.as_is_s / self.step_s


def reordered(cluster: Cluster, order: tuple[int, ...]) -> Cluster:
    """Give a cluster whose nodes come in another order, with what was measured between them."""
    links = tuple(tuple(cluster.links[i][j] for j in order) for i in order)
    return replace(cluster, links=links)
