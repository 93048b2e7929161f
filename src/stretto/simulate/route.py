"""Which links a message takes: its flows, their paths in the tree, and the uplinks they are given.

A switch of the tree has, towards the level outside it, as many uplinks as the links below it, less
oversubscription; each leads to another spine, which has one link down to every switch. A flow goes
up to one spine and down from it. What spine that is decides the network's balance:

* ``hash``: chance, as equal-cost multi-path routing does, so that flows collide on links;
* ``hash`` of k flows: each of k sub-flows by itself (Addanki et al., 2024);
* ``spray``: all of them evenly, packet by packet;
* ``planned``: a spine for each flow so that no link carries more flows of a kind of message than
  another must: traffic engineering for connections that live as long as the training (Dong et al.,
  2025), here by colouring the edges of a bipartite graph (Kőnig, 1916).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal

from stretto.cluster import Level
from stretto.simulate.network import SWITCHED, joins_switches
from stretto.simulate.site import Site

Pattern = Literal["send", "ring", "exchange"]
Flow = tuple[int, int, float]
"""(sender, receiver, share of what one rank of the message sends to its neighbour)."""


@dataclass(frozen=True, slots=True)
class Route:
    """What a message takes of links.

    Attributes:
        links: Which.
        flows: How many of its flows each of them carries, a smaller one as the part that it is of
            the largest.
        shares: The largest of these flows on each, relative to what a rank sends to its neighbour.
    """

    links: tuple[int, ...]
    flows: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Fork:
    """Where a flow has several uplinks to choose from.

    Attributes:
        level: Name of the level that joins the switches, and the part of the cluster.
        up: The switch that it leaves.
        down: The switch that it goes to.
        spines: How many there are to choose from.
        bytes_per_s: Of one uplink.
    """

    level: Hashable
    up: Hashable
    down: Hashable
    spines: int
    bytes_per_s: float


class Wiring:
    """The links of a cluster, and who takes them.

    Messages are added first, for a plan must know all of them; then each has its route.
    """

    def __init__(self, site: Site) -> None:
        """Begin without messages."""
        self.site, self.network = site, site.network
        self.number: dict[Hashable, int] = {}
        self.capacity: list[float] = []
        self.messages: list[tuple[Hashable, list[Flow]]] = []

    def add(self, ranks: Sequence[int], *, pattern: Pattern, kind: Hashable) -> int:
        """Add a message among ranks, and give its number.

        Args:
            ranks: Between whom, the sender first.
            pattern: Who sends to whom.
            kind: What is sent at the same time has the same kind.
        """
        self.messages.append((kind, list(self._flows(ranks, pattern))))
        return len(self.messages) - 1

    def routes(self) -> tuple[Route, ...]:
        """Give the route of every message."""
        paths = [[self._path(a, b) for a, b, _ in flows] for _, flows in self.messages]
        spines = self._planned(paths) if self.network.balance == "planned" else {}
        found = []
        for m, ((_, flows), mine) in enumerate(zip(self.messages, paths, strict=True)):
            taken: defaultdict[int, list[float]] = defaultdict(list)
            for f, ((a, b, share), (links, forks)) in enumerate(zip(flows, mine, strict=True)):
                for link in links:
                    taken[link].append(share)
                for i, fork in enumerate(forks):
                    for link, part in self._uplinks(fork, (a, b), spines.get((m, f, i))):
                        taken[link].append(share * part)
            found.append(
                Route(
                    tuple(taken),
                    tuple(sum(shares) / max(shares) for shares in taken.values()),
                    tuple(max(shares) for shares in taken.values()),
                )
            )
        return tuple(found)

    # ── flows ────────────────────────────────────────────────────────────────────────────────────

    def _flows(self, ranks: Sequence[int], pattern: Pattern) -> Iterator[Flow]:
        match pattern:
            case "send":
                yield ranks[0], ranks[1], 1.0
            case "ring":
                yield from self._ring(sorted(ranks))
            case "exchange":
                yield from ((a, b, 1.0) for a in ranks for b in ranks if a != b)

    def _ring(self, ranks: Sequence[int]) -> Iterator[Flow]:
        """Give the flows of rings that enter and leave every block of a level once.

        Between blocks there are as many rings as members in each, and each carries its part: member
        by member, so that on rails nothing has to change them.
        """
        blocks: list[tuple[int, ...]] = [(rank,) for rank in ranks]
        part = self._part(ranks)
        for level in self.site.levels(part):
            ends = groupby(blocks, key=lambda block: self._instance(block[0], level, part))
            inner, blocks = [list(some) for _, some in ends], []
            for some in inner:
                closing = [(some[-1], some[0])] if len(inner) == 1 and len(some) > 1 else []
                for x, y in (*pairwise(some), *closing):
                    count = min(len(x), len(y))
                    yield from ((x[j], y[j], 1 / count) for j in range(count))
                blocks.append(tuple(rank for block in some for rank in block))

    def _part(self, ranks: Iterable[int]) -> int:
        """Give the part of the cluster in which ranks are; -1 if in several."""
        parts = {int(self.site.part[rank]) for rank in ranks}
        return parts.pop() if len(parts) == 1 else -1

    def _instance(self, rank: int, level: Level, part: int) -> Hashable:
        """Give the block of a level in which a rank is."""
        own = int(self.site.part[rank])
        inner = part < 0 and level in self.site.inner
        first = self.site.first[own] if part >= 0 or inner else 0
        return own if inner else 0, (rank - first) // level.devices

    # ── paths ────────────────────────────────────────────────────────────────────────────────────

    def _path(self, a: int, b: int) -> tuple[list[int], list[_Fork]]:
        """Give the links that a flow takes for sure, and where it has a choice."""
        part = self._part((a, b))
        levels = self.site.levels(part)
        near = (self._instance(a, v, part) == self._instance(b, v, part) for v in levels)
        at = next(i for i, joined in enumerate(near) if joined)
        first = self.site.first[part] if part >= 0 else 0
        return self._through(a - first, b - first, at, (part, levels))

    def _through(
        self, a: int, b: int, at: int, tree: tuple[int, tuple[Level, ...]]
    ) -> tuple[list[int], list[_Fork]]:
        """Give the same for devices of a tree that its level `at` joins."""
        part, levels = tree
        if levels[at].name not in SWITCHED:
            return self._ports(a, b, at, tree), []
        links: list[int] = []
        outer = next(i for i, level in enumerate(levels) if level.name in SWITCHED)
        if levels[outer].rail and at == outer and outer > 0:
            # A rail joins only devices of one index: another's is reached within the node first.
            per = levels[outer - 1].devices
            beside = a - a % per + b % per
            if beside != a:
                links += self._ports(a, beside, outer - 1, tree)
            a = beside
        links += self._ports(a, b, outer, tree)
        forks = []
        for i in range(outer + 1, at + 1):
            level, (up, below), (down, _) = levels[i], _switch(a, i, levels), _switch(b, i, levels)
            if up == down:
                continue
            carried = below / (level.sharers * level.oversubscription)
            spines = max(1, round(carried))
            each = carried / spines * level.alone_bytes_per_s
            forks.append(_Fork((part, level.name), up, down, spines, each))
        return links, forks

    def _ports(self, a: int, b: int, at: int, tree: tuple[int, tuple[Level, ...]]) -> list[int]:
        """Give the links of two devices into a level."""
        part, levels = tree
        level = levels[at]
        outer = at > 0 and level.name in SWITCHED
        bytes_per_s = level.alone_bytes_per_s / (level.oversubscription if outer else 1.0)
        return [
            self._link((part, level.name, side, x // level.sharers), bytes_per_s)
            for side, x in (("out", a), ("in", b))
        ]

    def _link(self, name: Hashable, bytes_per_s: float) -> int:
        if name not in self.number:
            self.number[name] = len(self.capacity)
            self.capacity.append(bytes_per_s)
        return self.number[name]

    # ── uplinks ──────────────────────────────────────────────────────────────────────────────────

    def _uplinks(
        self, fork: _Fork, ends: tuple[int, int], planned: int | None
    ) -> Iterator[tuple[int, float]]:
        """Give the links up to spines and down from them, and the share of a flow on each."""
        match self.network.balance:
            case "spray" | "fair":
                bundle = fork.spines * fork.bytes_per_s
                for side, switch in (("up", fork.up), ("down", fork.down)):
                    yield self._link((fork.level, side, switch), bundle), 1.0
                return
            case "hash":
                count, seed = self.network.flows, self.network.seed
                spines = [mixed(seed, *ends, flow) % fork.spines for flow in range(count)]
            case "planned":
                assert planned is not None, "every flow has been planned"
                spines = [planned]
        for spine in spines:
            for side, switch in (("up", fork.up), ("down", fork.down)):
                link = self._link((fork.level, side, switch, spine), fork.bytes_per_s)
                yield link, 1.0 / len(spines)

    def _planned(
        self, paths: Sequence[Sequence[tuple[list[int], list[_Fork]]]]
    ) -> dict[tuple[int, int, int], int]:
        """Give the spine of every choice: of a message, of its flow, at its fork."""
        alike: defaultdict[Hashable, list[tuple[tuple[int, int, int], _Fork]]] = defaultdict(list)
        for m, (kind, _) in enumerate(self.messages):
            for f, (_, forks) in enumerate(paths[m]):
                for i, fork in enumerate(forks):
                    alike[kind, fork.level].append(((m, f, i), fork))
        found = {}
        for some in alike.values():
            colours = coloured([(fork.up, fork.down) for _, fork in some])
            for (key, fork), colour in zip(some, colours, strict=True):
                found[key] = colour % fork.spines
        return found


def _switch(device: int, at: int, levels: tuple[Level, ...]) -> tuple[Hashable, float]:
    """Give the switch below a level to which a device belongs, and how many belong to it."""
    assert joins_switches(levels, at), "only switches have uplinks"
    below = levels[at - 1]
    if not below.rail or at < 2:
        return device // below.devices, float(below.devices)
    per = levels[at - 2].devices  # a switch for each index within a node
    return (device // below.devices, device % per), below.devices / per


def coloured(edges: Sequence[tuple[Hashable, Hashable]]) -> list[int]:
    """Give each edge of a bipartite multigraph a colour, so that no two at a node share one.

    There are no more colours than edges at one node (Kőnig, 1916): where both ends lack different
    ones, they are exchanged along the path of these two from one end.

    Args:
        edges: (a node of one side, a node of the other).
    """
    at: defaultdict[Hashable, dict[int, int]] = defaultdict(dict)  # node → colour → edge
    colours = [-1] * len(edges)
    ends = [(("up", a), ("down", b)) for a, b in edges]

    def free(node: Hashable) -> int:
        return next(c for c in range(len(at[node]) + 1) if c not in at[node])

    for edge, (a, b) in enumerate(ends):
        mine, theirs = free(a), free(b)
        if mine != theirs:
            path, node, colour = [], b, mine
            while colour in at[node]:
                path.append(at[node][colour])
                one, other = ends[path[-1]]
                node, colour = other if node == one else one, theirs if colour == mine else mine
            for old in path:
                for node in ends[old]:
                    del at[node][colours[old]]
            for old in path:
                colours[old] = theirs if colours[old] == mine else mine
                for node in ends[old]:
                    at[node][colours[old]] = old
        colours[edge] = mine
        at[a][mine] = at[b][mine] = edge
    return colours


def mixed(*numbers: int) -> int:
    """Give a number that looks like chance and is the same for the same (Steele et al., 2014)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state
