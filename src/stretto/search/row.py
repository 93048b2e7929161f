"""What a search decides, as records of numbers, and what the numbers mean: a choice, a plan."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import get_args

import numpy as np

from stretto.cost import SCHEDULES, Choice, Number
from stretto.cost.choice import DEALT, dealt
from stretto.plan import (
    AXES,
    Batch,
    Codec,
    Communication,
    Memory,
    Pipeline,
    Plan,
)
from stretto.search.task import RECOMPUTES, Task

CODECS: tuple[Codec, ...] = get_args(Codec)
"""What gradients are turned into on the wire; a `Row` holds the index."""

ORDERS = (AXES, ("dp", "pp", "cp", "tp"))
"""Axes, outermost first; a `Row` holds the index."""


@dataclass(frozen=True, slots=True)
class Row:
    """All that a search decides of a plan, or of an array of plans that broadcast together.

    Attributes:
        pp: Pipeline ranks.
        dp: Data-parallel replicas.
        cp: Context-parallel ranks.
        tp: Tensor-parallel ranks.
        ep: Ranks that split the experts.
        etp: Ranks that split each expert.
        order: Index into `ORDERS`.
        micro_batch: Sequences of a micro-batch.
        micro_batches: Of a replica in a step.
        zero: What data-parallel ranks shard (Rajbhandari et al., 2020).
        shard: Ranks of dp × cp that cut a tensor among them; 1 without `zero`.
        regather: 1 where ZeRO-3 gathers parameters again for the backward pass.
        schedule: Index into `SCHEDULES`.
        interleave: Stages of a pipeline rank.
        recompute: Index into `RECOMPUTES`.
        recompute_layers: Of a stage, with full recomputation; 0 for all.
        sequence: 1 where activations between blocks are split over tp, which then is above 1.
        tensor_overlap: 1 where tensor-parallel moves are pipelined with their products.
        two_level: 1 where gradients are reduced within each node first.
        codec: Index into `CODECS`.
        offload: Share of the kept activations that wait in the host's memory.
        optimizer_offload: Share of the optimizer state that does.
    """

    pp: Number
    dp: Number
    cp: Number
    tp: Number
    ep: Number
    etp: Number
    order: Number
    micro_batch: Number
    micro_batches: Number
    zero: Number
    shard: Number
    regather: Number
    schedule: Number
    interleave: Number
    recompute: Number
    recompute_layers: Number
    sequence: Number
    tensor_overlap: Number
    two_level: Number
    codec: Number
    offload: Number
    optimizer_offload: Number

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape to which the fields broadcast."""
        return np.broadcast_shapes(*(getattr(self, f.name).shape for f in fields(Row)))

    def at(self, cells: object) -> Row:
        """Give some plans of a grid by their flat index: one, or an array of them."""
        shape = self.shape
        places = np.unravel_index(np.asarray(cells, dtype=np.int64), shape)
        return Row(
            *(
                np.asarray(np.broadcast_to(getattr(self, f.name), shape)[places])
                for f in fields(Row)
            )
        )


_SAME = tuple(f.name for f in fields(Row) if f.name in Choice.__slots__ and f.name != "codec")
_FIXED = ("seq", "precision", "value_bytes", "master_bytes", "gradient_bytes")
_AGAIN = ("again_core", "again_matrix", "again_pointwise")


def choice_of(row: Row, task: Task) -> Choice:
    """Give the numbers that plans are priced by: those of `Choice.of` of their `plan_of`."""
    outer, inside = row.order == 1, row.cp * row.tp
    numbers = {name: getattr(row, name) for name in _SAME}
    numbers |= {name: getattr(task.choices[0], name) for name in _FIXED}
    return Choice(
        **numbers
        | _again(row, task)
        | {
            "pp_stride": np.where(outer, inside, row.dp * inside),
            "dp_stride": np.where(outer, row.pp * inside, inside),
            "cp_stride": np.where(row.cp > 1, row.tp, 1.0),
            "tp_stride": np.ones(()),
            "codec": _codec(row, task),
        }
        | _dealt(row, task)
    )


def _dealt(row: Row, task: Task) -> dict[str, Number]:
    """Give the layers of pipeline ranks where stages are cut by cost."""
    extents, place = np.unique(row.pp, return_inverse=True)
    found = [dealt(task.model, int(pp), positions=task.seq) for pp in extents]
    columns = np.array(found).reshape(-1, len(DEALT))[place.reshape(row.pp.shape)]
    return dict(zip(DEALT, np.moveaxis(columns, -1, 0), strict=True))


def _again(row: Row, task: Task) -> dict[str, Number]:
    """Give the shares that are recomputed."""
    layers, stages = row.recompute_layers, row.pp * row.interleave
    share = np.minimum(1.0, layers * stages / task.model.layers)
    some = np.where(layers > 0, share, 1.0)
    index = row.recompute.astype(np.int64)
    shares = {n: np.stack([getattr(c, n) for c in task.choices]) for n in _AGAIN}
    return {name: share[index] * some for name, share in shares.items()}


def _codec(row: Row, task: Task) -> Number:
    """Give the relative size of a gradient on the wire."""
    if not np.any(row.codec):
        return np.ones(())
    plans = (Plan(communication=Communication(codec=c), numerics=task.numerics) for c in CODECS)
    sizes = np.stack([Choice.of(plan, task.model).codec for plan in plans])
    return np.asarray(sizes[row.codec.astype(np.int64)])


def plan_of(row: Row, task: Task) -> Plan:
    """Give the plan that a single row means."""
    n = {f.name: getattr(row, f.name).item() for f in fields(Row)}
    whole = {name: int(value) for name, value in n.items()}
    return Plan.of(
        **{name: whole[name] for name in ("pp", "dp", "cp", "tp", "ep", "etp", "zero")},
        shard=whole["shard"] if whole["zero"] else 0,
        sequence=bool(n["sequence"]) or whole["tp"] == 1,
        order=ORDERS[whole["order"]],
        pipeline=Pipeline(SCHEDULES[whole["schedule"]], (), whole["interleave"]),
        memory=Memory(
            RECOMPUTES[whole["recompute"]],
            whole["recompute_layers"] or None,
            n["offload"],
            n["optimizer_offload"],
            bool(n["regather"]),
        ),
        communication=Communication(
            codec=CODECS[whole["codec"]],
            hierarchy="two-level" if n["two_level"] else "flat",
            tensor_overlap=bool(n["tensor_overlap"]),
        ),
        numerics=task.numerics,
        batch=Batch(task.sequences, whole["micro_batch"], task.seq),
    )
