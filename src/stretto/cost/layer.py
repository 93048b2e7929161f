"""Seconds of one layer, of the embedding and of the head, for one micro-batch on one rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto.cost.activations import again_by_block
from stretto.cost.choice import SCHEDULES
from stretto.cost.collectives import exchange_s, ring_s
from stretto.cost.kernels import attention_s, matmul_s, memory_s
from stretto.cost.numbers import Number, ceil_div, relu
from stretto.cost.pricing import Pricing

BACKWARD_KERNELS = 1.6
"""Kernels of a backward pass over those of the forward one."""

LOSS_KERNELS = 0.5
"""Kernels of the loss over those of a layer."""

LOSS_RINGS = 4
"""Rings that sum what tensor-parallel ranks know of the loss: of two all-reduces of few bytes."""


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds of a piece of a step on one rank, by what they go to.

    Attributes:
        matrix_s: Matrix products.
        attention_s: Attention scores.
        pointwise_s: Norms, activations, additions, casts, the loss: bound by memory.
        launch_s: Waiting for the host to start kernels.
        tensor_s: Tensor-parallel moves that nothing hides.
        context_s: Context-parallel ones.
        expert_s: Dispatching tokens to experts and back.
    """

    matrix_s: Number
    attention_s: Number
    pointwise_s: Number
    launch_s: Number
    tensor_s: Number
    context_s: Number
    expert_s: Number

    @property
    def seconds(self) -> Number:
        """All of it."""
        return self.device_s + self.launch_s + self.moves_s

    @property
    def device_s(self) -> Number:
        """What keeps the device busy."""
        return self.matrix_s + self.attention_s + self.pointwise_s

    @property
    def moves_s(self) -> Number:
        """Moves that it waits for."""
        return self.tensor_s + self.context_s + self.expert_s

    def times(self, factor: Number) -> Work:
        """Give `factor` times this."""
        return Work(*(getattr(self, name) * factor for name in Work.__slots__))

    def plus(self, other: Work) -> Work:
        """Give this and `other`."""
        return Work(*(getattr(self, n) + getattr(other, n) for n in Work.__slots__))


@dataclass(frozen=True, slots=True)
class Passes:
    """The passes of a micro-batch through a piece of the model.

    Attributes:
        forward: The forward pass.
        again: What of it is run again before the backward pass.
        inputs: The backward pass to the inputs.
        weights: The backward pass to the weights.
    """

    forward: Work
    again: Work
    inputs: Work
    weights: Work

    @property
    def seconds(self) -> Number:
        """All of it."""
        return self.forward.seconds + self.backward_s

    @property
    def backward(self) -> Work:
        """All but the forward pass."""
        return self.again.plus(self.inputs).plus(self.weights)

    @property
    def backward_s(self) -> Number:
        """The seconds of that."""
        return self.again.seconds + self.inputs.seconds + self.weights.seconds


def product(p: Pricing, rows: Number, columns: Number, *, depth: Number) -> Number:
    """Give the seconds of a product in the plan's precision."""
    precision = p.choice.precision
    seconds = matmul_s(rows, columns, depth=depth, machine=p.machine, precision=precision)
    return seconds / p.stack.matrix


def layer(p: Pricing, *, experts: Number) -> Passes:
    """Give the passes of a layer; `experts` is 1 where its feed-forward block is of experts."""
    dense, kernels = _products(p, experts), layer_kernels(p, experts)
    scores, pointwise = _scores(p), memory_s(_pointwise_bytes(p, experts), p.machine)
    forward = _pass(
        p, experts, products=dense[0], scores=scores, pointwise=pointwise, kernels=kernels
    )
    inputs = _pass(
        p,
        experts,
        products=dense[1],
        scores=scores * p.stack.attention_backward,
        pointwise=pointwise * p.stack.pointwise_backward,
        kernels=kernels * BACKWARD_KERNELS,
    )
    zero = np.zeros_like(forward.matrix_s)
    accumulate = memory_s(p.stack.accumulate_bytes * _rank_parameters(p, experts), p.machine)
    weights = Work(dense[2], zero, accumulate, zero, zero, zero, zero)
    again = Work(
        forward.matrix_s * p.choice.again_matrix,
        forward.attention_s * p.choice.again_core,
        forward.pointwise_s * p.choice.again_pointwise,
        forward.launch_s * np.maximum(p.choice.again_matrix, p.choice.again_pointwise),
        forward.tensor_s * _again_tensor(p),
        forward.context_s * p.choice.again_core,
        forward.expert_s * p.choice.again_matrix,
    )
    return Passes(forward, again, inputs, weights)


