"""Seconds of a training step, in parts that sum to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stretto.cost.bubble import Load, bubble_s
from stretto.cost.choice import SCHEDULES
from stretto.cost.collectives import all_reduce_s, line_s, ring_s
from stretto.cost.deal import deal
from stretto.cost.host import host_s
from stretto.cost.kernels import memory_s
from stretto.cost.layer import Passes, Work, embedding, head, layer
from stretto.cost.numbers import Number, relu
from stretto.cost.pricing import Pricing


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step on the rank that takes longest, by what they go to.

    Attributes:
        matrix_s: Matrix products, recomputed ones too.
        attention_s: Attention scores.
        pointwise_s: What memory bounds: norms, activations, additions, casts, the loss.
        launch_s: Waiting for the host to start kernels.
        tensor_s: Tensor-parallel moves that nothing hides.
        context_s: Context-parallel ones.
        expert_s: Dispatching tokens to experts and back.
        bubble_s: Waiting for other stages.
        send_s: Sends between stages.
        data_s: Reducing gradients and gathering parameters.
        optimizer_s: The optimizer.
        host_s: What waits in the host's memory, on its way there and back.
        fixed_s: What every step costs.
        straggle_s: Waiting for the slowest of many ranks.
    """

    matrix_s: Number
    attention_s: Number
    pointwise_s: Number
    launch_s: Number
    tensor_s: Number
    context_s: Number
    expert_s: Number
    bubble_s: Number
    send_s: Number
    data_s: Number
    optimizer_s: Number
    host_s: Number
    fixed_s: Number
    straggle_s: Number

    @property
    def total_s(self) -> Number:
        """The step."""
        return sum((getattr(self, name) for name in StepTime.__slots__), np.zeros(()))


def step_time(p: Pricing) -> StepTime:
    """Give the seconds of a step and what they go to."""
    rank, bubble = _pipeline(p)
    work = rank.forward.plus(rank.again).plus(rank.inputs).plus(rank.weights)
    total = work.times(p.choice.micro_batches)
    sends, (data, optimizer, host) = _send_s(p), besides_s(p, rank)
    subtotal = total.seconds + bubble + sends + data + optimizer + host + p.stack.step_s
    doublings = np.log2(np.maximum(p.choice.devices / 8, 1.0))
    return StepTime(
        **{name: getattr(total, name) for name in Work.__slots__},
        bubble_s=bubble,
        send_s=sends,
        data_s=data,
        optimizer_s=optimizer,
        host_s=host + np.zeros_like(bubble),
        fixed_s=p.stack.step_s + np.zeros_like(bubble),
        straggle_s=subtotal * p.stack.straggle * doublings,
    )


def besides_s(p: Pricing, rank: Passes) -> tuple[Number, Number, Number]:
    """Give the seconds of a step besides passes and sends.

    Of moves of gradients and parameters, of the optimizer, and of what waits in the host's memory.

    Args:
        p: What is priced.
        rank: The passes of a micro-batch.
    """
    elements = _optimizer_elements(p)
    here = 1 - p.choice.optimizer_offload
    optimizer = memory_s(p.stack.optimizer_bytes * elements * here, p.machine)
    return _data_s(p, rank), optimizer, host_s(p, rank, elements=elements)


def _pipeline(p: Pricing) -> tuple[Passes, Number]:
    """Give the passes of a micro-batch on the rank with most to do, and for how long it waits."""
    c, shape = p.choice, p.shape
    pieces = (mean_layer(p), embedding(p), head(p))
    dealt, single = deal(p), c.pp == 1
    spread = c.schedule == SCHEDULES.index("vocabulary")  # every rank has a share of the head
    heads = shape.heads_out * np.where(spread, 1.0 / c.pp, 1.0)
    layer_s, _, head_s = (piece.seconds for piece in pieces)
    shared = np.where(spread, heads, 0.0)
    at_end = dealt.last * layer_s + heads * head_s
    last = single | (at_end >= dealt.other * layer_s + shared * head_s)
    layers, outputs = np.where(last, dealt.last, dealt.other), np.where(last, heads, shared)
    inputs = np.where(single, 1.0, 0.0)
    rank = Passes(
        *(
            a.times(layers).plus(b.times(inputs)).plus(o.times(outputs))
            for a, b, o in zip(*map(_parts, pieces), strict=True)
        )
    )
    busiest = [part.seconds for part in _parts(rank)]
    # Nobody waits for a head that is shared, so that its other shares are left out.
    others = [
        relu(shape.layers * a.seconds + b.seconds + heads * o.seconds - own)
        / np.maximum(c.pp - 1, 1.0)
        for a, b, o, own in zip(*map(_parts, pieces), busiest, strict=True)
    ]
    return rank, bubble_s(c, slowest=_load(busiest), others=_load(others))


