"""The instructions of a step that take time, as columns that a page reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stretto.mesh import Mesh
from stretto.page.packed import packed
from stretto.program.instruction import Compute, Program, StageProgram
from stretto.program.render import label
from stretto.timeline import KINDS, Timeline
from stretto.timeline.rows import Queue, after_vote
from stretto.timeline.rows import rows as rows_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SORTS = (
    "idle",
    "forward",
    "recompute",
    "backward",
    "update",
    "activation",
    "parameter",
    "gradient",
    "pipeline",
    "vote",
    "data",
    "host",
)
"""What the time of a rank goes to, as a page colours it: `KINDS`, with the device's work by what it
computes; "idle" is a wait while no message is under way."""

_MESSAGES = 256
"""More messages than an instruction has."""

_PLAIN = np.array(
    [SORTS.index({"none": "idle", "device": "update"}.get(kind, kind)) for kind in KINDS]
)
"""The sort of each kind, where it is one."""


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """What a rank of a stage does that takes time: a row for each compute, update and message.

    Rows are in the order of a step from vote to vote.

    Attributes:
        stage: The stage.
        key: Of each row what tells it from others: its instruction, and which message of it.
        sort: Of each row an index into `SORTS`.
        name: Of each row an index into the names of the step.
        queue: Of each row an index into the queues of the step; -1 for the device.
        sent_bytes: What a rank sends in it.
    """

    stage: int
    key: Ints
    sort: Ints
    name: Ints
    queue: Ints
    sent_bytes: Ints

    @property
    def instruction(self) -> Ints:
        """Of each row the index of its instruction."""
        return self.key // _MESSAGES

    def packed(self) -> dict[str, Any]:
        """Give the columns as JSON."""
        return {
            "instruction": packed(self.instruction, dtype="int32"),
            "sort": packed(self.sort, dtype="uint8"),
            "name": packed(self.name, dtype="int32"),
            "queue": packed(self.queue, dtype="int8"),
            "bytes": packed(self.sent_bytes, dtype="float64"),
        }


@dataclass(frozen=True, slots=True)
class Book:
    """All that the timelines of a program have in common.

    Attributes:
        sheets: Of each stage.
        names: Of instructions; each once.
        queues: Those of messages: the nth of a rank is the nth of each other rank in it.
    """

    sheets: tuple[Sheet, ...]
    names: tuple[str, ...]
    queues: tuple[Queue, ...]

    def packed(self, mesh: Mesh) -> dict[str, Any]:
        """Give it as JSON; of a queue the axes that split something."""
        return {
            "names": self.names,
            "queues": [
                {"name": q.name, "way": q.way, "axes": mesh.expand(q.axes), "by": q.by}
                for q in self.queues
            ],
            "sheets": [sheet.packed() for sheet in self.sheets],
        }


def book(program: Program) -> Book:
    """Give what every timeline of a program has."""
    names: dict[str, int] = {}
    queues: dict[Queue, int] = {}
    sheets = []
    for stage in program.stages:
        rows = rows_of(program, stage)
        key = _keys(rows.instruction)
        turn = (rows.instruction - after_vote(stage)) % len(stage.instructions)
        at = np.argsort(turn, kind="stable")
        at = at[rows.kind[at] > 0]
        texts = [label(program, stage, stage.instructions[i]) for i in rows.instruction[at]]
        known = [queues.setdefault(queue, len(queues)) for queue in rows.queues]
        sheets.append(
            Sheet(
                stage.stage,
                key[at],
                sorts(phases(stage), rows.instruction[at], kind=rows.kind[at]),
                _indexed(texts, names),
                np.array([*known, -1])[rows.queue[at]],
                rows.sent_bytes[at],
            )
        )
    return Book(tuple(sheets), tuple(names), tuple(queues))


def stage_of(program: Program, line: Timeline) -> Ints:
    """Give of each player of a timeline the stage."""
    return np.array([program.of(ranks[0]).stage for ranks in line.alike], dtype=np.int64)


def bounds(line: Timeline) -> Ints:
    """Give where the rows of each player begin, and one past the last."""
    return np.searchsorted(line.player, np.arange(len(line.alike) + 1))


def phases(stage: StageProgram) -> Ints:
    """Give of each instruction of a stage what its device does, as an index into `SORTS`."""
    named = [x.phase if isinstance(x, Compute) else "update" for x in stage.instructions]
    return np.array([SORTS.index(name) for name in named])


def sorts(device: Ints, instruction: Ints, *, kind: Ints) -> Ints:
    """Give of rows of a stage what they are, as an index into `SORTS`.

    Args:
        device: The stage's `phases`.
        instruction: Of each row.
        kind: Of each row.
    """
    found: Ints = np.where(
        (kind == KINDS.index("device")) & (instruction >= 0), device[instruction], _PLAIN[kind]
    )
    return found


def places(line: Timeline, sheet: Sheet, *, rows: slice) -> tuple[Ints, Ints]:
    """Give the rows of a player that take time, and where each stands in its stage's sheet.

    Args:
        line: The timeline.
        sheet: Of the player's stage.
        rows: Those of the player.

    Returns:
        Rows of the timeline; their places in the sheet, -1 for what no instruction does.
    """
    at = np.arange(rows.start, rows.stop)
    at = at[np.argsort(line.instruction[at], kind="stable")]
    own = _keys(line.instruction[at])
    order = np.argsort(sheet.key, kind="stable")
    near = np.minimum(np.searchsorted(sheet.key[order], own), len(order) - 1)
    place = np.where(sheet.key[order[near]] == own, order[near], -1)
    timed = line.kind[at] > 0
    return at[timed], place[timed]


def _keys(instruction: Ints) -> Ints:
    """Give keys of rows in the order of instructions: the nth of one is its nth message."""
    first = np.searchsorted(instruction, instruction)
    keys: Ints = instruction * _MESSAGES + np.arange(len(instruction)) - first
    return keys


def _indexed(texts: Iterable[str], known: dict[str, int]) -> Ints:
    """Give each text's number, the same for the same."""
    return np.array([known.setdefault(text, len(known)) for text in texts], dtype=np.int64)
