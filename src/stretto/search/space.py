"""All plans that are tried, as grids: one for each number of pipeline ranks.

A grid has five axes: layouts (mesh and micro-batch), what rests in shards, schedules, what is
recomputed, and how moves go. A field of its `Row` varies only along the axes that it depends on, so
that prices which depend on few decisions are worked out for few plans, and NumPy broadcasts the
rest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stretto.cost import SCHEDULES, Number
from stretto.schedule.legal import CHUNKS
from stretto.search.options import ALL, MOST_POSITIONS, NODE, PARTS, WHERE_POSSIBLE, Options
from stretto.search.row import Row
from stretto.search.rule import Index, Mask
from stretto.search.task import RECOMPUTES, Task

LAYOUT_FIELDS = ("pp", "dp", "cp", "tp", "ep", "etp", "order", "micro_batch", "micro_batches")
"""The fields of a `Row` that vary along the first axis alone."""

_FACTORS = (
    ("zero", "shard", "regather"),
    ("schedule", "interleave", "recompute", "recompute_layers"),
    ("sequence", "tensor_overlap", "two_level", "codec", "offload", "optimizer_offload"),
)
"""The other fields, by the mask in `Grid.own` that varies along their axes."""

Columns = Mapping[str, Number]
"""Fields of a `Row`, by name."""

T = TypeVar("T", bound=np.generic)

_FULL = RECOMPUTES.index("full")
_PLAIN = SCHEDULES.index("1f1b")


@dataclass(frozen=True, slots=True)
class Grid:
    """Plans with the same number of pipeline ranks.

    Attributes:
        rows: The plans; fields have five axes.
        own: Masks, one factor each, of the plans that are not another one spelt otherwise.
    """

    rows: Row
    own: tuple[Mask, ...]

    @property
    def weights(self) -> Number:
        """How many plans of its own each layout has."""
        counts = [np.count_nonzero(mask, axis=(1, 2, 3, 4)) for mask in self.own]
        whole = np.broadcast_arrays(*counts, np.ones(len(self.rows.pp)))
        return np.asarray(np.prod(whole, axis=0))

    def demanding(self, name: str, met: Mask) -> Grid:
        """Give the plans of which a decision, by its name in `Row`, meets a demand."""
        if name in LAYOUT_FIELDS:
            return self.layouts(np.broadcast_to(met, self.rows.pp.shape).ravel())
        pairs = zip(self.own, _FACTORS, strict=True)
        grid = replace(self, own=tuple(mask & met if name in own else mask for mask, own in pairs))
        return grid.layouts(grid.weights > 0)

    def cell(self, wanted: Mask) -> int:
        """Give a cell, whatever it decides otherwise, of the first layout of some."""
        return int(np.argmax(wanted)) * math.prod(self.rows.shape[1:])

    def layouts(self, kept: Mask) -> Grid:
        """Give the plans of some layouts."""
        index = [np.flatnonzero(kept)]
        return Grid(along(self.rows, index), tuple(_taken(mask, index) for mask in self.own))


def along(rows: Row, indices: Sequence[Index]) -> Row:
    """Give the plans at some places of the first axes of a grid."""
    return Row(*(_taken(getattr(rows, f.name), indices) for f in fields(Row)))


def _taken(values: NDArray[T], indices: Sequence[Index]) -> NDArray[T]:
    for axis, index in enumerate(indices):
        if values.shape[axis] > 1 or not len(index):  # one place may stand for many, not for none
            values = values.take(index, axis=axis)
    return values


def divisors(number: int) -> tuple[int, ...]:
    """Give all divisors, ascending."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))


def grids(task: Task, options: Options) -> Iterator[Grid]:
    """Give all plans that are tried; most break a rule."""
    for pp in divisors(task.devices):
        yield _grid(task, options, pp)


def _grid(task: Task, options: Options, pp: int) -> Grid:
    layouts = _layouts(task, options, pp)
    schedule, interleave = _schedules(task, options, pp)
    per_stage = task.model.layers / (pp * interleave)
    stores, first = _stores(task, options, layouts)
    again, second = _recomputes(options, per_stage)
    moves, third = _moves(task, options, layouts)
    columns = {**layouts, **stores, "schedule": schedule, "interleave": interleave}
    return Grid(Row(**columns, **again, **moves), (first, second, third))


def _along(axis: int, rows: Sequence[Sequence[float]]) -> tuple[Number, ...]:
    """Give the columns of a table along an axis of the grid."""
    shape = [1] * 5
    shape[axis] = len(rows)
    table = np.array(rows, dtype=np.float64)
    return tuple(column.reshape(shape) for column in table.T)


