"""Bytes on the fullest rank of a plan at its fullest moment, in parts that sum to them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from stretto.cost.choice import PRECISIONS, SCHEDULES
from stretto.cost.deal import deal
from stretto.cost.numbers import Number, relu
from stretto.cost.pricing import Pricing
from stretto.plan import ScheduleName
from stretto.schedule import held

MOMENTS = ("block", "loss", "update")
"""When memory is fullest: while a block runs, at the loss, or while the optimizer updates; a
`MemoryUse` holds the index."""

ADAM_BYTES = 8.0
"""Of the two moments of a parameter in float32 (Rajbhandari et al., 2020)."""

LOG_SUM_BYTES = 4.0
"""Kept for each row of scores by fused attention: the logarithm of their sum (Dao et al., 2022)."""

FRAGMENTS = 0.04
"""What an allocator loses between blocks of many sizes, relative to those that come and go; fitted,
see docs/fidelity.md."""

RESERVE_BYTES = 1.5e9
"""Of the device's context, its libraries and their communicators; fitted, see docs/fidelity.md."""

PROCESS_BYTES = 3.5e8
"""Of a rank's process with its libraries, where the device is its own host; measured on Linux."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes on the fullest rank at its fullest moment, by what fills them.

    Attributes:
        weights_bytes: Weights in use, as they rest.
        master_bytes: Master weights.
        gradient_bytes: Gradients, as they rest.
        optimizer_bytes: Moments.
        kept_bytes: Activations kept for backward passes, of all micro-batches in flight.
        work_bytes: What the block at work holds besides: activations made anew, and gradients.
        transfer_bytes: Gathered parameters, gradients to be reduced, messages on their way.
        loss_bytes: Logits, what the loss makes of them, and the input of the output layer.
        update_bytes: What the optimizer's update holds besides its state.
        fragment_bytes: Lost between blocks of memory.
        reserve_bytes: The device's context and libraries, outside the allocator.
        moment: When, an index into `MOMENTS`.
    """

    weights_bytes: Number
    master_bytes: Number
    gradient_bytes: Number
    optimizer_bytes: Number
    kept_bytes: Number
    work_bytes: Number
    transfer_bytes: Number
    loss_bytes: Number
    update_bytes: Number
    fragment_bytes: Number
    reserve_bytes: Number
    moment: Number

    @property
    def total_bytes(self) -> Number:
        """All that the device must have."""
        return sum((getattr(self, name) for name in PARTS), np.zeros(()))

    @property
    def reserved_bytes(self) -> Number:
        """What an allocator takes from the device: PyTorch's ``max_memory_reserved``."""
        return self.total_bytes - self.reserve_bytes

    @property
    def allocated_bytes(self) -> Number:
        """What is in use of that: PyTorch's ``max_memory_allocated``."""
        return self.reserved_bytes - self.fragment_bytes


PARTS = tuple(f.name for f in fields(MemoryUse) if f.name.endswith("_bytes"))
"""Names of the parts of a `MemoryUse`, which sum to its total."""

RESTING = PARTS[:4]
"""Of those, what stays from step to step."""

_NONE = dict.fromkeys(PARTS, np.zeros(()))


@dataclass(frozen=True, slots=True)
class Rank:
    """A rank of the pipeline.

    Attributes:
        index: Which, from 0.
        layers: That it has.
        plain: Elements of its parameters in use, but for experts.
        routed: Those of experts.
    """

    index: Number
    layers: Number
    plain: Number
    routed: Number


@dataclass(frozen=True, slots=True)
class Saved:
    """Bytes that a token leaves in a layer for its backward pass, by what would make them anew.

    The terms of (Korthikanti et al., 2022), for grouped heads, gates, experts, latent keys, fused
    kernels and products in 8 bits too.

    Attributes:
        stream: The layer's input, or those of its two blocks, which are always kept.
        core: Of attention's core: its scores, or what stands for them where it is fused.
        out: Its result; as the input of a product too, it goes only where both run again.
        matrix: Results of products.
        pointwise: Results of norms, rotations, activations and casts, and dropout's masks.
    """

    stream: Number
    core: Number
    out: Number
    matrix: Number
    pointwise: Number

    @property
    def whole(self) -> Number:
        """What is kept where nothing runs again."""
        return self.stream + self.core + self.out + self.matrix + self.pointwise

    def kept(self, p: Pricing) -> Number:
        """Give what is kept where the plan's share runs again."""
        c = p.choice
        return (
            self.stream
            + (1 - c.again_core) * self.core
            + (1 - np.minimum(c.again_core, c.again_matrix)) * self.out
            + (1 - c.again_matrix) * self.matrix
            + (1 - c.again_pointwise) * self.pointwise
        )


