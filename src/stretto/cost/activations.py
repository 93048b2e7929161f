"""Bytes of activations: what a layer keeps for its backward pass, and what it works in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stretto.cost.choice import PRECISIONS
from stretto.cost.numbers import Number, relu
from stretto.cost.pricing import Pricing

NORM_BYTES = 4.0
"""Kept for each row by a norm: its scale."""

LOG_SUM_BYTES = 4.0
"""Kept for each row of scores by fused attention: the logarithm of their sum (Dao et al., 2022)."""


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
        forward: What the feed-forward block leaves of the last two.
    """

    stream: Number
    core: Number
    out: Number
    matrix: Number
    pointwise: Number
    forward: Number

    @property
    def whole(self) -> Number:
        """What is kept where nothing runs again."""
        return self.stream + self.core + self.out + self.matrix + self.pointwise

    def kept(self, p: Pricing) -> Number:
        """Give what is kept where the plan's share runs again."""
        c = p.choice
        attention, forward = again_by_block(p)
        blocks = (
            self.stream
            + (1 - attention) * (self.whole - self.stream - self.forward)
            + (1 - forward) * self.forward
        )
        layers = (
            self.stream
            + (1 - c.again_core) * self.core
            + (1 - np.minimum(c.again_core, c.again_matrix)) * self.out
            + (1 - c.again_matrix) * self.matrix
            + (1 - c.again_pointwise) * self.pointwise
        )
        return np.where(p.stack.kept_inputs > 1, blocks, layers)


def again_by_block(p: Pricing) -> tuple[Number, Number]:
    """Give the shares of attention and of feed-forward blocks that run again.

    Selective recomputation counts as half of what is pointwise, full as all of it (see `Choice`).
    """
    attention = p.choice.again_core
    return attention, relu(2 * p.choice.again_pointwise - attention)


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
            # A layer runs again as a whole, even if others do not; or each of its blocks by itself.
            gradients = _gradients(p, experts)
            again = (saved.whole - kept) / np.where(some > 0, some, 1.0)
            layer = again + np.maximum(*gradients)
            left = saved.whole - saved.stream - saved.forward, saved.forward
            shares = again_by_block(p)
            blocks = [np.where(a > 0, b, 0.0) + g
                      for a, b, g in zip(shares, left, gradients, strict=True)]  # fmt: skip
            most = np.where(p.stack.kept_inputs > 1, np.maximum(*blocks), layer)
            mean = mean + part * kept
            work = np.maximum(work, np.where(part > 0, most, 0.0))
    return p.tokens * mean, p.tokens * work


def _saved(p: Pricing, experts: Number) -> Saved:
    """Give what a token leaves in a layer; `experts` is 1 where its feed-forward block has some."""
    shape, c, stack, w = p.shape, p.choice, p.stack, p.choice.value_bytes
    # Products in fewer bits keep their inputs in as many; attention needs its result in more too.
    narrow = c.precision >= PRECISIONS.index("float8")
    read = np.where(narrow, 1.0, w)
    stream, (query, keys, values) = stream_width(p), widths(p)
    heads, out = shape.heads / c.tp, shape.heads * shape.value_dim / c.tp
    along = np.where(c.sequence > 0, c.tp, 1.0)
    latent = np.where(shape.kv_rank > 0, shape.q_rank + shape.kv_rank + shape.rope_dim, 0.0) / along
    visits = experts * shape.top_k / c.tp
    ff = np.where(experts > 0, shape.shared_ff, shape.ff) / c.tp + visits * shape.expert_ff
    gates = np.where(shape.ups > 1, stack.kept_copies, 0.0) * ff
    scores = np.where(stack.fused_attention > 0, LOG_SUM_BYTES, stack.kept_score_bytes * c.seq)
    products = (2 - stack.kept_inputs) * stream + latent + query + keys + values + shape.ups * ff
    # A norm of heads keeps its input and a number for each.
    heads_normed = (w * (query + keys) + NORM_BYTES * (query + keys) / shape.head_dim) * (
        shape.qk_norm * p.stack.by_program
    )
    normed = read * np.where(stack.kept_gathered > 0, shape.embed, stream)
    return Saved(
        stream=w * stack.kept_inputs * stream,
        core=scores * heads,
        out=w * out,
        matrix=w * products + read * visits * shape.embed,
        pointwise=2 * (w * stack.kept_norm + stack.kept_mask_bytes) * stream
        + 2 * normed
        + w * (latent + stack.kept_copies * (query + keys) + gates)
        + heads_normed
        + read * (ff + np.where(narrow, out, 0.0)),
        forward=w * shape.ups * ff + w * gates + read * ff + normed,
    )


def _gradients(p: Pricing, experts: Number) -> tuple[Number, Number]:
    """Give the bytes of gradients that a token has at once in each of the two blocks of a layer."""
    shape, c, stack, w = p.shape, p.choice, p.stack, p.choice.value_bytes
    score_bytes = np.where(stack.fused_attention > 0, 0.0, stack.kept_score_bytes)
    ff = np.where(experts > 0, shape.shared_ff + shape.top_k * shape.expert_ff, shape.ff)
    wide = sum(widths(p)) + shape.heads * shape.value_dim / c.tp
    attention = w * wide + score_bytes * c.seq * shape.heads / c.tp
    forward = w * ((shape.ups + 1) * ff + 2 * experts * shape.top_k * shape.embed) / c.tp
    # What enters and leaves a block is whole within it, also where it is split between blocks.
    return attention + 2 * w * shape.embed, forward + 2 * w * shape.embed


def stream_width(p: Pricing) -> Number:
    """Give the width of the residual stream on a rank between blocks."""
    return p.shape.embed / np.where(p.choice.sequence > 0, p.choice.tp, 1.0)


def widths(p: Pricing) -> tuple[Number, Number, Number]:
    """Give the widths of all queries, keys and values of a token on a rank."""
    shape, tp = p.shape, p.choice.tp
    heads = np.where(shape.kv_rank > 0, shape.heads, np.maximum(shape.kv_heads, tp)) / tp
    return shape.heads * shape.head_dim / tp, heads * shape.head_dim, heads * shape.value_dim