def _layouts(task: Task, options: Options, pp: int) -> Columns:
    """Give all meshes of the devices with `pp`, in all orders, with all micro-batches."""
    stage, experts = task.devices // pp, task.model.experts
    pairs = [(tp, cp) for tp in divisors(stage) for cp in divisors(stage // tp)]
    spread = [(1, 0), *((ep, s) for ep in divisors(experts) if ep > 1 for s in (0, 1))]
    sizes = options.micro_batch or [
        d for d in divisors(task.sequences) if d == 1 or d * task.seq <= MOST_POSITIONS
    ]
    # Large micro-batches, of which few fit, stand together.
    tables = [np.array(t, dtype=np.float64) for t in (sizes, options.order, pairs, spread)]
    places = np.indices([len(table) for table in tables]).reshape(len(tables), -1)
    size, order, (tp, cp), (ep, alone) = (t[i].T for t, i in zip(tables, places, strict=True))
    # Data parallelism outermost is priced where its ranks are evenly apart.
    apart = (pp > 1) & (cp == 1) & (tp < stage) & (experts == 0)
    own = ((tp > 1) | (alone == 0)) & ((order == 0) | apart)
    dp = stage / (tp * cp)
    columns = {
        "pp": np.full_like(tp, pp), "dp": dp, "cp": cp, "tp": tp, "ep": ep,
        "etp": np.where(alone > 0, 1.0, tp), "order": order, "micro_batch": size,
        "micro_batches": np.floor(task.sequences / (dp * size)),
    }  # fmt: skip
    return {name: column[own].reshape(-1, 1, 1, 1, 1) for name, column in columns.items()}


def _schedules(task: Task, options: Options, pp: int) -> tuple[Number, ...]:
    """Give schedules and stages of a rank."""
    layers, found = task.model.layers, []
    even = [v for v in range(2, layers // pp + 1) if -layers % (pp * v) <= 2]
    several = [v for v in options.interleave or even if v > 1]
    for index in options.schedule if pp > 1 else ():
        least, most = CHUNKS[SCHEDULES[int(index)]]
        found += [(index, v) for v in (several if most > least else [least])]
    return _along(2, found or [(_PLAIN, 1)])


def _stores(task: Task, options: Options, layouts: Columns) -> tuple[Columns, Mask]:
    """Give what rests in shards, and over how many ranks."""
    found = list(itertools.product(options.zero, options.shard, options.regather))
    zero, scope, regather = _along(1, found)
    data = layouts["dp"] * layouts["cp"]
    node = _in_node(task, layouts)
    shard = np.where(scope == ALL, data, np.where(scope == NODE, node, scope))
    # Without ZeRO there is no shard to choose, and below its third stage nothing to gather.
    sharded = (zero > 0) & (data > 1) & ((scope == ALL) | ((shard > 1) & (shard < data)))
    own = sharded | ((zero == 0) & (scope == options.shard[0]))
    own &= (zero >= 3) | (regather == options.regather[0])
    columns = {
        "zero": zero,
        "shard": np.where(zero > 0, shard, 1.0),
        "regather": np.where(zero < 3, 1.0, regather),
    }
    return columns, own


def _in_node(task: Task, layouts: Columns) -> Number:
    """Give the data-parallel ranks within a node; 1 where that is not even."""
    tp, per_node = layouts["tp"], task.cluster.per_node
    even = (layouts["order"] == 0) & (per_node % tp == 0)
    return np.where(even, per_node // tp, 1.0)


def _recomputes(options: Options, per_stage: Number) -> tuple[Columns, Mask]:
    """Give what is recomputed, and of how many layers of a stage."""
    parts = options.recompute_layers or (0, *PARTS)
    found = [(r, part) for r in options.recompute for part in (parts if r == _FULL else (0,))]
    recompute, part = _along(3, found)
    # A part below 1 is a share of the stage; of those that are as many layers the first counts.
    shares = [np.floor(p * per_stage + 0.5) for p in (0.0, *PARTS)]
    layers, own = part + np.zeros_like(per_stage), part == 0
    for share, count, before in zip(PARTS, shares[1:], shares, strict=False):
        layers = np.where(part == share, count, layers)
        own = own | ((part == share) & (count > before))
    columns = {"recompute": recompute, "recompute_layers": layers}
    return columns, (own | (part >= 1)) & (layers < per_stage)


def _moves(task: Task, options: Options, layouts: Columns) -> tuple[Columns, Mask]:
    """Give how activations and gradients move."""
    names = ("sequence", "tensor_overlap", "two_level", "codec", "offload", "optimizer_offload")
    found = list(itertools.product(*(getattr(options, name) for name in names)))
    columns = dict(zip(names, _along(4, found), strict=True))
    sequence, overlap = columns["sequence"], columns["tensor_overlap"]
    tp, data = layouts["tp"], layouts["dp"] * layouts["cp"]
    even = task.seq % (layouts["cp"] * tp) == 0
    split = (tp > 1) & np.where(sequence == WHERE_POSSIBLE, even, sequence > 0)
    alone = (sequence == options.sequence[0]) & (overlap == options.tensor_overlap[0])
    node = _in_node(task, layouts)
    spans = (node > 1) & (node < data)
    # What overlaps is split between blocks, and one rank has nothing to split.
    own = ((tp > 1) | alone) & (split | (overlap == 0) | (tp == 1))
    own &= (columns["two_level"] == 0) | spans
    chosen = {"sequence": np.asarray(split, dtype=np.float64), "tensor_overlap": overlap * (tp > 1)}
    return {**columns, **chosen}, own
