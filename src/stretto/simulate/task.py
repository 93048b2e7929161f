"""The list of a stage as tasks: what keeps the device or links busy, and what each waits for.

A rank takes its list in order. A compute, an update and a vote wait for every message that brings
what they read. A message is issued where it stands: once the device has done all that stands before
it. Then it waits for the messages that bring what it carries, and for those issued before it to the
same ranks, for messages between the same ranks keep their order.

A step is played from one vote to the next, for at a vote nothing is under way: first the updates
that the one allows, and last the other. So a message that brings new weights can overlap with the
forward pass that follows it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

from stretto.cost.instruction import Message, messages
from stretto.program.instruction import (
    Buffer,
    Compute,
    Free,
    Instruction,
    Move,
    Program,
    Recv,
    Send,
    StageProgram,
    Update,
    Vote,
)

Work = Compute | Update | Message | None
"""What a task does; None for a receive, which is priced as its send."""

DEVICE = -1
"""The lane of what runs on the device."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A queue of messages, which keep their order.

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


@dataclass(slots=True)
class Tasks:
    """The tasks of a stage, in the order of a step from vote to vote.

    Attributes:
        stage: The stage.
        instruction: Of each task the index of its instruction in the stage's list.
        work: Of each task an index into `works`.
        lane: Of each task an index into `lanes`, or `DEVICE`.
        before: Of each edge the task that must be done first.
        after: Of each edge the task that waits.
        works: What is done; each distinct one once.
        lanes: The queues.
        idle: Instructions that take no time, each with the device's last task before it, or -1.
    """

    stage: StageProgram
    instruction: list[int] = field(default_factory=list)
    work: list[int] = field(default_factory=list)
    lane: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    idle: list[tuple[int, int]] = field(default_factory=list)


def after_vote(stage: StageProgram) -> int:
    """Give the index of the first instruction of a step from vote to vote."""
    votes = [i for i, x in enumerate(stage.instructions) if isinstance(x, Vote)]
    return votes[-1] + 1 if votes else 0


def tasks(program: Program, stage: StageProgram) -> Tasks:
    """Give the tasks of a stage."""
    writer = _Writer(program, stage)
    first, count = after_vote(stage), len(stage.instructions)
    for i in (*range(first, count), *range(first)):
        writer.take(i, stage.instructions[i])
    return writer.tasks


class _Writer:
    """Tasks while they are being written."""

    def __init__(self, program: Program, stage: StageProgram) -> None:
        self.program, self.stage, self.tasks = program, stage, Tasks(stage)
        self.mesh = program.placement.mesh
        self.rank = self.mesh.rank({"pp": stage.stage})
        self.last = -1  # the device's last task
        self.arriving: dict[Buffer, tuple[int, ...]] = {}
        self.known: dict[Hashable, int] = {}
        self.lanes: dict[Hashable, int] = {}
        self.routes: dict[Hashable, tuple[tuple[int, int], ...]] = {}

    def take(self, index: int, instruction: Instruction) -> None:
        """Write the tasks of one instruction."""
        match instruction:
            case Free():
                self.tasks.idle.append((index, self.last))
            case Compute(phase=phase, block=block, segments=segments):
                self._compute(index, (phase, block, segments), instruction)
            case Update():
                self._compute(index, index, instruction)
            case Move():
                self._move(index, instruction)
            case Send(by=by):
                (message,) = messages(instruction, self.stage, self.program)
                work, lane = self._known(message, message), self._lane(Lane("to", by=by))
                self._task(index, work, lane, self._coming(instruction.input))
            case Recv(by=by):
                work, lane = self._known(None, None), self._lane(Lane("from", by=by))
                task = self._task(index, work, lane, self._coming(instruction.input))
                self.arriving |= dict.fromkeys(instruction.output, (task,))
            case Vote():
                (message,) = messages(instruction, self.stage, self.program)
                work, lane = self._known(message, message), self._lane(Lane("all"))
                self.last = self._task(index, work, lane, self._coming(tuple(self.arriving)))

    def _compute(self, index: int, key: Hashable, instruction: Compute | Update) -> None:
        names = instruction.input
        work = self._known(key, instruction)
        self.last = self._task(index, work, DEVICE, self._coming(names))
        if self.arriving:
            for name in names:
                self.arriving.pop(name, None)

    def _move(self, index: int, move: Move) -> None:
        """Write a task for each message of a move; without any, readers wait for what it reads."""
        specs = self.stage.buffers
        key = tuple((leg.steps, specs[leg.source], specs[leg.target]) for leg in move.legs)
        if key not in self.routes:
            self.routes[key] = tuple(
                (self._known(m, m), self._lane(Lane("group", m.axes)))
                for m in messages(move, self.stage, self.program)
            )
        coming = self._coming(move.input)
        for work, lane in self.routes[key]:
            coming = (self._task(index, work, lane, coming),)
        if not self.routes[key]:
            self.tasks.idle.append((index, self.last))
        if coming:
            self.arriving |= dict.fromkeys(move.output, coming)

    def _task(self, index: int, work: int, lane: int, coming: tuple[int, ...]) -> int:
        out, task = self.tasks, len(self.tasks.instruction)
        out.instruction.append(index)
        out.work.append(work)
        out.lane.append(lane)
        if self.last >= 0:
            coming = (self.last, *coming)
        out.before.extend(coming)
        out.after.extend([task] * len(coming))
        return task

    def _coming(self, names: tuple[Buffer, ...]) -> tuple[int, ...]:
        """Give the messages that bring any of `names`."""
        if not self.arriving:
            return ()
        return tuple({t: None for n in names for t in self.arriving.get(n, ())})

    def _known(self, key: Hashable, work: Work) -> int:
        """Give the index of what is done, the same for the same."""
        if key not in self.known:
            self.known[key] = len(self.tasks.works)
            self.tasks.works.append(work)
        return self.known[key]

    def _lane(self, lane: Lane) -> int:
        """Give the index of a queue; axes that make the same groups have the same."""
        if lane not in self.lanes:
            group = lane.way == "group"
            key = frozenset(self.mesh.group(self.rank, lane.axes)) if group else lane
            if key not in self.lanes:
                self.lanes[key] = len(self.tasks.lanes)
                self.tasks.lanes.append(lane)
            self.lanes[lane] = self.lanes[key]
        return self.lanes[lane]
