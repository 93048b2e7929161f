"""What a rank saw, written by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stretto.program.instruction import Instruction, StageProgram
from stretto.timeline.recorded import Counters, Track
from stretto.timeline.rows import after_vote, kind
from stretto.timeline.value import KINDS

Row = tuple[float | str, ...]
"""Instruction, kind, begin and end, and of a message when the rank began to wait for it."""


def track(
    rows: Sequence[Row],
    *,
    rank: int = 0,
    step: int = 50,
    world: int = 1,
    plan: str = "plan",
    clock: str = "machine",
    zero_s: float = 0.0,
) -> Track:
    """Give what a rank saw: of each row (instruction, kind, start, stop) or with asked at last."""
    whole = [(*row, math.nan)[:5] for row in rows]
    instruction, kind, start, stop, asked = zip(*whole, strict=True)
    return Track(
        step,
        world,
        plan,
        clock,
        zero_s,
        Counters(rank, f"host-{rank}", 0, 1, 2, 0.25, 0.5),
        1000,
        np.array(instruction, dtype=np.int64),
        np.array([KINDS.index(str(k)) for k in kind], dtype=np.int64),
        *(np.array(column, dtype=np.float64) for column in (start, asked, stop)),
        1000 + np.arange(len(rows)),
    )


def at(stage: StageProgram, what: type[Instruction], nth: int = 0) -> int:
    """Give the index of the nth instruction of a type; counted from the end below 0."""
    return [i for i, x in enumerate(stage.instructions) if isinstance(x, what)][nth]


def listed(stage: StageProgram, told: dict[int, Row], *, own: Sequence[Row] = ()) -> list[Row]:
    """Give rows in the order of a step: those told of, and others done at once when they come.

    Args:
        stage: Whose list.
        told: Of instructions begin, end and, of messages, when the rank began to wait.
        own: Rows of what is done between two steps.
    """
    count, first, now = len(stage.instructions), after_vote(stage), 0.0
    found: list[Row] = []
    for i in (*range(first, count), *range(first)):
        found += own if i == 0 else ()
        name = KINDS[kind(stage.instructions[i], stage)]
        begin, end, *asked = told.get(i, (now, now))
        found.append((i, name, begin, end, *asked))
        if name in ("device", "vote"):
            now = float(end)
    return found
