"""Seconds of what goes over links: α–β on the tree of links.

A group is `ranks` devices, `stride` apart. At a level of the tree it has some members below one
instance of that level and fewer below one of the next level inside; where these differ the group
crosses the level, and all that does so is divided among the links of the members inside.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stretto.cost.machine import Link, Machine
from stretto.cost.numbers import Number, ceil_div


def _levels(
    ranks: Number, stride: Number, machine: Machine
) -> Iterator[tuple[Link, Number, Number]]:
    """Give (link, members inside, members below) of every level."""
    inside = np.ones_like(ranks)
    last = len(machine.links) - 1
    for i, link in enumerate(machine.links):
        below = ranks if i == last else np.clip(np.floor(link.devices / stride), inside, ranks)
        yield link, inside, below
        inside = below


def level(ranks: Number, *, stride: Number, machine: Machine) -> Number:
    """Give the index of the innermost level that joins a group, whose links it takes."""
    beyond = (ranks * stride > link.devices for link in machine.links)
    return np.asarray(sum(np.asarray(b, dtype=np.float64) for b in beyond))


def ring_s(size_bytes: Number, ranks: Number, *, stride: Number, machine: Machine) -> Number:
    """Give the seconds in which every rank gathers `size_bytes` that lie in parts on all.

    A reduce-scatter takes as long. A ring, or rings, that enter and leave each node once: a node's
    links share what crosses (Patarasuk and Yuan, 2009). Its steps are as many as its ranks.
    """
    share = size_bytes * (ranks - 1) / ranks
    slowest = np.zeros(np.broadcast_shapes(share.shape, stride.shape))
    latency = np.zeros_like(slowest)
    for link, inside, below in _levels(ranks, stride, machine):
        crosses = below > inside
        slowest = np.where(
            crosses, np.maximum(slowest, share / (inside * link.bytes_per_s)), slowest
        )
        latency = latency + np.where(
            crosses, link.latency_s * (ranks / inside - ranks / below), 0.0
        )
    return slowest + latency


def all_reduce_s(size_bytes: Number, ranks: Number, *, stride: Number, machine: Machine) -> Number:
    """Give the seconds of an all-reduce of `size_bytes` on every rank.

    Rings move each byte twice; few bytes over many ranks go by trees, of which each byte crosses a
    level twice in logarithmic time (Sanders et al., 2009).
    """
    rings = 2 * ring_s(size_bytes, ranks, stride=stride, machine=machine)
    trees = 2 * tree_s(size_bytes, ranks, stride=stride, machine=machine)
    return np.minimum(rings, trees)


def tree_s(size_bytes: Number, ranks: Number, *, stride: Number, machine: Machine) -> Number:
    """Give the seconds of a broadcast, or a reduction to one, by pipelined double trees."""
    slowest = np.zeros(np.broadcast_shapes(size_bytes.shape, ranks.shape, stride.shape))
    latency = np.zeros_like(slowest)
    for link, inside, below in _levels(ranks, stride, machine):
        crosses = below > inside
        slowest = np.where(
            crosses, np.maximum(slowest, size_bytes / (inside * link.bytes_per_s)), slowest
        )
        latency = latency + np.where(
            crosses, 2 * link.latency_s * np.log2(np.maximum(below / inside, 1.0)), 0.0
        )
    return slowest * 1.1 + latency


def exchange_s(size_bytes: Number, ranks: Number, *, stride: Number, machine: Machine) -> Number:
    """Give the seconds of an all-to-all: every rank sends `size_bytes`, evenly to all."""
    slowest = np.zeros(np.broadcast_shapes(size_bytes.shape, ranks.shape, stride.shape))
    latency = np.zeros_like(slowest)
    for link, inside, below in _levels(ranks, stride, machine):
        crosses = below > inside
        out = size_bytes * (ranks - inside) / ranks
        slowest = np.where(crosses, np.maximum(slowest, out / link.bytes_per_s), slowest)
        latency = np.where(crosses, link.latency_s * np.log2(np.maximum(ranks, 2.0)), latency)
    return slowest + latency


def line_s(
    size_bytes: Number, ranks: Number, *, stride: Number, machine: Machine
) -> tuple[Number, Number]:
    """Give the seconds of a message along a line of ranks: its slowest hop, and all its hops.

    Args:
        size_bytes: Of the message.
        ranks: Of the line.
        stride: Devices between neighbours.
        machine: The cluster.
    """
    slowest = np.zeros(np.broadcast_shapes(size_bytes.shape, ranks.shape, stride.shape))
    whole, blocks = np.zeros_like(slowest), ranks
    last = len(machine.links) - 1
    for i, link in enumerate(machine.links):
        # Hops between blocks of this level's devices are left to the levels outside it.
        left = (
            np.ones(()) if i == last else np.clip(ceil_div(ranks * stride, link.devices), 1, blocks)
        )
        hops = blocks - left
        own = size_bytes / link.bytes_per_s + link.latency_s
        slowest = np.where(hops > 0, np.maximum(slowest, own), slowest)
        whole = whole + np.where(hops > 0, hops * own, 0.0)
        blocks = left
    return slowest, whole


def send_s(size_bytes: Number, *, stride: Number, machine: Machine) -> Number:
    """Give the seconds of a message to the device `stride` away."""
    seconds = np.zeros(np.broadcast_shapes(size_bytes.shape, stride.shape))
    for link in reversed(machine.links):
        own = size_bytes / link.bytes_per_s + link.latency_s
        # The outermost level takes whatever the inner ones do not join.
        seconds = np.where((link.devices >= 2 * stride) | (link is machine.links[-1]), own, seconds)
    return seconds
