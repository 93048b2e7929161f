"""Bytes on the fullest rank of a plan at its fullest moment, in parts that sum to them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from stretto.cost.activations import activations, stream_width, widths
from stretto.cost.choice import SCHEDULES
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
    ring = np.where(c.cp > 1, 2 * w * p.tokens * sum(widths(p)[1:]), 0.0)
    offloaded = np.where(c.offload > 0, 2 * kept, 0.0)
    moved = gathered + ring + offloaded
    return _running(p, rank, kept=kept, moment=0.0, work_bytes=work, transfer_bytes=moved)


def loss_use(p: Pricing, rank: Rank, *, kept: Number) -> MemoryUse:
    """Give what the rank of the output layer holds at the loss."""
    shape, c, stack = p.shape, p.choice, p.stack
    shares = np.where(_is(p, "vocabulary"), c.pp, 1.0)
    ranks = shares * np.where(stack.logits_split > 0, c.tp, 1.0)
    logits = shape.heads_out * np.maximum(stack.logit_bytes, c.value_bytes) * shape.vocab / ranks
    # With inputs of the last norm and of the output layer; GPipe predicts all before it goes back,
    # and keeps only what it predicts from where the output layer runs again by itself.
    flight = np.where(_is(p, "gpipe"), c.micro_batches, 1.0)
    again = (stack.kept_inputs > 1) & (c.again_matrix >= 1)
    kept_bytes = flight * (2 * c.value_bytes * stream_width(p) + np.where(again, 0.0, logits))
    held_bytes = p.tokens * (kept_bytes + np.where(again, logits, 0.0))
    head = shape.vocabulary_parameters / (c.tp * shares)
    layers = (2 * c.value_bytes + c.gradient_bytes) * head * (c.zero >= 3)
    blocks = c.value_bytes * ((head + _widest(p)) * (c.zero >= 3) + head * _passing(p))
    moved = np.where(stack.gathers_blocks > 0, blocks, layers)
    begun = c.gradient_bytes * head / np.where(_passing(p), c.shard, 1.0)
    return _running(
        p, rank, kept=kept, moment=1.0, begun=begun, loss_bytes=held_bytes, transfer_bytes=moved
    )


def _running(
    p: Pricing, rank: Rank, *, kept: Number, moment: float, begun: Number | float = 0.0,
    transfer_bytes: Number, **parts: Number,
) -> MemoryUse:  # fmt: skip
    """Give what a rank holds in its passes: what rests, what is kept, and what is at work.

    Args:
        p: What is priced.
        rank: Which.
        kept: Bytes that a micro-batch keeps in a layer.
        moment: When, an index into `MOMENTS`.
        begun: Bytes of gradients that a step's first backward pass has made by then at least.
        transfer_bytes: What is on its way.
        **parts: What is at work besides.
    """
    c, flight = p.choice, _flight(p, rank)
    activations = flight * rank.layers * kept * (1 - c.offload)
    messages = np.where(c.pp > 1, 2 * c.value_bytes * p.tokens * stream_width(p), 0.0)
    whole = np.where((c.zero >= 3) & (c.regather <= 0), c.value_bytes, 0.0) * _elements(p, rank)
    resting = _resting(p, rank)
    late = (p.stack.late_gradients > 0) & (c.micro_batches <= flight)
    some = late | ((c.zero >= 3) & (c.pp == 1) & (c.micro_batches <= 1))
    # Gradients that come into being as one micro-batch goes take its room.
    room = (activations + np.where(late, parts.get("loss_bytes", 0.0), 0.0)) / flight
    more = np.maximum(np.where(late, begun, 0.0), relu(resting["gradient_bytes"] - room))
    resting["gradient_bytes"] = np.where(some, more, resting["gradient_bytes"])
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
    # Where the optimizer has a share of what is used whole, our own programs have it twice.
    twice = p.stack.by_program & (c.master_bytes <= 0) & (c.zero >= 1) & (c.zero < 3)
    master = np.where(twice, c.gradient_bytes, c.master_bytes)
    return {
        "weights_bytes": c.value_bytes * _elements(p, rank, np.where(c.zero >= 3, c.shard, 1.0)),
        "master_bytes": master * here * own,
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