def _products(p: Pricing, experts: Number) -> tuple[Number, Number, Number]:
    """Give the seconds of a layer's products: forward, to inputs, to weights."""
    shape, tp, t = p.shape, p.choice.tp, p.tokens
    # Whether queries are latent, and whether keys and values are.
    query, key = (np.where(rank > 0, 1.0, 0.0) for rank in (shape.q_rank, shape.kv_rank))
    etp = p.choice.etp
    visits = t / tp * shape.top_k * p.choice.ep * etp
    routed = visits / np.maximum(shape.experts, 1.0)
    none = np.zeros_like(t)
    pieces = (
        # (rows, columns, depth, how many)
        (t, shape.q_rank, shape.embed, query),
        (t, shape.kv_rank + shape.rope_dim, shape.embed, key),
        (t, shape.heads * shape.head_dim / tp, np.where(query > 0, shape.q_rank, shape.embed), key),
        (t, shape.heads * (shape.head_dim - shape.rope_dim + shape.value_dim) / tp,
         shape.kv_rank, key),
        (t, (shape.heads * shape.head_dim + np.maximum(shape.kv_heads, tp)
             * (shape.head_dim + shape.value_dim)) / tp, shape.embed, 1.0 - key),
        (t, shape.embed, shape.heads * shape.value_dim / tp, 1.0),
        (t, shape.ups * shape.ff / tp, shape.embed, 1.0 - experts),
        (t, shape.embed, shape.ff / tp, 1.0 - experts),
        (t, shape.ups * shape.shared_ff / tp, shape.embed, experts * (shape.shared_ff > 0)),
        (t, shape.embed, shape.shared_ff / tp, experts * (shape.shared_ff > 0)),
        (routed, shape.ups * shape.expert_ff / etp, shape.embed,
         experts * shape.experts / p.choice.ep * p.stack.grouped),
        (routed, shape.embed, shape.expert_ff / etp,
         experts * shape.experts / p.choice.ep * p.stack.grouped),
    )  # fmt: skip
    forward, inputs, weights = none, none, none
    for rows, columns, depth, count in pieces:
        if not np.any(count):
            continue
        rows, columns, depth = (np.maximum(v, 1.0) for v in (rows, columns, depth))
        forward = forward + count * product(p, rows, columns, depth=depth)
        inputs = inputs + count * product(p, rows, depth, depth=columns)
        weights = weights + count * product(p, columns, depth, depth=rows)
    return forward, inputs, weights


def layer_kernels(p: Pricing, experts: Number) -> Number:
    """Give the kernels that a layer starts in a forward pass."""
    return p.stack.kernels * (1.0 + experts * p.stack.expert_kernels)


def starts_ahead(p: Pricing) -> NDArray[np.bool_]:
    """Tell where a host starts kernels ahead of its device through a whole step."""
    return np.asarray(p.stack.by_program & (p.machine.host <= 0))


def _again_tensor(p: Pricing) -> Number:
    """Give the share of a layer's tensor-parallel moves that are made again.

    Of our own blocks nothing leaves that runs again: what is gathered on its way in is.
    """
    entering = p.choice.sequence * sum(again_by_block(p)) / 4
    return np.where(p.stack.by_program, entering, p.choice.again_matrix)


def _pass(
    p: Pricing,
    experts: Number,
    *,
    products: Number,
    scores: Number,
    pointwise: Number,
    kernels: Number,
) -> Work:
    """Give a pass of a layer in one direction, with its moves."""
    beside = (products + scores + pointwise) * (1.0 - p.machine.host)
    launch = np.where(starts_ahead(p), 0.0, relu(kernels * p.machine.launch_s - beside))
    return Work(
        products,
        scores,
        pointwise,
        launch,
        _tensor_s(p),
        _context_s(p, scores),
        experts * _expert_s(p),
    )


def _scores(p: Pricing) -> Number:
    """Give the seconds of a layer's attention scores, forward."""
    shape, choice, machine, stack = p.shape, p.choice, p.machine, p.stack
    heads = np.maximum(shape.heads / choice.tp, 1.0)
    rate = machine.matrix(np.minimum(choice.precision, 1.0))  # never in 8 bits
    fused = attention_s(
        p.tokens,
        shape.attended(choice.seq),
        heads=heads,
        width=shape.head_dim + shape.value_dim,
        rate=np.minimum(rate * stack.attention, stack.attention_cap_flops_per_s),
        ramp=stack.attention_ramp,
    )
    # Without a fused kernel the scores of all positions, masked ones too, are made and written.
    seen = choice.seq
    products = 2 * p.tokens * heads * (shape.head_dim + shape.value_dim) * seen
    moved = memory_s(stack.score_bytes * p.tokens * heads * seen, machine)
    return np.where(stack.fused_attention > 0, fused, products / (rate * stack.attention) + moved)


def _pointwise_bytes(p: Pricing, experts: Number) -> Number:
    """Give the bytes that norms, rotations, activations and additions of a layer move, forward."""
    shape, choice, stack, t = p.shape, p.choice, p.stack, p.tokens
    width, tp = choice.value_bytes, choice.tp
    between = 10.0 * shape.embed / np.where(choice.sequence > 0, tp, 1.0)
    heads = 2.0 * (shape.heads * shape.head_dim + 2 * shape.kv_heads * shape.head_dim) / tp
    active = np.where(experts > 0, shape.top_k * shape.expert_ff + shape.shared_ff, shape.ff)
    inside = (shape.ups + 1.0) * active / tp
    permuted = experts * 4.0 * shape.top_k * shape.embed / tp
    cast = np.where(
        choice.precision >= 2,
        stack.cast * (2 * shape.embed + (shape.heads * shape.value_dim + active) / tp),
        0.0,
    )
    return t * width * (stack.pointwise * (between + heads + inside) + permuted + cast)


