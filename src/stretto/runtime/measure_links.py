"""What links carry: every collective over every axis and size, and each pair of devices alone.

Collectives are issued as a program's moves are, so they are measured as they will run, all groups
of an axis at once.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from stretto.cluster import Sample, SampleKind
from stretto.layout import Kind, Step
from stretto.runtime.collective import Group, issue
from stretto.runtime.measure import Action, Measured, Meter, Rung, elapsed

SIZES_BYTES = {
    "cpu": tuple(1 << power for power in (10, 14, 18, 22, 26)),
    "cuda": tuple(1 << power for power in (10, 14, 18, 22, 26, 30)),
}
"""Messages, by the type of device."""

COLLECTIVES: tuple[tuple[SampleKind, Step], ...] = (
    ("all_reduce", Step(Kind.ALL_REDUCE, ())),
    ("all_gather", Step(Kind.ALL_GATHER, (), dim=0)),
    ("reduce_scatter", Step(Kind.REDUCE_SCATTER, (), dim=0)),
    ("all_to_all", Step(Kind.ALL_TO_ALL, (), dim=0, to=0)),
)

_FLOAT_BYTES = 4
_WORD_BYTES = 8
_FIRST_BYTES = 1 << 16

Pair = tuple[int, int]
"""(rank that sends, rank that receives)."""
Matrix = tuple[tuple[float, ...], ...]
"""Bytes per second from row to column, one way; 0 where there is no link."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Groups of ranks, as those along an axis of a mesh.

    Attributes:
        ranks: In a group.
        stride: From one rank of a group to the next.
    """

    ranks: int
    stride: int

    def group_of(self, rank: int) -> tuple[int, ...]:
        """Give the ranks of the group that a rank is in."""
        span = self.ranks * self.stride
        first = rank // span * span + rank % self.stride
        return tuple(range(first, first + span, self.stride))


def axes(ranks: int, per_node: int) -> tuple[Axis, ...]:
    """Give the axes to measure: of powers of two, of a node and of all, within and across nodes.

    Args:
        ranks: How many there are.
        per_node: How many of them each node has.
    """
    nodes = ranks // per_node
    inside = [Axis(n, 1) for n in _sizes(per_node)]
    whole = [Axis(n * per_node, 1) for n in _sizes(nodes)]
    across = [Axis(n, per_node) for n in _sizes(nodes)]
    return tuple(dict.fromkeys([*inside, *whole, *across]))


def _sizes(most: int) -> list[int]:
    """Give the powers of two that divide `most`, and itself; without 1."""
    powers = {1 << power for power in range(1, most.bit_length())}
    return sorted(n for n in {*powers, most} if n > 1 and most % n == 0)


def collectives(meter: Meter, *, per_node: int, until_s: float) -> Iterator[Measured]:
    """Give how long messages take: every collective on every axis, and sends, by size."""
    world = meter.world
    groups = {axis: _group(axis, meter) for axis in axes(world.size, per_node)}
    pairs = [axis for axis in groups if axis.ranks == 2]
    ladders = [
        *((kind, step, axis) for kind, step in COLLECTIVES for axis in groups),
        *(("send", None, axis) for axis in pairs),
    ]
    for (kind, step, axis), end_s in meter.shared(ladders, until_s=until_s):
        group = groups[axis]
        whole = [
            math.ceil(size / _FLOAT_BYTES / axis.ranks) for size in SIZES_BYTES[meter.device.type]
        ]
        rungs = [_rung(kind, step, axis, group, count, meter.device) for count in whole]
        found = meter.climb(rungs, until_s=end_s, ranks="together")
        yield from _one_way(found) if step is None else found


def _group(axis: Axis, meter: Meter) -> Group:
    """Make this rank's group of an axis; only its members take part."""
    ranks = axis.group_of(meter.world.rank)
    handle = dist.new_group(list(ranks), use_local_synchronization=True)
    index = ranks.index(meter.world.rank)
    return Group(handle, len(ranks), index, exchanges=meter.device.type == "cpu")


def _rung(
    kind: SampleKind, step: Step | None, axis: Axis, group: Group, count: int, device: torch.device
) -> Rung:
    """Give a rung whose whole buffer has `count` numbers for each rank of the group."""
    numbers = count * axis.ranks

    def prepare() -> Action:
        mine = count if kind == "all_gather" else numbers
        tensor = torch.zeros(mine, device=device)
        return _there_and_back(tensor, group) if step is None else _collective(step, tensor, group)

    size = float(numbers * _FLOAT_BYTES)
    return Rung(Sample(kind, math.nan, "", (0, 0, 0), size, axis.ranks, axis.stride), size, prepare)


def _collective(step: Step, tensor: Tensor, group: Group) -> Action:
    def go() -> None:
        issue(step.kind, [tensor], [step], group=group, consumed=True).wait()

    return go


