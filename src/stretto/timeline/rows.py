"""The rows that the list of a stage has on a clock: one for an instruction, or for each message."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from stretto.cost.instruction import messages
from stretto.mesh import Mesh
from stretto.program.instruction import (
    Buffer,
    Compute,
    Free,
    Instruction,
    Move,
    Program,
    Recv,
    Role,
    Send,
    StageProgram,
    Update,
    Vote,
)
from stretto.timeline.value import KINDS, Ints


@dataclass(frozen=True, slots=True)
class Queue:
    """Messages of a rank between the same ranks, which keep their order.

    Attributes:
        way: Among a group of ranks, to or from a neighbour along ``pp``, or among all.
        axes: Of the group.
        by: How far the neighbour is.
    """

    way: Literal["group", "to", "from", "all"]
    axes: tuple[str, ...] = ()
    by: int = 0

    @property
    def name(self) -> str:
        """What people call it."""
        match self.way:
            case "group":
                return "·".join(self.axes)
            case "to" | "from":
                return f"{self.way} {'next' if self.by > 0 else 'previous'}"
            case "all":
                return "all"

    def ends(self, mesh: Mesh, rank: int) -> Hashable:
        """Give what the queues of several ranks have in common if they are one."""
        match self.way:
            case "group":
                return frozenset(mesh.group(rank, self.axes))
            case "to":
                return rank, mesh.shift(rank, "pp", by=self.by)
            case "from":
                return mesh.shift(rank, "pp", by=self.by), rank
            case "all":
                return "all"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of a stage, in the order of its list and of messages.

    Attributes:
        instruction: Of each row the index of its instruction.
        kind: An index into `KINDS`.
        queue: An index into `queues`; -1 for what is no message.
        sent_bytes: What a rank sends in it.
        queues: The queues.
    """

    instruction: Ints
    kind: Ints
    queue: Ints
    sent_bytes: Ints
    queues: tuple[Queue, ...]


def rows(program: Program, stage: StageProgram) -> Rows:
    """Give the rows of a stage."""
    mesh = program.placement.mesh
    rank = mesh.rank({"pp": stage.stage})
    known: dict[Hashable, Queue] = {}  # axes that make the same groups have one queue
    ends = cache(lambda queue: (queue.way, queue.by, queue.ends(mesh, rank)))
    told: dict[Hashable, list[tuple[tuple[str, ...], int]]] = {}  # micro-batches are alike
    found: list[tuple[int, int, Queue | None, int]] = []
    for i, instruction in enumerate(stage.instructions):
        what = kind(instruction, stage)
        key = _decides(instruction, stage)
        if key not in told:
            told[key] = [(m.axes, m.sent_bytes) for m in messages(instruction, stage, program)]
        for axes, size in told[key] or [((), 0)]:
            queue = _queue(instruction, axes) if KINDS[what] not in ("none", "device") else None
            if queue is not None:
                queue = known.setdefault(ends(queue), queue)
            found.append((i, what, queue, size))
    queues = tuple(known.values())
    at = [-1 if queue is None else queues.index(queue) for _, _, queue, _ in found]
    columns = [np.array([row[c] for row in found], dtype=np.int64) for c in (0, 1, 3)]
    return Rows(columns[0], columns[1], np.array(at, dtype=np.int64), columns[2], queues)


def _decides(instruction: Instruction, stage: StageProgram) -> Hashable:
    """Give what the messages of an instruction depend on."""

    def of(name: Buffer) -> Hashable:
        spec = stage.buffers[name]
        return id(spec.layout), spec.role, spec.shape, spec.dtype

    # the program keeps its parts, so that `id` is as good as they are and far quicker
    match instruction:
        case Move(legs=legs):
            return tuple([(id(leg.steps), of(leg.source), of(leg.target)) for leg in legs])
        case Send(buffers=buffers):
            return tuple([of(name) for name in buffers])
        case _:
            return type(instruction).__name__


def kind(instruction: Instruction, stage: StageProgram) -> int:
    """Give the index of the kind of what an instruction does."""
    match instruction:
        case Compute() | Update():
            return KINDS.index("device")
        case Send() | Recv():
            return KINDS.index("pipeline")
        case Vote():
            return KINDS.index("vote")
        case Free():
            return KINDS.index("none")
        case Move(legs=legs):
            if not any(step.communicates for step in legs[0].steps):
                return KINDS.index("none")
            match stage.buffers[legs[0].target].role:
                case Role.WORKING | Role.PARAMETER:
                    return KINDS.index("parameter")
                case Role.GRADIENT:
                    return KINDS.index("gradient")
                case _:
                    return KINDS.index("activation")


def after_vote(stage: StageProgram) -> int:
    """Give the index of the first instruction of a step from vote to vote."""
    votes = [i for i, x in enumerate(stage.instructions) if isinstance(x, Vote)]
    return votes[-1] + 1 if votes else 0


def _queue(instruction: Instruction, axes: tuple[str, ...]) -> Queue:
    match instruction:
        case Send(by=by):
            return Queue("to", by=by)
        case Recv(by=by):
            return Queue("from", by=by)
        case Vote():
            return Queue("all")
        case _:
            return Queue("group", axes)
