"""Where the ranks of a pipeline lie, and what their links carry: in parts, over measured nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stretto.cluster import Cluster, Level
from stretto.cost import Choice, Machine, Number, Pricing, gathered
from stretto.cost.collectives import send_s

Whole = NDArray[np.int64]
"""Numbers of devices, nodes or ranks."""

_SILENT_BYTES_PER_S = 1.0  # of a link over which nothing came: no plan is to use it


@dataclass(frozen=True, slots=True)
class Wires:
    """What the ranks of a pipeline run on, and what a message between neighbours takes.

    Attributes:
        machine: Of each rank, or one for all.
        parts: The part of the cluster in which each rank lies; -1 where it lies in several.
        send_s: Seconds of a message from each rank to the next.
        crosses: Whether it leaves a part.
        busy_s: For how long it keeps the links that it takes from others.
    """

    machine: Machine
    parts: tuple[int, ...]
    send_s: Number
    crosses: NDArray[np.bool_]
    busy_s: Number


def wires(p: Pricing, cluster: Cluster) -> Wires:
    """Give what the pipeline ranks of one plan lie on.

    Args:
        p: What is priced; its machine is that of the whole cluster.
        cluster: Devices in the order of the mesh's ranks.
    """
    ranks = int(p.choice.pp)
    if len(cluster.parts) > 1:
        return _over_parts(p, cluster)
    crosses = np.zeros(ranks - 1, np.bool_)
    if cluster.links and cluster.nodes > 1:
        edges = Edges.of(p.choice, cluster)
        machine, sends = edges.carried(p, cluster)
        return Wires(machine, (0,) * ranks, sends, crosses, sends)
    sends = hops_s(p)
    return Wires(p.machine, (0,) * ranks, sends, crosses, sends)


def hops_s(p: Pricing) -> Number:
    """Give the seconds of a message from each rank to the next: over the level that joins them."""
    size, stride = message_bytes(p), p.choice.pp_stride
    first = np.arange(int(p.choice.pp)) * stride
    seconds = np.zeros(len(first) - 1)
    for i, link in enumerate(reversed(p.machine.links)):
        block = np.floor(first / link.devices)
        joined = (block[1:] == block[:-1]) | (i == 0)
        seconds = np.where(joined, size / link.bytes_per_s + link.latency_s, seconds)
    return seconds


def message_bytes(p: Pricing) -> Number:
    """Give the bytes that a device sends to the next stage for a micro-batch."""
    return p.tokens * p.shape.embed * p.choice.value_bytes / p.choice.tp


def devices(c: Choice) -> Whole:
    """Give the device of each rank of one plan, by pp, dp, cp and tp."""
    axes = [
        np.arange(int(extent)) * int(stride)
        for extent, stride in (
            (c.pp, c.pp_stride), (c.dp, c.dp_stride), (c.cp, c.cp_stride), (c.tp, c.tp_stride)
        )
    ]  # fmt: skip
    return np.asarray(sum(np.ix_(*axes)), dtype=np.int64)


# ── parts ────────────────────────────────────────────────────────────────────────────────────────


def _over_parts(p: Pricing, cluster: Cluster) -> Wires:
    ends = np.cumsum([part.devices for part in cluster.parts])
    part = np.searchsorted(ends, devices(p.choice), side="right").reshape(int(p.choice.pp), -1)
    parts = tuple(int(row[0]) if (row == row[0]).all() else -1 for row in part)
    own = [Machine.of(cluster.part(i)) for i in range(len(cluster.parts))]
    machine = gathered([own[i] if i >= 0 else p.machine for i in parts])
    size = message_bytes(p)
    within = np.broadcast_to(send_s(size, stride=p.choice.pp_stride, machine=machine), len(parts))
    crosses = (part[1:] != part[:-1]).any(axis=1)
    busy = np.where(crosses, _crossing_s(size, cluster.levels[-1], p.choice), within[:-1])
    sends = busy + np.where(crosses, cluster.levels[-1].latency_s, 0.0)
    return Wires(machine, parts, sends, crosses, busy)


def _crossing_s(size: Number, level: Level, c: Choice) -> Number:
    """Give for how long a message between parts keeps its link: all ranks of a stage send it."""
    senders = np.minimum(level.sharers, c.dp * c.cp * c.tp)
    return size * senders * level.oversubscription / level.alone_bytes_per_s


# ── measured links ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Edges:
    """The pairs of nodes between which the ranks of a plan send, (from, to) to a row.

    Attributes:
        rings: By pipeline rank: of its data-, context- and tensor-parallel rings, each closed and
            in the order of its ranks.
        sends: By pair of neighbours in the pipeline, both ways.
    """

    rings: tuple[Whole, ...]
    sends: tuple[Whole, ...]

    @staticmethod
    def of(c: Choice, cluster: Cluster) -> Edges:
        """Give the pairs of one plan."""
        nodes = devices(c) // cluster.per_node
        flat = nodes.reshape(len(nodes), -1)
        sends = (np.stack([a, b], -1) for a, b in pairwise(flat))
        return Edges(
            tuple(_ring_edges(rank) for rank in nodes),
            tuple(_apart(np.concatenate([one, one[:, ::-1]])) for one in sends),
        )

    def carried(self, p: Pricing, cluster: Cluster) -> tuple[Machine, Number]:
        """Give the machine of each rank, and the seconds of a message to the next."""
        rings, sends = (slowest(cluster, edges) for edges in (self.rings, self.sends))
        return measured(p.machine, cluster, rings), message_s(p, cluster, sends)


def slowest(cluster: Cluster, edges: Sequence[Whole]) -> Number:
    """Give the measured bytes per second of the slowest link of each set; ∞ where there is none."""
    links = speeds(cluster)
    return np.array([np.min(links[pairs[:, 0], pairs[:, 1]], initial=np.inf) for pairs in edges])


def speeds(cluster: Cluster) -> Number:
    """Give the measured bytes per second from one device of each node to one of each other."""
    return np.asarray(np.maximum(cluster.links, _SILENT_BYTES_PER_S), dtype=np.float64)


def measured(machine: Machine, cluster: Cluster, bytes_per_s: Number) -> Machine:
    """Give machines whose devices, each alone, were measured to send so much to another node.

    Args:
        machine: The machine as its data sheets have it.
        cluster: The cluster.
        bytes_per_s: Measured; ∞ for what the data sheets have.
    """
    share = bytes_per_s / _sharers(cluster)
    links = tuple(
        replace(link, bytes_per_s=np.where(np.isfinite(share), share, link.bytes_per_s))
        if link.devices > cluster.per_node
        else link
        for link in machine.links
    )
    return replace(machine, links=links)


def message_s(p: Pricing, cluster: Cluster, bytes_per_s: Number) -> Number:
    """Give the seconds of messages between stages over links that were measured so."""
    size, level = message_bytes(p), _outside(cluster)
    near = send_s(size, stride=p.choice.pp_stride, machine=p.machine)
    far = size / (bytes_per_s / _sharers(cluster)) + level.latency_s
    return np.where(np.isfinite(bytes_per_s), far, near)


def _outside(cluster: Cluster) -> Level:
    return next(level for level in cluster.levels if level.devices > cluster.per_node)


def _sharers(cluster: Cluster) -> float:
    """Give the devices that share a link out of a node when all send."""
    level = _outside(cluster)
    return level.sharers * level.oversubscription


def _ring_edges(rank: Whole) -> Whole:
    dp, cp, tp = rank.shape
    rings = (rank.reshape(dp * cp, tp).T, rank.transpose(0, 2, 1).reshape(-1, cp), rank)
    pairs = (np.stack([ring, np.roll(ring, -1, -1)], -1).reshape(-1, 2) for ring in rings)
    return _apart(np.concatenate([*pairs]))


def _apart(pairs: Whole) -> Whole:
    """Give the pairs of different nodes, once each."""
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