def _there_and_back(tensor: Tensor, group: Group) -> Action:
    """Give the action that sends a tensor from the first of a pair, and a word back."""
    word, first = tensor.new_zeros(_WORD_BYTES // _FLOAT_BYTES), group.index == 0
    return lambda: _round(tensor, word, 1 - group.index, first=first, group=group.handle)


def _round(
    message: Tensor,
    word: Tensor,
    peer: int,
    *,
    first: bool,
    group: dist.ProcessGroup | None = None,
) -> None:
    """Pass a message from the first of a pair to the other, and a word back."""
    _pass(message, peer, group=group, leaves=first)
    _pass(word, peer, group=group, leaves=not first)


def _pass(message: Tensor, peer: int, *, group: dist.ProcessGroup | None, leaves: bool) -> None:
    """Send to or receive from a peer; in a batch, so that NCCL opens no connection of its own."""
    to = dist.isend if leaves else dist.irecv
    for work in dist.batch_isend_irecv([dist.P2POp(to, message, group=group, group_peer=peer)]):
        work.wait()


def _one_way(found: Iterator[Measured]) -> Iterator[Measured]:
    """Give sends without the word that came back, which took half of the shortest round."""
    word_s = math.inf
    for one in found:
        word_s = min(word_s, one.sample.seconds / 2)
        yield replace(one, sample=replace(one.sample, seconds=one.sample.seconds - word_s))


# ── each pair alone ──────────────────────────────────────────────────────────────────────────────


def within(meter: Meter, *, per_node: int, until_s: float) -> tuple[Matrix, ...]:
    """Give for each node the bandwidth between its devices, each pair alone in its node."""
    nodes = range(meter.world.size // per_node)
    rounds = [
        [(node * per_node + i, node * per_node + j) for node in nodes]
        for i, j in itertools.permutations(range(per_node), 2)
    ]
    found = _rates(meter, rounds, until_s=until_s)
    return tuple(_matrix(found, range(n * per_node, (n + 1) * per_node)) for n in nodes)


def between(meter: Meter, *, per_node: int, until_s: float) -> Matrix:
    """Give the bandwidth between the first devices of nodes, each node with one other at once."""
    firsts = range(0, meter.world.size, per_node)
    rounds = [[(firsts[i], firsts[j]) for i, j in pairs] for pairs in tournament(len(firsts))]
    return _matrix(_rates(meter, rounds, until_s=until_s), firsts)


def tournament(players: int) -> Iterator[list[Pair]]:
    """Give rounds in which everybody meets at most one other, and in all everybody each way."""
    seats = [*range(players), *([-1] if players % 2 else [])]
    half = len(seats) // 2
    for _ in range(len(seats) - 1):
        pairs = [p for p in zip(seats[:half], reversed(seats[half:]), strict=True) if -1 not in p]
        yield from (way for way in (pairs, [(b, a) for a, b in pairs]) if way)
        seats = [seats[0], seats[-1], *seats[1:-1]]


def _matrix(rates: dict[Pair, float], ranks: Sequence[int]) -> Matrix:
    return tuple(tuple(rates.get((i, j), 0.0) for j in ranks) for i in ranks)


def _rates(meter: Meter, rounds: Sequence[Sequence[Pair]], *, until_s: float) -> dict[Pair, float]:
    """Give the bytes per second of each pair, those of a round at once."""
    rates: dict[Pair, float] = {}
    if rounds:
        _meet(meter)
    for pairs, end_s in meter.shared(rounds, until_s=until_s):
        rate = 0.0
        meter.tell(Sample("send", math.nan, ranks=2, stride=abs(pairs[0][0] - pairs[0][1])))
        for source, target in pairs:
            if meter.world.rank == source:
                rate = _pour(target, meter.device, span_s=end_s - meter.now_s)
            elif meter.world.rank == target:
                _catch(source, meter.device)
        every = meter.gather(rate)
        rates |= {pair: every[pair[0]] for pair in pairs}
    return rates


def _meet(meter: Meter) -> None:
    """Have all ranks speak in the world's group, as batches of messages ask for."""
    dist.all_reduce(torch.zeros(1, device=meter.device))


def _pour(target: int, device: torch.device, *, span_s: float) -> float:
    """Send larger and larger messages for about `span_s`; give the last one's bytes per second.

    Only the sender sees the time, so a word before each message says how long it is; 0 is the end.
    """

    def took_s(size: int) -> float:
        _pass(torch.tensor([size]), target, group=None, leaves=True)
        if len(message) != size:
            message.resize_(size).fill_(1)
        return elapsed(lambda: _round(message, word, target, first=True), device=device)

    message, word = (torch.ones(_WORD_BYTES, dtype=torch.uint8, device=device) for _ in range(2))
    took_s(_WORD_BYTES)  # makes the connection
    word_s = took_s(_WORD_BYTES) / 2
    size, most = _FIRST_BYTES, SIZES_BYTES[device.type][-1]
    while 4 * min(took_s(size), took_s(size)) < span_s / 4 and size < most:
        size *= 4
    middle_s = statistics.median(took_s(size) for _ in range(3))
    _pass(torch.tensor([0]), target, group=None, leaves=True)
    return size / max(middle_s - word_s, 1e-9)


def _catch(source: int, device: torch.device) -> None:
    """Receive what `_pour` sends."""
    length = torch.empty(1, dtype=torch.int64)
    message, word = (torch.ones(_WORD_BYTES, dtype=torch.uint8, device=device) for _ in range(2))
    while True:
        _pass(length, source, group=None, leaves=False)
        if not (size := int(length)):
            return
        if len(message) != size:
            message.resize_(size).fill_(1)
        _round(message, word, source, first=False)