def memory(p: Pricing) -> MemoryUse:
    """Give the bytes of the fullest rank at its fullest moment.

    The first stage has the most micro-batches in flight; the second has nearly as many and may have
    more layers; under `zb-v` the last may have more of few. The rank of the output layer has the
    logits; any may be fullest in the update.
    """
    c, own = p.choice, deal(p)
    first = np.zeros_like(c.pp)
    last = np.where(_is(p, "zb-v") | _is(p, "vocabulary"), first, c.pp - 1)
    early, late = end_elements(p)
    kept, work = activations(p)
    uses = [
        block_use(p, _rank(p, first, own.first, ends=early), kept=kept, work=work),
        loss_use(p, _rank(p, last, own.last, ends=late), kept=kept),
        update_use(p, _rank(p, first, own.first, ends=early)),
    ]
    if np.any(own.last > own.first):  # else the first has no less to update: it embeds
        uses.append(update_use(p, _rank(p, last, own.last, ends=late)))
    if np.any((own.inner > own.first) | _is(p, "zb-v")):
        index = np.where(_is(p, "zb-v"), c.pp - 1, np.minimum(1, c.pp - 1))
        inner = _rank(p, index, own.inner, ends=np.zeros(()))
        uses.append(block_use(p, inner, kept=kept, work=work))
    return functools.reduce(fuller, uses)


def _is(p: Pricing, schedule: ScheduleName) -> NDArray[np.bool_]:
    return np.asarray(p.choice.schedule == SCHEDULES.index(schedule))


def fuller(a: MemoryUse, b: MemoryUse) -> MemoryUse:
    """Give, for each plan, the use with the larger total; the former among equals."""
    more = b.total_bytes > a.total_bytes
    both = ((f.name, getattr(a, f.name), getattr(b, f.name)) for f in fields(MemoryUse))
    return MemoryUse(**{n: np.where(more, y, x) for n, x, y in both})


def end_elements(p: Pricing) -> tuple[Number, Number]:
    """Give the elements of embeddings and output layer on the first rank and on the loss's."""
    shape, c = p.shape, p.choice
    one, split = shape.vocabulary_parameters, _is(p, "vocabulary")
    both = (2 - shape.tied) * one / np.where(split, c.pp, 1.0)
    together = (c.pp == 1) | _is(p, "zb-v") | split  # on one rank, or shared by all
    early = np.where(together, both, one) + shape.positions * shape.embed
    return early, np.where(together, early, one)


def block_use(p: Pricing, rank: Rank, *, kept: Number, work: Number) -> MemoryUse:
    """Give what a rank holds while it runs a block with the most micro-batches in flight."""
    c, w = p.choice, p.choice.value_bytes
    # A layer and the next are gathered, and the gradient of one is on its way; or blocks are.
    layers = (3 * w + c.gradient_bytes) * sum(layer_elements(p)) * (c.zero >= 3)
    blocks = w * (sum(layer_elements(p)) * (c.zero >= 3) + _widest(p) * _passing(p))
    gathered = np.where(p.stack.gathers_blocks > 0, blocks, layers)
    ring = np.where(c.cp > 1, 2 * w * p.tokens * sum(_widths(p)[1:]), 0.0)
    offloaded = np.where(c.offload > 0, 2 * kept, 0.0)
    moved = gathered + ring + offloaded
    return _running(p, rank, kept=kept, moment=0.0, work_bytes=work, transfer_bytes=moved)


def loss_use(p: Pricing, rank: Rank, *, kept: Number) -> MemoryUse:
    """Give what the rank of the output layer holds at the loss."""
    shape, c, stack = p.shape, p.choice, p.stack
    shares = np.where(_is(p, "vocabulary"), c.pp, 1.0)
    ranks = shares * np.where(stack.logits_split > 0, c.tp, 1.0)
    logits = shape.heads_out * np.maximum(stack.logit_bytes, c.value_bytes) * shape.vocab / ranks
    # With inputs of the last norm and of the output layer; GPipe predicts all before it goes back.
    flight = np.where(_is(p, "gpipe"), c.micro_batches, 1.0)
    held_bytes = flight * p.tokens * (logits + 2 * c.value_bytes * _stream(p))
    head = shape.vocabulary_parameters / (c.tp * shares)
    layers = (2 * c.value_bytes + c.gradient_bytes) * head * (c.zero >= 3)
    blocks = c.value_bytes * ((head + _widest(p)) * (c.zero >= 3) + head * _passing(p))
    moved = np.where(stack.gathers_blocks > 0, blocks, layers)
    return _running(p, rank, kept=kept, moment=1.0, loss_bytes=held_bytes, transfer_bytes=moved)


