"""The numbers of a plan that a price depends on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import get_args

import numpy as np

from stretto.cost.numbers import Number, record
from stretto.model import Block, BlockKind, Model
from stretto.plan import DTYPE_BYTES, Plan, ScheduleName
from stretto.program.cut import balanced_cut, stage_layers

PRECISIONS = ("float32", "bfloat16", "float8", "float4")
"""Of matrix products; a `Choice` holds the index."""

SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)
"""Of pipelines; a `Choice` holds the index."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A plan, or an array of plans.

    Attributes:
        pp: Pipeline ranks.
        interleave: Virtual stages of each.
        dp: Data-parallel replicas.
        cp: Ranks that split the positions of a sequence.
        tp: Tensor-parallel ranks.
        ep: Ranks that split the experts; ep × etp of the dp × cp × tp ranks, the inner ones.
        etp: Ranks that split each expert.
        pp_stride: Devices from one pipeline rank to the next; likewise for the other axes.
        dp_stride: Of data parallelism.
        cp_stride: Of context parallelism.
        tp_stride: Of tensor parallelism.
        micro_batch: Sequences of a micro-batch.
        micro_batches: Of a replica in a step.
        seq: Positions of a sequence.
        zero: What data-parallel ranks shard: 0 nothing, 1 optimizer state, 2 gradients too, 3
            parameters too (Rajbhandari et al., 2020).
        shard: Ranks of the dp × cp that cut a tensor among them; those outside hold replicas.
        regather: 1 where ZeRO-3 gathers parameters again for the backward pass.
        sequence: 1 where activations between blocks are split over tp (Korthikanti et al., 2022).
        schedule: Index into `SCHEDULES`.
        again_core: Share of the layers whose attention scores are recomputed.
        again_matrix: Share of the matrix products that are.
        again_pointwise: Share of norms, activations and additions that are.
        precision: Of matrix products, an index into `PRECISIONS`.
        value_bytes: Of an activation or a weight in use.
        master_bytes: Of a master weight; 0 where the weight in use is the master.
        gradient_bytes: Of a gradient as it rests.
        tensor_overlap: 1 where tensor-parallel moves are pipelined with their products.
        offload: Share of the kept activations that wait in the host's memory.
        optimizer_offload: Share of the optimizer state that does.
        codec: Bytes of a gradient on the wire, relative to `gradient_bytes`.
        two_level: 1 where gradients are reduced inside a node first.
        first_layers: Of the first pipeline rank, where stages are cut by cost, a part of a layer by
            its share of the cost of one; below 0 where there are fewer blocks than stages.
        inner_layers: Of the fullest of those between the first and the last; 0 for none.
        last_layers: Of the last.
    """

    pp: Number
    interleave: Number
    dp: Number
    cp: Number
    tp: Number
    ep: Number
    etp: Number
    pp_stride: Number
    dp_stride: Number
    cp_stride: Number
    tp_stride: Number
    micro_batch: Number
    micro_batches: Number
    seq: Number
    zero: Number
    shard: Number
    regather: Number
    sequence: Number
    schedule: Number
    again_core: Number
    again_matrix: Number
    again_pointwise: Number
    precision: Number
    value_bytes: Number
    master_bytes: Number
    gradient_bytes: Number
    tensor_overlap: Number
    offload: Number
    optimizer_offload: Number
    codec: Number
    two_level: Number
    first_layers: Number = field(default_factory=lambda: np.array(-1.0))
    inner_layers: Number = field(default_factory=lambda: np.zeros(()))
    last_layers: Number = field(default_factory=lambda: np.zeros(()))

    @property
    def devices(self) -> Number:
        """All ranks."""
        return self.pp * self.dp * self.cp * self.tp

    @property
    def tokens(self) -> Number:
        """Tokens of a step over all ranks."""
        return self.dp * self.micro_batches * self.micro_batch * self.seq

    def stride(self, inside: Number) -> Number:
        """Give the devices from one rank to the next of a group in the dp × cp × tp.

        Args:
            inside: How many of these ranks lie inside it: 1 of a tensor-parallel group, tp × cp of
                a data-parallel one.
        """
        data = self.dp_stride * inside / (self.tp * self.cp)
        context = self.cp_stride * inside / self.tp
        outer = np.where(inside < self.tp * self.cp, context, data)
        return np.where(inside < self.tp, self.tp_stride * inside, outer)

    @staticmethod
    def of(plan: Plan, model: Model) -> Choice:
        """Give the numbers of `plan` for `model`.

        A plan whose layers differ has the mean of what they recompute; the rules of its first
        layer stand for all.
        """
        words = plan.words
        strides = _strides(plan)
        again = _again(plan, model)
        numerics, memory, moves = plan.numerics, plan.memory, plan.communication
        value = DTYPE_BYTES[numerics.dtype]
        master = DTYPE_BYTES[numerics.master]
        cut = plan.pipeline.cut if plan.stages == words.pp else ()
        deal = dealt(model, words.pp, positions=plan.batch.seq, cut=cut)
        return record(
            Choice,
            pp=words.pp,
            interleave=plan.pipeline.chunks,
            dp=words.dp,
            cp=words.cp,
            tp=words.tp,
            ep=words.ep,
            etp=words.etp,
            pp_stride=strides["pp"],
            dp_stride=strides["dp"],
            cp_stride=strides["cp"],
            tp_stride=strides["tp"],
            micro_batch=plan.batch.micro_batch,
            micro_batches=plan.micro_batches,
            seq=plan.batch.seq,
            zero=words.zero,
            shard=words.shard,
            regather=memory.regather,
            sequence=words.sequence and words.tp > 1,
            schedule=SCHEDULES.index(plan.pipeline.schedule),
            again_core=again[0],
            again_matrix=again[1],
            again_pointwise=again[2],
            precision=_precision(plan),
            value_bytes=value,
            master_bytes=master if master != value else 0,
            gradient_bytes=master,
            tensor_overlap=moves.tensor_overlap,
            offload=memory.offload,
            optimizer_offload=memory.optimizer_offload,
            codec=_CODECS[moves.codec] / master if moves.codec != "none" else 1.0,
            two_level=moves.hierarchy == "two-level",
            **dict(zip(DEALT, deal, strict=True)),
        )


DEALT = ("first_layers", "inner_layers", "last_layers")
"""What `dealt` gives, as a `Choice` has it."""


@lru_cache(maxsize=256)
def dealt(
    model: Model, stages: int, *, positions: int, cut: tuple[int, ...] = ()
) -> tuple[float, float, float]:
    """Give the layers of pipeline ranks where stages are cut by cost.

    Args:
        model: What is cut.
        stages: How many there are.
        positions: Of a sequence.
        cut: The first block of each stage, where that is stated.
    """
    if stages > len(model.blocks):
        return -1.0, 0.0, 0.0
    firsts = cut or balanced_cut(model, stages, positions=positions)
    first, *inner = stage_layers(model, firsts, positions=positions)
    last = inner.pop() if inner else first
    return first, max(inner, default=0.0), last


_CODECS = {"bfloat16": 2.0, "int8": 1.03, "powersgd": 0.05}
"""Bytes of a gradient on the wire; int8 has a scale for each 128, PowerSGD's factors are small."""


