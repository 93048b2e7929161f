"""What a search tries for each decision."""

from __future__ import annotations

from dataclasses import dataclass

from stretto.cost import SCHEDULES

ALL, NODE = 0, -1
"""Values of `Options.shard`: all of dp × cp, and those of them within a node."""

WHERE_POSSIBLE = -1
"""Value of `Options.sequence`: where tp divides the positions. It never takes longer, nor more
memory, than none (Korthikanti et al., 2022)."""

_SIMPLEST_FIRST = ("1f1b", "gpipe", "interleaved", "breadth-first", "zb-1p", "zb-2p", "zb-v",
                   "vocabulary")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What a search tries, by the field of `Row`; the simplest first: of equals the first wins.

    Mesh factorisations are all tried, and so are all divisors of the number of experts.

    Attributes:
        order: Indices into `ORDERS`.
        micro_batch: Sequences of a micro-batch; none for all divisors of the batch up to
            `MOST_POSITIONS` positions.
        zero: What data-parallel ranks shard.
        shard: Ranks that cut a tensor among them: numbers, `ALL` or `NODE`.
        regather: Whether ZeRO-3 gathers parameters again for the backward pass.
        schedule: Indices into `SCHEDULES`.
        interleave: Stages of a rank; none for all that leave stages even, but for two layers at
            most, in whose place the embedding and the head stand.
        recompute: Indices into `RECOMPUTES`.
        recompute_layers: Layers of a stage, with full recomputation, 0 for all; none for all and
            `PARTS` of them.
        sequence: Whether activations between blocks are split over tp, or `WHERE_POSSIBLE`.
        tensor_overlap: Whether tensor-parallel moves are pipelined with their products.
        two_level: Whether gradients are reduced within each node first.
        codec: Indices into `CODECS`.
        offload: Shares of the kept activations that wait in the host's memory.
        optimizer_offload: Shares of the optimizer state that do.
    """

    order: tuple[float, ...] = (0, 1)
    micro_batch: tuple[float, ...] = ()
    zero: tuple[float, ...] = (0, 1, 2, 3)
    shard: tuple[float, ...] = (ALL, NODE)
    regather: tuple[float, ...] = (1, 0)
    schedule: tuple[float, ...] = tuple(SCHEDULES.index(name) for name in _SIMPLEST_FIRST)
    interleave: tuple[float, ...] = ()
    recompute: tuple[float, ...] = (0, 1, 2)
    recompute_layers: tuple[float, ...] = ()
    sequence: tuple[float, ...] = (WHERE_POSSIBLE,)
    tensor_overlap: tuple[float, ...] = (0, 1)
    two_level: tuple[float, ...] = (0,)
    codec: tuple[float, ...] = (0,)
    offload: tuple[float, ...] = (0.0,)
    optimizer_offload: tuple[float, ...] = (0.0,)


PARTS = (0.25, 0.5, 0.75)
"""Shares of a stage's layers that are recomputed, beside none and all."""

MOST_POSITIONS = 2**17
"""Of a micro-batch that is tried, where it has more than one sequence."""

LEAST_POSITIONS = 2048
"""Of a sequence on a context-parallel rank, in a plan that is tried."""
