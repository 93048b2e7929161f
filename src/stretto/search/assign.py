"""Which node is which: the order of nodes with which a plan is fastest over measured links.

Nodes that are alike on paper are not over their links. Neighbours in a pipeline and rings of
data-parallel ranks are laid over fast ones, by the bandwidths measured between each two nodes (Yim
et al., 2024).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from stretto.cluster import Cluster
from stretto.cost import Number
from stretto.cost.bubble import Load
from stretto.search.found import Found
from stretto.search.frame import Frame, Split, as_is
from stretto.search.ranks import Pieces, RankCost, rank_cost
from stretto.search.staged import Staged, priced, step_s
from stretto.search.wires import Edges, Whole, measured, message_s, speeds

EXACT = 8
"""Nodes up to which all orders are tried: 40,320 of eight."""

_BATCH = 4096  # orders priced at once
_KICKS = 12  # local optima that are left again
_SWAPS = 3  # by so many swaps
_RANDOM = 64  # orders with which the best is compared
_SLIGHT = 1e-3  # of what does not make the step longer, which tells orders apart that take as long
_TRIED = 3  # meshes within the error, and as many kinds of plan


@dataclass(frozen=True)
class Assignment:
    """A plan, and which node stands where in it.

    Attributes:
        plan: The plan, priced with the nodes in this order.
        order: The node that takes each place, from the first rank on.
        as_is_s: Seconds of a step with nodes in the order of their numbers.
        random_s: The mean of random orders.
        exact: Whether all orders were tried.
    """

    plan: Staged
    order: tuple[int, ...]
    as_is_s: float
    random_s: float
    exact: bool

    @property
    def speedup(self) -> float:
        """How many times as fast as with nodes in the order of their numbers."""
        return self.as_is_s / self.plan.step_s


def over_links(found: Found) -> Assignment:
    """Give the best plan over measured links, and the order of nodes with which it is best.

    Args:
        found: A search that found a plan on a cluster whose links were measured.
    """
    places = dict.fromkeys([*found.mesh_firsts[:_TRIED], *found.family_firsts[:_TRIED]])
    rows = found.candidates.rows([*places])
    frames = [Frame(found.task, rows.at(i)) for i in range(len(rows.pp))]
    return min((assign(as_is(frame)) for frame in frames), key=lambda one: one.plan.step_s)


def assign(split: Split, *, exact: int = EXACT, seed: int = 0) -> Assignment:
    """Give the order of nodes with which a plan is fastest.

    Of more nodes than can be tried in all orders, two are exchanged as long as that helps; then a
    few are exchanged at random, and so on (Lourenço et al., 2003).

    Args:
        split: The plan, on a cluster whose links were measured.
        exact: Nodes up to which all orders are tried.
        seed: Of what is random.
    """
    task = split.frame.task
    nodes, random = task.cluster.nodes, np.random.default_rng(seed)
    price = _Price(split)
    same = np.arange(nodes)
    others = np.stack([random.permutation(nodes) for _ in range(_RANDOM)])
    few = nodes <= exact
    order = _best_of_all(price, nodes) if few else _improved(price, same, random)
    if price(order[None])[0] >= price(same[None])[0]:
        order = same
    chosen = tuple(int(i) for i in order)
    plan = priced(split.plan, task.model, cluster=reordered(task.cluster, chosen), stack=task.stack)
    return Assignment(plan, chosen, split.step_s, float(price.step_s(others).mean()), few)


def reordered(cluster: Cluster, order: tuple[int, ...]) -> Cluster:
    """Give a cluster whose nodes come in another order, with what was measured between them."""
    links = tuple(tuple(cluster.links[i][j] for j in order) for i in order)
    return replace(cluster, links=links)


class _Price:
    """The seconds of a step for arrays of orders.

    What a rank takes depends on the slowest link of its rings alone, and a message on its own, so
    both are worked out once for each bandwidth that was measured.
    """

    def __init__(self, split: Split) -> None:
        frame = split.frame
        task, p = frame.task, frame.pricing
        cluster = task.cluster
        links = speeds(cluster)
        np.fill_diagonal(links, np.inf)
        rates, places = np.unique(links, return_inverse=True)
        self.rate = places.reshape(links.shape)
        machine = measured(task.machine, cluster, rates[:, None])
        self.pricing = replace(p, machine=machine)
        pieces = Pieces.of(self.pricing, frame.kinds, recomputes=task.choices, zero=frame.zero)
        self.cost = rank_cost(split.share, pieces)
        whole = (len(rates), frame.ranks)
        load = self.cost.load
        parts = (load.forward_s, load.inputs_s, load.weights_s, self.cost.tail_s)
        self.parts = [np.broadcast_to(part, whole) for part in parts]
        self.sends = message_s(replace(p, machine=task.machine), cluster, rates)
        edges = Edges.of(frame.choice, cluster)
        self.rings, self.neighbours = _Segments.of(edges.rings), _Segments.of(edges.sends)
        self.on = frame.on

    def __call__(self, orders: Whole) -> Number:
        """Give what is to be small: the step, and slightly what does not make it longer."""
        seconds, besides = self._priced(orders)
        return seconds + _SLIGHT * besides

    def step_s(self, orders: Whole) -> Number:
        """Give the seconds of a step."""
        return self._priced(orders)[0]

    def _priced(self, orders: Whole) -> tuple[Number, Number]:
        ranks = np.arange(len(self.on.parts))
        slow = self.rings.least(self.rate, orders)
        *load, tail = (part[slow, ranks] for part in self.parts)
        sends = self.sends[self.neighbours.least(self.rate, orders)]
        cost = RankCost(Load(*load), tail, self.cost.memory)
        seconds = step_s(self.pricing, cost, replace(self.on, send_s=sends))
        return seconds, sum(load, tail).mean(-1) + sends.sum(-1)


@dataclass(frozen=True, slots=True)
class _Segments:
    """Pairs of places, those of each rank together.

    Attributes:
        pairs: All of them; each rank has one of a place with itself, which is of no link.
        starts: Where those of each rank begin.
    """

    pairs: Whole
    starts: Whole

    @staticmethod
    def of(edges: tuple[Whole, ...]) -> _Segments:
        own = [np.concatenate([np.zeros((1, 2), np.int64), pairs]) for pairs in edges]
        starts = np.cumsum([0, *(len(pairs) for pairs in own[:-1])])
        return _Segments(np.concatenate([np.zeros((0, 2), np.int64), *own]), starts[: len(own)])

    def least(self, rate: Whole, orders: Whole) -> Whole:
        """Give the least rate of each rank's links, for each order."""
        if not len(self.starts):
            return np.zeros((len(orders), 0), np.int64)
        one, other = self.pairs.T
        return np.minimum.reduceat(rate[orders[:, one], orders[:, other]], self.starts, axis=1)


