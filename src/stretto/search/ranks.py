"""What pipeline ranks take that differ: in layers, in what runs again, in shards, in devices.

The estimate of a plan prices the rank that takes longest. Here each rank is priced by the same
terms, as if the whole pipeline were like it, so that ranks which are alike take what the estimate
says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from stretto.cost import SCHEDULES, Choice, MemoryUse, Number, Pricing, taken
from stretto.cost.activations import activations
from stretto.cost.bubble import Load
from stretto.cost.layer import Passes, Work, embedding, head, layer
from stretto.cost.memory import (
    FRAGMENTS,
    PARTS,
    RESTING,
    Rank,
    block_use,
    end_elements,
    fuller,
    layer_elements,
    loss_use,
    update_use,
)
from stretto.cost.step import besides_s
from stretto.model import Model

_SUMMED = (*RESTING, "kept_bytes", "update_bytes")
"""Parts of a memory's use that layers of two ZeRO stages add up to; of others the larger counts."""

_LEAST = 1e-9  # layers, where there are none: to divide by


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kinds of layer of a model, one to a place of each array.

    Attributes:
        experts: 1 where the feed-forward block is of experts.
        full: 1 where attention reaches every position before.
        of_layer: The kind of each layer, those of multi-token prediction last.
    """

    experts: Number
    full: Number
    of_layer: tuple[int, ...]

    @staticmethod
    def of(model: Model) -> Kinds:
        """Give the kinds of layer of `model`, in the order in which they first come."""
        dense, full = set(model.dense_layers), set(model.full_layers)
        local = bool(model.window or model.chunk)
        pairs = [
            (float(model.experts > 0 and i not in dense), float(not local or i in full))
            for i in range(model.layers + model.mtp_layers)
        ]
        kinds = list(dict.fromkeys(pairs))
        experts, reach = (np.array(column) for column in zip(*kinds, strict=True))
        return Kinds(experts, reach, tuple(kinds.index(pair) for pair in pairs))

    def __len__(self) -> int:
        return len(self.experts)


@dataclass(frozen=True, slots=True)
class Share:
    """What some pipeline ranks have: arrays that broadcast, the last axis along the pipeline.

    Attributes:
        index: Which rank, from 0.
        layers: Layers by what of them runs again and by kind, along two axes more.
        other: Of them, those that rest by the other ZeRO stage.
        embeds: 1 where the embedding is.
        predicts: 1 where the output layer is; with ``vocabulary`` its share on each rank.
    """

    index: Number
    layers: Number
    other: Number
    embeds: Number
    predicts: Number


@dataclass(frozen=True, slots=True)
class Pieces:
    """A layer by what of it runs again and by kind, along the last two axes; and the ends.

    Attributes:
        pricing: What is priced: one plan; a machine for each pipeline rank, or one for all.
        other_zero: The ZeRO stage by which layers may rest instead of the plan's.
        layer: Seconds of a micro-batch in a layer.
        embedding: In the embedding.
        head: In all output layers.
        kept_bytes: Kept of a layer for its backward pass.
        work_bytes: Held besides while it runs.
        plain: Elements of a layer's parameters in use, but for experts.
        routed: Those of experts.
        experts: 1 where a kind of layer has experts.
        again: What of a layer runs again in each way, as fields of a `Choice`.
    """

    pricing: Pricing
    other_zero: int
    layer: Load
    embedding: Load
    head: Load
    kept_bytes: Number
    work_bytes: Number
    plain: Number
    routed: Number
    experts: Number
    again: Mapping[str, Number]

    @staticmethod
    def of(
        p: Pricing, kinds: Kinds, *, recomputes: Sequence[Choice], zero: int | None = None
    ) -> Pieces:
        """Give the pieces of a plan.

        Args:
            p: What is priced.
            kinds: Of the model's layers.
            recomputes: The plan with each of `RECOMPUTES`.
            zero: The ZeRO stage besides the plan's; None for `other_zero`.
        """
        names = ("again_core", "again_matrix", "again_pointwise")
        again = {n: np.stack([getattr(c, n) for c in recomputes]) for n in names}
        layers = p.shape.layers
        kind = Pricing(
            replace(p.shape, expert_layers=layers * kinds.experts, full_layers=layers * kinds.full),
            replace(p.choice, **{n: shares[:, None] for n, shares in again.items()}),
            taken(p.machine, (..., None, None)),
            p.stack,
        )
        kept, work = activations(kind)
        plain, routed = layer_elements(kind)
        return Pieces(
            p,
            other_zero(int(p.choice.zero)) if zero is None else zero,
            _load(layer(kind, experts=kinds.experts)),
            _load(embedding(p)),
            _times(_load(head(p)), p.shape.heads_out),
            kept,
            work,
            plain,
            routed,
            kinds.experts,
            again,
        )


def other_zero(zero: int) -> int:
    """Give the ZeRO stage that is worth a try besides one: whether parameters rest in shards."""
    return 3 if zero < 3 else 2


@dataclass(frozen=True, slots=True)
class RankCost:
    """What pipeline ranks take.

    Attributes:
        load: Seconds of a micro-batch.
        tail_s: Of what comes once in a step: reducing gradients, gathering parameters, updating.
        memory: Bytes at the fullest moment of each.
    """

    load: Load
    tail_s: Number
    memory: MemoryUse


def rank_cost(share: Share, pieces: Pieces) -> RankCost:
    """Give what ranks take that have a share of the model."""
    load = _plus(
        Load(*(_whole(share.layers * values) for values in _values(pieces.layer))),
        _plus(_times(pieces.embedding, share.embeds), _times(pieces.head, share.predicts)),
    )
    return RankCost(load, _tail_s(share, pieces, load), _memory(share, pieces))


def _values(load: Load) -> tuple[Number, Number, Number]:
    return load.forward_s, load.inputs_s, load.weights_s


def _load(passes: Passes) -> Load:
    again = passes.again.seconds
    return Load(passes.forward.seconds, again + passes.inputs.seconds, passes.weights.seconds)


def _times(load: Load, factor: Number) -> Load:
    return Load(*(value * factor for value in _values(load)))


def _plus(one: Load, other: Load) -> Load:
    return Load(*(a + b for a, b in zip(_values(one), _values(other), strict=True)))


def _whole(by_kind: Number) -> Number:
    return np.asarray(by_kind.sum((-2, -1)))


def _classes(share: Share, pieces: Pieces) -> list[tuple[Pricing, Number]]:
    """Give what is priced by the plan's ZeRO stage, ends included, and by the other if any is."""
    p, c, zero = pieces.pricing, pieces.pricing.choice, np.zeros(())
    part = share.other / np.maximum(_whole(share.layers), _LEAST)
    if not np.any(part):
        return [(p, np.ones(()))]
    shard = np.where(c.zero > 0, c.shard, c.dp * c.cp)
    other = replace(c, zero=np.asarray(float(pieces.other_zero)), shard=shard)
    without_ends = replace(p.shape, vocab=zero, positions=zero)
    return [(p, 1.0 - part), (replace(p, choice=other, shape=without_ends), part)]


