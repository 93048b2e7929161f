"""All plans that are tried, as grids: one for each number of pipeline ranks.

A grid has five axes: layouts (mesh and micro-batch), what rests in shards, schedules, what is
recomputed, and how moves go. A field of its `Row` varies only along the axes that it depends on, so
that prices which depend on few decisions are worked out for few plans, and NumPy broadcasts the
rest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
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
        return np.asarray(np.prod(np.broadcast_arrays(*counts), axis=0))

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
        if values.shape[axis] > 1:
            values = values.take(index, axis=axis)
    return values


def divisors(number: int) -> tuple[int, ...]:
    """Give all divisors, ascending."""
    return tuple(d for d in range(1, number + 1) if number % d == 0)


def grids(task: Task, options: Options) -> Iterator[Grid]:
    """Give all plans that are tried; most break a rule."""
    for pp in divisors(task.devices):
        yield _grid(task, options, pp)


def _grid(task: Task, options: Options, pp: int) -> Grid:
    layouts = _layouts(task, options, pp)
    tp, dp, cp, order = (layouts[name] for name in ("tp", "dp", "cp", "order"))
    stores = list(itertools.product(options.zero, options.shard, options.regather))
    zero, scope, regather = _along(1, stores)
    schedule, interleave = _schedules(task, options, pp)
    recompute, part = _recomputes(options)
    sequence, overlap, two_level, codec, offload, optimizer_offload = _moves(options)

    data, per_node = dp * cp, task.cluster.per_node
    in_node = np.where((order == 0) & (per_node % tp == 0), per_node // tp, 1.0)
    shard = np.where(scope == ALL, data, np.where(scope == NODE, in_node, scope))
    hybrid = (scope == ALL) | ((shard > 1) & (shard < data))
    plain = (zero > 0) | ((scope == options.shard[0]) & (regather == options.regather[0]))
    per_stage = task.model.layers / (pp * interleave)
    layers = np.where(part < 1, np.floor(part * per_stage + 0.5), part)
    before = np.where(part < 1, np.floor((part - PARTS[0]) * per_stage + 0.5), 0.0)
    spans = (in_node > 1) & (in_node < data)
    alone = (sequence == options.sequence[0]) & (overlap == options.tensor_overlap[0])
    rows = Row(
        **layouts,
        zero=zero,
        shard=np.where(zero > 0, shard, 1.0),
        regather=np.where(zero < 3, 1.0, regather),
        schedule=schedule,
        interleave=interleave,
        recompute=recompute,
        recompute_layers=layers,
        sequence=np.where(sequence == WHERE_POSSIBLE, task.seq % (cp * tp) == 0, sequence)
        * (tp > 1),
        tensor_overlap=overlap * (tp > 1),
        two_level=two_level,
        codec=codec,
        offload=offload,
        optimizer_offload=optimizer_offload,
    )
    return Grid(
        rows,
        (
            plain & ((zero == 0) | ((data > 1) & hybrid))
            & ((zero >= 3) | (regather == options.regather[0])),
            (part == 0) | ((layers >= 1) & (layers < per_stage) & (layers != before)),
            ((tp > 1) | alone) & ((two_level == 0) | spans),
        ),
    )  # fmt: skip


def _along(axis: int, rows: Sequence[Sequence[float]]) -> tuple[Number, ...]:
    """Give the columns of a table along an axis of the grid."""
    shape = [1] * 5
    shape[axis] = len(rows)
    table = np.array(rows, dtype=np.float64)
    return tuple(column.reshape(shape) for column in table.T)


def _layouts(task: Task, options: Options, pp: int) -> dict[str, Number]:
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


def _recomputes(options: Options) -> tuple[Number, ...]:
    """Give what is recomputed, and of how many layers of a stage: a share below 1, or a number."""
    parts = options.recompute_layers or (0, *PARTS)
    found = [(r, part) for r in options.recompute for part in (parts if r == _FULL else (0,))]
    return _along(3, found)


def _moves(options: Options) -> tuple[Number, ...]:
    """Give how activations and gradients move."""
    found = [
        row
        for row in itertools.product(
            options.sequence, options.tensor_overlap, options.two_level, options.codec,
            options.offload, options.optimizer_offload,
        )
        if row[0] or not row[1]  # what overlaps is split between blocks
    ]  # fmt: skip
    return _along(4, found)
