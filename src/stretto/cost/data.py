"""Seconds of reducing gradients and gathering parameters that nothing hides."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stretto.cost.activations import again_by_block
from stretto.cost.choice import SCHEDULES
from stretto.cost.collectives import all_reduce_s, level, ring_s
from stretto.cost.layer import Passes, Work, mean_layer, parts
from stretto.cost.numbers import Number, relu
from stretto.cost.pricing import Pricing


@dataclass(frozen=True, slots=True)
class Exposed:
    """Seconds that moves of parameters and gradients add.

    Attributes:
        ahead_s: To a forward pass on every rank of a pipeline.
        back_s: To a backward pass on every rank.
        total_s: To a step.
    """

    ahead_s: Number
    back_s: Number
    total_s: Number


def exposed(p: Pricing, rank: Passes, *, one: Passes | None = None) -> Exposed:
    """Give what moves of parameters and gradients add to a step.

    Args:
        p: What is priced.
        rank: The passes of a micro-batch.
        one: Those of the mean layer, if they are known.
    """
    c, own = p.choice, p.stack.by_program
    groups = (
        (p.plain_parameters, c.dp * c.cp, c.tp),
        (p.expert_parameters, p.expert_replicas, c.ep * c.etp),
    )
    reduce = sum((_reduce_s(p, *group) for group in groups), np.zeros(()))
    gather = sum((_gather_s(p, *group) for group in groups), np.zeros(()))
    none, by_block = np.zeros(()), own & (c.zero >= 3)
    if np.all(own):
        total = _by_step_s(p, rank, reduce=reduce, gather=gather)
    else:
        total = _by_pass_s(p, rank, reduce=reduce, gather=gather)
        if np.any(own):
            total = np.where(own, _by_step_s(p, rank, reduce=reduce, gather=gather), total)
    if not np.any(by_block):
        return Exposed(none, none, total)
    ahead_s, back_s, ends_s = _by_block_s(p, one or mean_layer(p))
    whole = c.micro_batches * (ahead_s + back_s) + ends_s
    ahead_s, back_s = (np.where(by_block, seconds, 0.0) for seconds in (ahead_s, back_s))
    return Exposed(ahead_s, back_s, np.where(by_block, whole, total))


def _by_pass_s(p: Pricing, rank: Passes, *, reduce: Number, gather: Number) -> Number:
    """Give what is added where shares of passes hide moves."""
    c, stack = p.choice, p.stack
    # What rests in shards is reduced for each micro-batch, and gathered for it too unless a
    # pipeline keeps it; what does not is reduced once in a step, whose last backward hides it.
    gathers = np.where((c.zero >= 3) & ~((c.pp > 1) & (c.regather == 0)), c.micro_batches, 1.0)
    reduces = np.where(c.zero >= 2, c.micro_batches, 1.0)
    again = np.where((c.zero >= 3) & (c.regather > 0), gather, 0.0)
    # Before the first layer nothing runs.
    first = np.where(c.zero >= 3, 1.0 / np.maximum(p.shape.layers / c.pp, 1.0), 0.0)
    ahead_s = _left_s(p, gather, slow=stack.gather_overlap * rank.forward.seconds)
    back_s = _left_s(p, again + reduce, slow=stack.data_overlap * rank.backward_s)
    ahead_s, back_s = ahead_s + first * gather, back_s + first * (again + reduce)
    return np.where(c.zero > 0, gathers * ahead_s, 0.0) + reduces * back_s


# ── our own programs ─────────────────────────────────────────────────────────────────────────────


def _by_step_s(p: Pricing, rank: Passes, *, reduce: Number, gather: Number) -> Number:
    """Give what is added where parameters in use are whole.

    New ones are gathered beside the first forward pass. Gradients are reduced beside the last
    backward one, or those of ZeRO-2 beside each and the forward passes between them.
    """
    c, stack = p.choice, p.stack
    ahead_s = _beside_s(p, gather, stack.gather_overlap, work=rank.forward)
    reduces = np.where(c.zero >= 2, c.micro_batches, 1.0)
    between = np.where(c.schedule == SCHEDULES.index("gpipe"), 0.0, reduces - 1.0)
    work = rank.backward.times(reduces).plus(rank.forward.times(between))
    # Beside the embedding's nothing runs any more.
    last = reduce * p.shape.vocabulary_parameters / c.tp / np.maximum(p.plain_parameters, 1.0)
    back_s = _beside_s(p, reduces * reduce - last, stack.data_overlap, work=work) + last
    # A pipeline drains through the last backward pass of every rank, beside its own gradients.
    hidden = np.minimum(reduce, stack.data_overlap * rank.backward.device_s)
    return np.where(c.zero > 0, ahead_s, 0.0) + back_s + (c.pp - 1) * stack.contention * hidden


def _by_block_s(p: Pricing, one: Passes) -> tuple[Number, Number, Number]:
    """Give what is added to both passes, and to a step besides, where ZeRO-3 gathers by blocks.

    Beside a block go the gradients of the one before it, and behind them the parameters of the
    next, which is waited for.
    """
    c, shape = p.choice, p.shape
    attention, forward = _blocks(p, one)
    # Gradients set out before the last tensor-parallel move of their block.
    early = np.where(_apart(p), one.inputs.tensor_s / 4, 0.0)
    beside = [replace(x.backward, tensor_s=x.backward.tensor_s + early)
              for x in (attention, forward)]  # fmt: skip
    (a_reduce, a_gather), (f_reduce, f_gather), (reduce, gather) = (
        _moves_s(p, elements) for elements in (*_elements(p), shape.vocabulary_parameters / c.tp)
    )
    none = np.zeros(())
    ahead_s = _behind_s(p, none, f_gather, work=attention.forward)
    ahead_s = ahead_s + _behind_s(p, none, a_gather, work=forward.forward)
    back_s = _behind_s(p, f_reduce, f_gather, work=beside[0])
    back_s = back_s + _behind_s(p, a_reduce, a_gather, work=beside[1])
    # The output layer's go beside the last feed-forward block, those of the embedding beside
    # nothing. Where one rank has both, GPipe gathers the latter's beside the output layer, and
    # this layer's, which it has given up by then, beside nothing.
    head_s = _behind_s(p, none, gather, work=forward.forward)
    head_s = head_s + _behind_s(p, reduce, none, work=beside[1])
    alone, gpipe = c.pp == 1, c.schedule == SCHEDULES.index("gpipe")
    head_s = head_s + np.where(alone & gpipe, gather, 0.0)
    times = np.where(alone & ~gpipe, c.micro_batches, 1.0)
    layers, ends_s = shape.layers / c.pp, c.micro_batches * head_s + times * (reduce + gather)
    return layers * ahead_s, layers * back_s, ends_s


def _blocks(p: Pricing, layer: Passes) -> tuple[Passes, Passes]:
    """Give the passes of the two blocks of a layer, as their parameters share it."""
    attention, forward = _elements(p)
    share = attention / (attention + forward)
    a, f = again_by_block(p)
    both = a * share + f * (1 - share)
    again = np.where(both > 0, a * share / np.where(both > 0, both, 1.0), share)
    found = [
        Passes(
            *(
                replace(
                    work.times(part),
                    attention_s=work.attention_s * scores,
                    tensor_s=work.tensor_s / 2,
                )
                for work, part in zip(parts(layer), shares, strict=True)
            )
        )
        for scores, shares in (
            (1.0, (share, again, share, share)),
            (0.0, (1 - share, 1 - again, 1 - share, 1 - share)),
        )
    ]
    return found[0], found[1]


def _elements(p: Pricing) -> tuple[Number, Number]:
    """Give the elements of parameters of the two blocks of the mean layer on a rank, in use."""
    shape, c = p.shape, p.choice
    share = shape.expert_layers / shape.layers
    plain = (1 - share) * shape.plain_parameters + share * shape.shared_parameters
    routed = share * shape.routed_parameters / (c.ep * c.etp)
    return shape.attention_parameters / c.tp, plain / c.tp + routed


def _moves_s(p: Pricing, elements: Number) -> tuple[Number, Number]:
    """Give the seconds in which gradients of so many elements are reduced, and they gathered."""
    group = elements, p.choice.dp * p.choice.cp, p.choice.tp
    return _reduce_s(p, *group), _gather_s(p, *group)


def _behind_s(p: Pricing, reduce: Number, gather: Number, *, work: Work) -> Number:
    """Give what a reduction and a gather behind it add to work beside them."""
    stack, device = p.stack, work.device_s
    left = relu(device - reduce / np.where(stack.data_overlap > 0, stack.data_overlap, 1.0))
    slow = np.minimum(reduce, stack.data_overlap * device)
    slow = slow + np.minimum(gather, stack.gather_overlap * left)
    return _left_s(p, reduce + gather, slow=slow, moves=work.moves_s)


def _beside_s(p: Pricing, transfer: Number, share: Number, *, work: Work) -> Number:
    """Give what a move adds to work of whose time on the device a share can hide it."""
    return _left_s(p, transfer, slow=share * work.device_s, moves=work.moves_s)


# ── what hides, and what is hidden ───────────────────────────────────────────────────────────────


def _left_s(p: Pricing, transfer: Number, *, slow: Number, moves: Number | float = 0.0) -> Number:
    """Give what a transfer adds: what does not fit, and what it takes from products beside it.

    Args:
        p: What is priced.
        transfer: Its seconds, alone.
        slow: Of it that products can hide.
        moves: Of tensor-parallel ones, which hide it on other links, and share their own with it.
    """
    window = slow + moves
    fits = np.minimum(transfer, window)
    beside = fits * slow / np.where(window > 0, window, 1.0)
    return transfer - np.where(_apart(p), fits, beside) + p.stack.contention * beside


def _apart(p: Pricing) -> NDArray[np.bool_]:
    """Tell where replicas are joined by links of another level than tensor-parallel ranks are."""
    c = p.choice
    replicas = level(c.dp * c.cp, stride=c.stride(c.tp), machine=p.machine)
    return np.asarray(replicas != level(c.tp, stride=c.tp_stride, machine=p.machine))


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