def _load(parts: Sequence[Number]) -> Load:
    forward, again, inputs, weights = parts
    return Load(forward, again + inputs, weights)


def _parts(passes: Passes) -> tuple[Work, Work, Work, Work]:
    return passes.forward, passes.again, passes.inputs, passes.weights


def mean_layer(p: Pricing) -> Passes:
    """Give the mean layer of the model."""
    share = p.shape.expert_layers / p.shape.layers
    zero, one = np.zeros_like(share), np.ones_like(share)
    if not np.any(share):
        return layer(p, experts=zero)
    plain, routed = layer(p, experts=zero), layer(p, experts=one)
    return Passes(
        *(
            a.times(1 - share).plus(b.times(share))
            for a, b in zip(_parts(plain), _parts(routed), strict=True)
        )
    )


def _send_s(p: Pricing) -> Number:
    """Give the seconds of sends between stages that nothing hides."""
    c = p.choice
    size = p.tokens * p.shape.embed * c.value_bytes / c.tp
    slowest, whole = line_s(size, c.pp, stride=c.pp_stride, machine=p.machine)
    steady = 2 * c.interleave * c.micro_batches * slowest * (1 - p.stack.send_overlap)
    return np.where(c.pp > 1, steady + 2 * whole, 0.0)


def _optimizer_elements(p: Pricing) -> Number:
    """Give the elements of parameters that a rank's optimizer updates."""
    shard = np.where(p.choice.zero > 0, p.choice.shard, 1.0)
    spread = np.minimum(shard, p.expert_replicas)
    return p.plain_parameters / shard + p.expert_parameters / spread


def _data_s(p: Pricing, rank: Passes) -> Number:
    """Give the seconds of reducing gradients and gathering parameters that nothing hides."""
    c, stack = p.choice, p.stack
    groups = (
        (p.plain_parameters, c.dp * c.cp, c.tp),
        (p.expert_parameters, p.expert_replicas, c.ep * c.etp),
    )
    reduce = sum((_reduce_s(p, *group) for group in groups), np.zeros(()))
    gather = sum((_gather_s(p, *group) for group in groups), np.zeros(()))
    ahead, back = rank.forward.seconds, rank.backward_s
    layers = p.shape.layers / c.pp
    # What rests in shards is reduced for each micro-batch, and gathered for it too unless a
    # pipeline keeps it; what does not is reduced once in a step, whose last backward hides it.
    gathers = np.where((c.zero >= 3) & ~((c.pp > 1) & (c.regather == 0)), c.micro_batches, 1.0)
    reduces = np.where(c.zero >= 2, c.micro_batches, 1.0)
    again = np.where((c.zero >= 3) & (c.regather > 0), gather, 0.0)
    # Before the first layer nothing runs.
    first = np.where(c.zero >= 3, 1.0 / np.maximum(layers, 1.0), 0.0)
    ahead_s = _exposed(p, gather, stack.gather_overlap * ahead) + first * gather
    back_s = _exposed(p, again + reduce, stack.data_overlap * back) + first * (again + reduce)
    return np.where(c.zero > 0, gathers * ahead_s, 0.0) + reduces * back_s


def _exposed(p: Pricing, transfer: Number, window: Number) -> Number:
    """Give what a transfer adds to a window: what does not fit, and what it takes from products."""
    hidden = np.minimum(transfer, window)
    return transfer - hidden + p.stack.contention * hidden


def _reduce_s(p: Pricing, elements: Number, ranks: Number, inside: Number) -> Number:
    """Give the seconds in which gradients are summed over `ranks`, of which `inside` lie inside."""
    c = p.choice
    size = elements * c.gradient_bytes * c.codec
    inner = np.where(c.zero > 0, np.minimum(c.shard, ranks), ranks)
    outer, stride = ranks / inner, c.stride(inside)
    whole = all_reduce_s(size, ranks, stride=stride, machine=p.machine)
    scattered = ring_s(size, inner, stride=stride, machine=p.machine) + np.where(
        outer > 1,
        all_reduce_s(size / inner, outer, stride=c.stride(inside * inner), machine=p.machine),
        0.0,
    )
    moved = (ranks > 1) & (elements > 0)
    return np.where(moved, np.where(c.zero > 0, scattered, whole), 0.0)


def _gather_s(p: Pricing, elements: Number, ranks: Number, inside: Number) -> Number:
    """Give the seconds in which sharded parameters are gathered."""
    c = p.choice
    inner = np.minimum(c.shard, ranks)
    size = elements * c.value_bytes
    seconds = ring_s(size, inner, stride=c.stride(inside), machine=p.machine)
    return np.where((inner > 1) & (elements > 0), seconds, 0.0)