def _running(
    p: Pricing, rank: Rank, *, kept: Number, moment: float, transfer_bytes: Number, **parts: Number
) -> MemoryUse:
    """Give what a rank holds in its passes: what rests, what is kept, and what is at work."""
    c, flight = p.choice, _flight(p, rank)
    activations = flight * rank.layers * kept * (1 - c.offload)
    messages = np.where(c.pp > 1, 2 * c.value_bytes * p.tokens * _stream(p), 0.0)
    whole = np.where((c.zero >= 3) & (c.regather <= 0), c.value_bytes, 0.0) * _elements(p, rank)
    resting = _resting(p, rank)
    # Gradients that come into being as activations of one micro-batch go take their room; at the
    # loss there are none.
    late = (p.stack.late_gradients > 0) & (c.micro_batches <= flight)
    some = late | ((c.zero >= 3) & (c.pp == 1) & (c.micro_batches <= 1))
    gradient = resting["gradient_bytes"] * np.where(late & (moment == 1.0), 0.0, 1.0)
    resting["gradient_bytes"] = np.where(some, relu(gradient - activations / flight), gradient)
    moved = transfer_bytes + messages + whole
    return _use(p, moment, **resting, **parts, kept_bytes=activations, transfer_bytes=moved)


def update_use(p: Pricing, rank: Rank) -> MemoryUse:
    """Give what a rank holds while its optimizer updates, for which gradients are widened."""
    c = p.choice
    wide = np.where(c.gradient_bytes < c.master_bytes, c.master_bytes, 0.0)
    own = _elements(p, rank, np.where(c.zero >= 1, c.shard, 1.0))
    besides = (p.stack.update_bytes + wide) * (1 - c.optimizer_offload) * own
    return _use(p, 2.0, **_resting(p, rank), update_bytes=besides)


def _use(p: Pricing, moment: float, **parts: Number) -> MemoryUse:
    """Give a use of these parts and no others, with what is lost and reserved besides."""
    passing = sum((v for n, v in parts.items() if n not in RESTING), np.zeros(()))
    besides = {
        "fragment_bytes": FRAGMENTS * passing,
        "reserve_bytes": np.where(p.machine.host > 0, PROCESS_BYTES, RESERVE_BYTES),
    }
    return MemoryUse(**{**_NONE, **parts, **besides}, moment=np.asarray(moment))


def _resting(p: Pricing, rank: Rank) -> dict[str, Number]:
    """Give what stays from step to step, shared as ZeRO's stage says (Rajbhandari et al., 2020)."""
    c, here = p.choice, 1 - p.choice.optimizer_offload
    # A pipeline that does not gather parameters again adds gradients up whole and reduces once.
    once = (c.zero >= 3) & (c.regather <= 0) & (c.pp > 1)
    gradients = np.where(_passing(p) & ~once, c.shard, 1.0)
    own = _elements(p, rank, np.where(c.zero >= 1, c.shard, 1.0))
    return {
        "weights_bytes": c.value_bytes * _elements(p, rank, np.where(c.zero >= 3, c.shard, 1.0)),
        "master_bytes": c.master_bytes * here * own,
        "gradient_bytes": c.gradient_bytes * _elements(p, rank, gradients),
        "optimizer_bytes": ADAM_BYTES * here * own,
    }


def _elements(p: Pricing, rank: Rank, shards: Number | float = 1.0) -> Number:
    """Give the elements of parameters on a rank, where so many ranks share each."""
    plain = rank.plain / shards
    if not np.any(rank.routed):
        return plain
    return plain + rank.routed / np.minimum(shards, p.expert_replicas)


def _rank(p: Pricing, index: Number, layers: Number, *, ends: Number) -> Rank:
    """Give a rank with so many layers and elements of embeddings and output layer."""
    plain, routed = layer_elements(p)
    return Rank(index, layers, layers * plain + ends / p.choice.tp, layers * routed)


def layer_elements(p: Pricing) -> tuple[Number, Number]:
    """Give the elements of the mean layer on a rank, in use: plain ones, and those of experts."""
    shape, c = p.shape, p.choice
    share = shape.expert_layers / shape.layers
    forward = (1 - share) * shape.plain_parameters + share * shape.shared_parameters
    plain = (shape.attention_parameters + forward) / c.tp
    routed = share * shape.routed_parameters
    return plain, routed / (c.ep * c.etp) if np.any(routed) else np.zeros(())


def _passing(p: Pricing) -> NDArray[np.bool_]:
    """Tell whether gradients are reduced as they come, so that none is kept whole."""
    c = p.choice
    alone = (c.micro_batches <= 1) & (p.stack.late_gradients > 0)
    return np.asarray((c.zero >= 2) | (c.zero >= 1) & alone)


def _widest(p: Pricing) -> Number:
    """Give the elements of the wider block of a layer on a rank, but for experts."""
    shape = p.shape
    return np.maximum(shape.attention_parameters, shape.plain_parameters) / p.choice.tp