def _precision(plan: Plan) -> int:
    names = {"bfloat16": "bfloat16", "float32": "float32", "float64": "float32"}
    matrix = plan.numerics.matrix
    return PRECISIONS.index(names[plan.numerics.dtype] if matrix == "same" else matrix)


def _strides(plan: Plan) -> dict[str, int]:
    """Give the devices from one rank to the next of what each word names, by its rule."""
    tensor = max(("heads", "ff", "vocab"), key=plan.split)
    rules = {"pp": "", "dp": "batch", "cp": "time", "tp": tensor}
    views, inside, strides = dict(plan.mesh.views), 1, {}
    for axis, extent in reversed(plan.mesh.axes):
        strides[axis], inside = inside, inside * extent
    last = {word: (plan.rules.axes(dim) or (word,))[-1] for word, dim in rules.items()}
    return {word: strides.get(views.get(axis, (axis,))[-1], 1) for word, axis in last.items()}


def _again(plan: Plan, model: Model) -> tuple[float, float, float]:
    """Give the shares of attention scores, of products and of all else that are recomputed."""
    attention = sum(_matrix_size(model, b) for b in model.blocks if b.kind is BlockKind.ATTENTION)
    rest = sum(_matrix_size(model, b) for b in model.blocks if b.kind in _FEED_FORWARD)
    share = attention / (attention + rest)
    shares = {"none": (0.0, 0.0, 0.0), "selective": (1.0, share, 0.5), "full": (1.0, 1.0, 1.0)}
    layers = [plan.at(i).memory for i in range(model.layers)]
    some = [
        1.0 if m.recompute_layers is None
        else min(1.0, m.recompute_layers * plan.stages / model.layers)
        for m in layers
    ]  # fmt: skip
    core, matrix, pointwise = (
        sum(shares[m.recompute][k] * part for m, part in zip(layers, some, strict=True))
        / model.layers
        for k in range(3)
    )
    return core, matrix, pointwise


_FEED_FORWARD = (BlockKind.FEED_FORWARD, BlockKind.EXPERTS)


def _matrix_size(model: Model, block: Block) -> float:
    """Give the elements of a block's matrices that a token meets."""
    return sum(
        math.prod(model.shape(p)) * (model.top_k / model.experts if "expert" in p.dims else 1.0)
        for p in block.matrices
    )