def _tail_s(share: Share, pieces: Pieces, load: Load) -> Number:
    """Give the seconds of what comes once in a step, and of all that ZeRO-3 gathers in it."""
    seconds, zero = np.zeros(()), np.zeros(())
    layers, experts = _whole(share.layers), _whole(share.layers * pieces.experts)
    ways = share.layers.sum(-1) / np.maximum(layers, _LEAST)[..., None]
    again = {name: (ways * shares).sum(-1) for name, shares in pieces.again.items()}
    for p, part in _classes(share, pieces):
        shape, c = p.shape, p.choice
        ends = share.embeds + share.predicts - shape.tied * share.embeds * share.predicts
        mine = replace(
            shape,
            layers=np.maximum(part * layers, _LEAST) * c.pp,
            expert_layers=part * experts * c.pp,
            # A pipeline of one rank has both ends anyway, every other one.
            vocab=shape.vocab * ends / np.where(c.pp == 1, 2.0 - shape.tied, 1.0),
        )
        q = replace(p, shape=mine, choice=replace(c, **again))
        ahead = Work(load.forward_s * part, zero, zero, zero, zero, zero, zero)
        back = Work((load.inputs_s + load.weights_s) * part, zero, zero, zero, zero, zero, zero)
        passes = Passes(ahead, ahead.times(zero), back, back.times(zero))
        moved = (part * layers > 0) | (mine.vocab > 0)
        seconds = seconds + np.where(moved, sum(besides_s(q, passes), zero), 0.0)
    return seconds


def _memory(share: Share, pieces: Pieces) -> MemoryUse:
    """Give the bytes of ranks at their fullest moment."""
    n, layers = share.layers, _whole(share.layers)
    work = np.where(n > 0, pieces.work_bytes, 0.0).max((-2, -1))
    kept = _whole(n * pieces.kept_bytes) / np.maximum(layers, _LEAST)
    blocks, losses, updates, parts = [], [], [], []
    for p, part in _classes(share, pieces):
        c = p.choice
        early, late = end_elements(p)
        shared = c.schedule == SCHEDULES.index("vocabulary")
        ends = np.where(shared, early, np.maximum(early * share.embeds, late * share.predicts))
        plain = part * _whole(n * pieces.plain) + ends / c.tp
        rank = Rank(share.index, layers * part, plain, part * _whole(n * pieces.routed))
        blocks.append(block_use(p, rank, kept=kept, work=work))
        losses.append(loss_use(p, rank, kept=kept))
        updates.append(update_use(p, rank))
        parts.append(part)
    block, loss, update = (_joined(uses, parts[-1]) for uses in (blocks, losses, updates))
    without = fuller(block, update)
    return _where(share.predicts > 0, fuller(without, loss), without)


def _joined(uses: list[MemoryUse], part: Number) -> MemoryUse:
    """Give the use of a rank of whose layers `part` rest by another ZeRO stage, the second use."""
    if len(uses) == 1:
        return uses[0]
    one, other = uses
    parts = {
        name: (np.add if name in _SUMMED else np.maximum)(getattr(one, name), getattr(other, name))
        for name in PARTS
    }
    passing = [n for n in PARTS if n not in (*RESTING, "fragment_bytes", "reserve_bytes")]
    lost = FRAGMENTS * sum((parts[n] for n in passing), np.zeros(()))
    return _where(part > 0, MemoryUse(**{**parts, "fragment_bytes": lost}, moment=one.moment), one)


def _where(held: NDArray[np.bool_], use: MemoryUse, otherwise: MemoryUse) -> MemoryUse:
    """Give `use` where something holds."""
    pairs = ((f.name, getattr(use, f.name), getattr(otherwise, f.name)) for f in fields(MemoryUse))
    return MemoryUse(**{name: np.where(held, a, b) for name, a, b in pairs})
