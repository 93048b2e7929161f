"""What rules a plan out, as data: the reason, and the numbers with which it does not hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stretto.cost import SCHEDULES
from stretto.schedule import possible
from stretto.search.options import LEAST_POSITIONS
from stretto.search.row import Row
from stretto.search.task import Task

Mask = NDArray[np.bool_]
Index = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that must hold of a plan.

    Attributes:
        reason: Why a plan is ruled out, in the few words of a table.
        numbers: The same with the numbers of a plan, to be filled in with those of its `Row` and of
            the task.
        holds: Tells for which plans it holds.
    """

    reason: str
    numbers: str
    holds: Callable[[Row, Task], Mask]

    def text(self, row: Row, task: Task) -> str:
        """Give the numbers with which it does not hold for a single plan."""
        model = task.model
        known = {f.name: int(getattr(row, f.name)) for f in fields(Row)}
        return self.numbers.format(
            **known,
            name=SCHEDULES[known["schedule"]],
            sequences=task.sequences,
            seq=task.seq,
            layers=model.layers,
            heads=model.heads,
            kv_heads=model.kv_heads,
            ff=model.ff,
            expert_ff=model.expert_ff,
            experts=model.experts,
            least=LEAST_POSITIONS,
        )


def _nests(row: Row, _: Task) -> Mask:
    """Of any two groups of the innermost ranks, one holds the other."""
    tensor = row.tp
    ends = (tensor, tensor * row.cp, row.etp, row.etp * row.ep, tensor * row.shard)
    found = np.ones((), dtype=np.bool_)
    for one, other in combinations(ends, 2):
        found = found & (np.maximum(one, other) % np.minimum(one, other) == 0)
    return found


def _schedule(row: Row, _: Task) -> Mask:
    # `possible` takes a name, so each schedule is asked about where it stands.
    found = np.zeros(np.broadcast_shapes(row.schedule.shape, row.micro_batches.shape), np.bool_)
    for index, name in enumerate(SCHEDULES):
        here = row.schedule == index
        if np.any(here):
            found |= here & possible(name, p=row.pp, v=row.interleave, m=row.micro_batches)
    return found


LAYOUT = (
    Rule(
        "more pipeline ranks than layers",
        "pp {pp} is more than the model's {layers} layers",
        lambda row, task: row.pp <= task.model.layers,
    ),
    Rule(
        "tp does not divide the heads",
        "tp must divide {heads} heads, and {kv_heads} key heads or be a multiple of them, but is "
        "{tp}",
        lambda row, task: (
            (task.model.heads % row.tp == 0)
            & ((task.model.kv_heads % row.tp == 0) | (row.tp % task.model.kv_heads == 0))
        ),
    ),
    Rule(
        "tp does not divide the feed-forward width",
        "tp must divide the feed-forward width {ff}, and etp that of an expert {expert_ff}, but "
        "tp is {tp} and etp {etp}",
        lambda row, task: (task.model.ff % row.tp == 0) & (task.model.expert_ff % row.etp == 0),
    ),
    Rule(
        "cp leaves a rank too few positions",
        "cp {cp} leaves a rank {seq} / {cp} positions, fewer than the {least} that are tried",
        lambda row, task: (row.cp == 1) | (task.seq >= LEAST_POSITIONS * row.cp),
    ),
    Rule(
        "cp does not divide the positions",
        "positions must be divisible by 2 × cp, but {seq} is not by 2 × {cp}",
        lambda row, task: (row.cp == 1) | (task.seq % (2 * row.cp) == 0),
    ),
    Rule(
        "ep does not divide the experts",
        "ep must divide {experts} experts, but is {ep}",
        lambda row, task: task.model.experts % row.ep == 0,
    ),
    Rule(
        "ep × etp does not divide the ranks of a stage",
        "ep × etp must divide dp × cp × tp, but {ep} × {etp} does not {dp} × {cp} × {tp}",
        lambda row, task: row.dp * row.cp * row.tp % (row.ep * row.etp) == 0,
    ),
    Rule(
        "dp × micro-batch does not divide the batch",
        "dp × micro_batch must divide the batch, but {dp} × {micro_batch} does not {sequences} "
        "sequences",
        lambda row, task: task.sequences % (row.dp * row.micro_batch) == 0,
    ),
)
"""Rules about the mesh and the micro-batch alone."""

REST = (
    Rule(
        "more stages than layers",
        "pp × interleave = {pp} × {interleave} stages are more than the model's {layers} layers",
        lambda row, task: row.pp * row.interleave <= task.model.layers,
    ),
    Rule(
        "the schedule does not take the micro-batches",
        "{name} does not take {micro_batches} micro-batches over pp {pp}: it takes them in rounds "
        "of pp",
        _schedule,
    ),
    Rule(
        "tp does not divide the positions between blocks",
        "cp × tp must divide {seq} positions that are split between blocks, but {cp} × {tp} does "
        "not",
        lambda row, task: (row.sequence == 0) | (task.seq % (row.cp * row.tp) == 0),
    ),
    Rule(
        "shard does not divide dp × cp",
        "shard must divide dp × cp, but {shard} does not {dp} × {cp}",
        lambda row, task: row.dp * row.cp % row.shard == 0,
    ),
    Rule(
        "groups of ranks overlap and neither holds the other",
        "of tp {tp}, tp × cp, etp × ep = {etp} × {ep} and tp × shard = {tp} × {shard}, one must "
        "divide the other",
        _nests,
    ),
)
"""Rules that the other decisions take part in."""
