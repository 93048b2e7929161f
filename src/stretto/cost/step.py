"""Seconds of a training step, in parts that sum to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto.cost.activations import again_by_block
from stretto.cost.bubble import Load, bubble_s
from stretto.cost.choice import SCHEDULES, Choice
from stretto.cost.collectives import line_s
from stretto.cost.data import Exposed, exposed
from stretto.cost.deal import deal
from stretto.cost.host import host_s
from stretto.cost.kernels import memory_s
from stretto.cost.layer import (
    BACKWARD_KERNELS,
    LOSS_KERNELS,
    Passes,
    Work,
    embedding,
    head,
    layer_kernels,
    mean_layer,
    parts,
    starts_ahead,
)
from stretto.cost.numbers import Number, relu
from stretto.cost.pricing import Pricing
from stretto.plan import ScheduleName


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
    rank, waits = _pipeline(p)
    total = rank.forward.plus(rank.backward).times(p.choice.micro_batches)
    optimizer, host = _updates_s(p, rank)
    played = total.seconds + waits.bubble_s + waits.send_s + waits.data_s + optimizer + host
    launch = relu(_started_s(p) - played)
    subtotal = played + launch + p.stack.step_s
    doublings = np.log2(np.maximum(p.choice.devices / 8, 1.0))
    found = {name: getattr(total, name) for name in Work.__slots__}
    return StepTime(
        **{**found, "launch_s": total.launch_s + launch},
        bubble_s=waits.bubble_s,
        send_s=waits.send_s,
        data_s=waits.data_s,
        optimizer_s=optimizer,
        host_s=host + np.zeros_like(waits.bubble_s),
        fixed_s=p.stack.step_s + np.zeros_like(waits.bubble_s),
        straggle_s=subtotal * p.stack.straggle * doublings,
    )


def besides_s(p: Pricing, rank: Passes) -> tuple[Number, Number, Number]:
    """Give the seconds of a step besides passes and sends.

    Of moves of gradients and parameters, of the optimizer, and of what waits in the host's memory.

    Args:
        p: What is priced.
        rank: The passes of a micro-batch.
    """
    return exposed(p, rank).total_s, *_updates_s(p, rank)


def _updates_s(p: Pricing, rank: Passes) -> tuple[Number, Number]:
    """Give the seconds of the optimizer, and of what waits in the host's memory."""
    elements = _optimizer_elements(p)
    here = 1 - p.choice.optimizer_offload
    optimizer = memory_s(p.stack.optimizer_bytes * elements * here, p.machine)
    return optimizer, host_s(p, rank, elements=elements)


@dataclass(frozen=True, slots=True)
class _Waits:
    """Seconds for which the rank with most to do waits for others.

    Attributes:
        bubble_s: While the pipeline fills and drains.
        send_s: For what others send.
        data_s: For gradients and parameters.
    """

    bubble_s: Number
    send_s: Number
    data_s: Number


def _pipeline(p: Pricing) -> tuple[Passes, _Waits]:
    """Give the passes of a micro-batch on the rank with most to do, and for how long it waits."""
    c, shape = p.choice, p.shape
    pieces = (mean_layer(p), embedding(p), head(p))
    dealt, single = deal(p), c.pp == 1
    spread = _is(c, "vocabulary")  # every rank has a share of the head
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
            for a, b, o in zip(*map(parts, pieces), strict=True)
        )
    )
    busiest = [part.seconds for part in parts(rank)]
    # Nobody waits for a head that is shared, so that its other shares are left out.
    others = [
        relu(shape.layers * a.seconds + b.seconds + heads * o.seconds - own)
        / np.maximum(c.pp - 1, 1.0)
        for a, b, o, own in zip(*map(parts, pieces), busiest, strict=True)
    ]
    moved = exposed(p, rank, one=pieces[0])
    slowest, other = _load(busiest, moved), _load(others, moved)
    bubble = bubble_s(c, slowest=slowest, others=other)
    # Under 1F1B the second micro-batch of our own programs is as late as the last rank is with it.
    waited = p.stack.by_program & _is(c, "1f1b") & (c.pp > 2) & (c.micro_batches > 1)
    less = np.where(waited, relu(rank.seconds - at_end), 0.0)
    sends = _send_s(p, slack=slowest.total_s - other.total_s)
    return rank, _Waits(relu(bubble - less), sends, moved.total_s)


def _load(seconds: Sequence[Number], moved: Exposed) -> Load:
    forward, again, inputs, weights = seconds
    return Load(forward + moved.ahead_s, again + inputs + moved.back_s, weights)


def _started_s(p: Pricing) -> Number:
    """Give the seconds in which a host that runs ahead of its device starts a step's kernels."""
    c, shape = p.choice, p.shape
    forward, back = layer_kernels(p, shape.expert_layers / shape.layers), 1.0 + BACKWARD_KERNELS
    layers = shape.layers / c.pp * forward * (back + sum(again_by_block(p)) / 2)
    loss = np.where(c.pp == 1, LOSS_KERNELS * p.stack.kernels * back, 0.0)
    started = c.micro_batches * (layers + loss) * p.machine.launch_s
    return np.where(starts_ahead(p), started, 0.0)


def _send_s(p: Pricing, *, slack: Number) -> Number:
    """Give the seconds of sends between stages that nothing hides.

    Args:
        p: What is priced.
        slack: Seconds of a micro-batch that other ranks have to spare.
    """
    c = p.choice
    size = p.tokens * p.shape.embed * c.value_bytes / c.tp
    slowest, whole = line_s(size, c.pp, stride=c.pp_stride, machine=p.machine)
    each = 2 * slowest * (1 - p.stack.send_overlap)
    # Our own programs go on while they send. A rank that answers its neighbour has the time of two
    # micro-batches for a message each way; under GPipe nobody answers.
    answers = np.where(_is(c, "gpipe"), 0.0, relu(slowest - slack))
    steady = c.interleave * c.micro_batches * np.where(p.stack.by_program, answers, each)
    return np.where(c.pp > 1, steady + 2 * whole, 0.0)


def _is(c: Choice, schedule: ScheduleName) -> NDArray[np.bool_]:
    return np.asarray(c.schedule == SCHEDULES.index(schedule))


def _optimizer_elements(p: Pricing) -> Number:
    """Give the elements of parameters that a rank's optimizer updates."""
    shard = np.where(p.choice.zero > 0, p.choice.shard, 1.0)
    spread = np.minimum(shard, p.expert_replicas)
    return p.plain_parameters / shard + p.expert_parameters / spread