def _best_of_all(price: _Price, nodes: int) -> Whole:
    orders = np.array([*itertools.permutations(range(nodes))])
    return np.asarray(orders[_all(price, orders).argmin()])


def _all(price: _Price, orders: Whole) -> Number:
    return np.concatenate([price(orders[i : i + _BATCH]) for i in range(0, len(orders), _BATCH)])


def _improved(price: _Price, order: Whole, random: np.random.Generator) -> Whole:
    best = _descended(price, order)
    least = price(best[None])[0]
    for _ in range(_KICKS):
        kicked = best.copy()
        for one, other in random.integers(len(order), size=(_SWAPS, 2)):
            kicked[[one, other]] = kicked[[other, one]]
        found = _descended(price, kicked)
        if price(found[None])[0] < least:
            best, least = found, price(found[None])[0]
    return best


def _descended(price: _Price, order: Whole) -> Whole:
    """Exchange the two nodes with which most is won, as long as any is."""
    pairs = np.array([*itertools.combinations(range(len(order)), 2)])
    rows = np.arange(len(pairs))[:, None]
    least = price(order[None])[0]
    while True:
        orders = np.repeat(order[None], len(pairs), axis=0)
        orders[rows, pairs] = orders[rows, pairs[:, ::-1]]
        values = _all(price, orders)
        if values.min() >= least:
            return order
        order, least = orders[values.argmin()], values.min()