def _flight(p: Pricing, rank: Rank) -> Number:
    """Give the most micro-batches whose activations a rank holds at once."""
    c, flight = p.choice, np.ones(())
    for name in SCHEDULES:
        if np.any(mine := _is(p, name)):
            some = held(name, p=c.pp, v=c.interleave, m=c.micro_batches, r=rank.index)
            flight = np.where(mine, some, flight)
    return flight


def kept_bytes(p: Pricing) -> Number:
    """Give the bytes that a micro-batch keeps in a layer, on a device or on its host."""
    return activations(p)[0]


def activations(p: Pricing) -> tuple[Number, Number]:
    """Give the bytes that a micro-batch keeps in a layer, and those of the block at work besides.

    The first are of the mean layer, the second of the kind that takes more.
    """
    c, share = p.choice, p.shape.expert_layers / p.shape.layers
    some = np.maximum(np.maximum(c.again_core, c.again_matrix), c.again_pointwise)
    mean, work = np.zeros(()), np.zeros(())
    for experts, part in ((np.zeros_like(share), 1 - share), (np.ones_like(share), share)):
        if np.any(part > 0):
            saved = _saved(p, experts)
            kept = saved.kept(p)
            # A layer runs again as a whole, even if others do not.
            again = (saved.whole - kept) / np.where(some > 0, some, 1.0)
            mean = mean + part * kept
            work = np.maximum(work, np.where(part > 0, again + _gradients(p, experts), 0.0))
    return p.tokens * mean, p.tokens * work


def _saved(p: Pricing, experts: Number) -> Saved:
    """Give what a token leaves in a layer; `experts` is 1 where its feed-forward block has some."""
    shape, c, stack, w = p.shape, p.choice, p.stack, p.choice.value_bytes
    # Products in fewer bits keep their inputs in as many; attention needs its result in more too.
    narrow = c.precision >= PRECISIONS.index("float8")
    read = np.where(narrow, 1.0, w)
    stream, (query, keys, values) = _stream(p), _widths(p)
    heads, out = shape.heads / c.tp, shape.heads * shape.value_dim / c.tp
    along = np.where(c.sequence > 0, c.tp, 1.0)
    latent = np.where(shape.kv_rank > 0, shape.q_rank + shape.kv_rank + shape.rope_dim, 0.0) / along
    visits = experts * shape.top_k / c.tp
    ff = np.where(experts > 0, shape.shared_ff, shape.ff) / c.tp + visits * shape.expert_ff
    gates = np.where(shape.ups > 1, stack.kept_copies, 0.0) * ff
    scores = np.where(stack.fused_attention > 0, LOG_SUM_BYTES, stack.kept_score_bytes * c.seq)
    products = (2 - stack.kept_inputs) * stream + latent + query + keys + values + shape.ups * ff
    return Saved(
        stream=w * stack.kept_inputs * stream,
        core=scores * heads,
        out=w * out,
        matrix=w * products + read * visits * shape.embed,
        pointwise=2 * (w * stack.kept_norm + stack.kept_mask_bytes) * stream
        + 2 * read * np.where(stack.kept_gathered > 0, shape.embed, stream)
        + w * (latent + stack.kept_copies * (query + keys) + gates)
        + read * (ff + np.where(narrow, out, 0.0)),
    )


def _gradients(p: Pricing, experts: Number) -> Number:
    """Give the bytes of gradients that a token has at once in the wider block of a layer."""
    shape, c, stack, w = p.shape, p.choice, p.stack, p.choice.value_bytes
    score_bytes = np.where(stack.fused_attention > 0, 0.0, stack.kept_score_bytes)
    ff = np.where(experts > 0, shape.shared_ff + shape.top_k * shape.expert_ff, shape.ff)
    widths = sum(_widths(p)) + shape.heads * shape.value_dim / c.tp
    attention = w * widths + score_bytes * c.seq * shape.heads / c.tp
    forward = w * ((shape.ups + 1) * ff + 2 * experts * shape.top_k * shape.embed) / c.tp
    # What enters and leaves a block is whole within it, also where it is split between blocks.
    return np.maximum(attention, forward) + 2 * w * shape.embed


def _stream(p: Pricing) -> Number:
    """Give the width of the residual stream on a rank between blocks."""
    return p.shape.embed / np.where(p.choice.sequence > 0, p.choice.tp, 1.0)


def _widths(p: Pricing) -> tuple[Number, Number, Number]:
    """Give the widths of all queries, keys and values of a token on a rank."""
    shape, tp = p.shape, p.choice.tp
    heads = np.where(shape.kv_rank > 0, shape.heads, np.maximum(shape.kv_heads, tp)) / tp
    return shape.heads * shape.head_dim / tp, heads * shape.head_dim, heads * shape.value_dim