def _tensor_s(p: Pricing) -> Number:
    """Give the seconds of a layer's tensor-parallel moves in one direction that nothing hides."""
    choice = p.choice
    size = p.tokens * p.shape.embed * choice.value_bytes
    # Attention and feed-forward each gather or reduce on the way in and on the way out.
    one = ring_s(size, choice.tp, stride=choice.tp_stride, machine=p.machine)
    moves = 4 * (one + p.stack.collective_s)
    hidden = np.where(choice.tensor_overlap > 0, p.stack.tensor_overlap, 0.0)
    return np.where(choice.tp > 1, moves * (1 - hidden), 0.0)


def _context_s(p: Pricing, scores: Number) -> Number:
    """Give the seconds of the ring of keys and values that attention does not hide."""
    shape, choice = p.shape, p.choice
    heads = np.maximum(shape.kv_heads / choice.tp, 1.0)
    size = p.tokens * choice.cp * heads * (shape.head_dim + shape.value_dim) * choice.value_bytes
    ring = ring_s(size, choice.cp, stride=choice.cp_stride, machine=p.machine)
    steps = p.stack.context_step_s * (choice.cp - 1)
    return np.where(choice.cp > 1, relu(ring - p.stack.context_overlap * scores) + steps, 0.0)


def _expert_s(p: Pricing) -> Number:
    """Give the seconds of dispatching a layer's tokens to experts and combining them."""
    shape, choice = p.shape, p.choice
    size = p.tokens * choice.etp / choice.tp * shape.top_k * shape.embed * choice.value_bytes
    stride = choice.stride(choice.etp)
    one = exchange_s(size, choice.ep, stride=stride, machine=p.machine)
    both = 2 * (one + p.stack.collective_s)
    return np.where(choice.ep > 1, both * (1 - p.stack.expert_overlap), 0.0)


def _rank_parameters(p: Pricing, experts: Number) -> Number:
    """Give the matrix elements of a layer on a rank, in use."""
    shape, choice = p.shape, p.choice
    plain = shape.attention_parameters + np.where(
        experts > 0, shape.shared_parameters, shape.plain_parameters
    )
    routed = np.where(experts > 0, shape.routed_parameters / (choice.ep * choice.etp), 0.0)
    return plain / choice.tp + routed


def head(p: Pricing) -> Passes:
    """Give the passes of the output layer and the loss."""
    shape, choice, t = p.shape, p.choice, p.tokens
    columns = ceil_div(shape.vocab, choice.tp)
    wide = np.minimum(choice.precision, 1.0)  # never in 8 bits
    times = [
        matmul_s(rows, cols, depth=depth, machine=p.machine, precision=wide) / p.stack.matrix
        for rows, cols, depth in (
            (t, columns, shape.embed), (t, shape.embed, columns), (columns, shape.embed, t),
        )
    ]  # fmt: skip
    loss = memory_s(p.stack.loss_bytes * t * columns, p.machine)
    none = np.zeros_like(times[0])
    move, own = _end_move_s(p), p.stack.by_program & (choice.tp > 1)
    sums = np.where(own, LOSS_RINGS * p.stack.collective_s, 0.0)
    forward = Work(times[0], none, loss / 2, none, move + sums, none, none)
    inputs = Work(times[1], none, loss / 2, none, move, none, none)
    weights = Work(times[2], none, none, none, none, none, none)
    # Our own runs again where other micro-batches come between its passes.
    late = p.stack.by_program & (choice.schedule == SCHEDULES.index("gpipe"))
    again = np.where(late & (choice.micro_batches > 1) & (choice.again_matrix >= 1), 1.0, 0.0)
    return Passes(forward, forward.times(again), inputs, weights)


def _end_move_s(p: Pricing) -> Number:
    """Give the seconds of the tensor-parallel move at either end of the model in a pass."""
    c, size = p.choice, p.tokens * p.shape.embed * p.choice.value_bytes
    one = ring_s(size, c.tp, stride=c.tp_stride, machine=p.machine)
    blocking = np.where(p.stack.by_program, p.stack.collective_s, 0.0)
    return np.where(c.tp > 1, one + blocking, 0.0)


def embedding(p: Pricing) -> Passes:
    """Give the passes of the token embedding."""
    t, shape = p.tokens, p.shape
    moved = memory_s(t * shape.embed * p.choice.value_bytes * 3 * p.stack.pointwise, p.machine)
    none = np.zeros_like(moved)
    move = np.where(p.stack.by_program, _end_move_s(p), 0.0)
    pass_ = Work(none, none, moved, none, move, none, none)
    return Passes(pass_, pass_.times(none), pass_.times(none), pass_)


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
            for a, b in zip(parts(plain), parts(routed), strict=True)
        )
    )


def parts(passes: Passes) -> tuple[Work, Work, Work, Work]:
    """Give the passes, in their order."""
    return passes.forward, passes.again, passes.inputs, passes.weights
