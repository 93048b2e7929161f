"""What pipeline ranks take that differ: in layers, in what runs again, in shards, in devices.

The estimate of a whole plan prices the rank that takes longest. Here each rank is priced with the
same terms, as if the whole pipeline were like it; ranks that are alike take what that estimate says.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from stretto.cost import SCHEDULES, Machine, MemoryUse, Number, Pricing, taken
from stretto.cost.bubble import Load
from stretto.cost.kernels import memory_s
from stretto.cost.layer import Passes, Work, embedding, head, layer
from stretto.cost.memory import (
    FRAGMENTS,
    PARTS,
    RESTING,
    Rank,
    _activations,
    _block,
    _end_elements,
    _fuller,
    _layer_elements,
    _loss,
    _update,
)
from stretto.cost.step import _data_s, _optimizer_elements
from stretto.model import Model

AGAIN = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.5), (1.0, 1.0, 1.0))


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
    """What of a model some pipeline ranks have: arrays that broadcast together.

    Attributes:
        index: Which rank of the pipeline, from 0.
        layers: Layers by what of them runs again and by their kind, along two axes more.
        other: Of them, how many rest by another ZeRO stage than the plan's.
        embeds: 1 where it has the embedding.
        predicts: 1 where it has the output layer; with ``vocabulary`` each has its share.
    """

    index: Number
    layers: Number
    other: Number
    embeds: Number
    predicts: Number

    @property
    def count(self) -> Number:
        """All layers."""
        return self.layers.sum((-2, -1))


@dataclass(frozen=True, slots=True)
class Pieces:
    """A layer by what of it runs again and by its kind, along the last two axes, and the ends.

    Attributes:
        layers: Passes of a micro-batch through a layer; a machine to a place of the axes before.
        kept_bytes: Kept of it for the backward pass.
        work_bytes: Held besides while it runs.
        plain: Elements of its parameters in use, by kind, but for experts.
        routed: Those of experts.
        embedding: The passes of the embedding.
        head: Those of the output layers.
    """

    layers: Passes
    kept_bytes: Number
    work_bytes: Number
    plain: Number
    routed: Number
    embedding: Passes
    head: Passes
