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

from stretto.cost.instruction import Message, messages
from stretto.layout import Layout
from stretto.program.instruction import (
    Buffer,
    Compute,
    Free,
    Instruction,
    Leg,
    Move,
    Named,
    Program,
    Recv,
    Send,
    StageProgram,
    Update,
    Vote,
)
from stretto.timeline.rows import Queue, after_vote

Work = Compute | Update | Message | None
"""What a task does; None for a receive, which is priced as its send."""

DEVICE = -1
"""The lane of what runs on the device."""

Lane = Queue
"""A queue of messages, which keep their order."""


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
        self.tail: dict[int, int] = {}  # of each lane the message that was issued last
        self.met: set[int] = set()  # messages that the device has waited for
        self.arriving: dict[Buffer, tuple[int, ...]] = {}
        self.known: dict[Hashable, int] = {}
        self.lanes: dict[Hashable, int] = {}
        self.routes: dict[Hashable, tuple[tuple[int, int], ...]] = {}
        self.layouts: dict[Layout, int] = {}
        self.layout_of: dict[int, int] = {}

    def take(self, index: int, instruction: Instruction) -> None:
        """Write the tasks of one instruction."""
        match instruction:
            case Free():
                self.tasks.idle.append((index, self.last))
            case Compute():
                key = id(instruction.phase), instruction.block, instruction.segments
                self._compute(index, key, instruction)
            case Move():
                self._move(index, instruction)
            case Send():
                self._send(index, instruction)
            case Recv(by=by):
                work, lane = self._known(None, None), self._lane(Lane("from", by=by))
                task = self._task(index, work, lane, self._coming(instruction.input))
                self.arriving |= dict.fromkeys(instruction.output, (task,))
            case Vote():
                (message,) = messages(instruction, self.stage, self.program)
                work, lane = self._known(message, message), self._lane(Lane("all"))
                self.last = self._task(index, work, lane, self._coming(tuple(self.arriving)))
            case Update():
                self._compute(index, index, instruction)

    def _compute(self, index: int, key: Hashable, instruction: Compute | Update) -> None:
        work, arriving, coming = self._known(key, instruction), self.arriving, tuple[int, ...]()
        if arriving:
            for pairs in _read(instruction):
                for _, name in pairs:
                    if name in arriving:
                        coming = _with(coming, arriving.pop(name))
        self.last = self._task(index, work, DEVICE, coming)

    def _move(self, index: int, move: Move) -> None:
        """Write a task for each message of a move; without any, readers wait for what it reads."""
        arriving, coming = self.arriving, tuple[int, ...]()
        key = tuple([self._leg(leg) for leg in move.legs])
        route = self.routes.get(key)
        if route is None:
            route = self.routes[key] = tuple(
                (self._known(m, m), self._lane(Lane("group", m.axes)))
                for m in messages(move, self.stage, self.program)
            )
        if arriving:
            for leg in move.legs:
                coming = _with(coming, arriving.get(leg.source, ()))
            for _, name in move.adds:
                coming = _with(coming, arriving.get(name, ()))
        for work, lane in route:
            coming = (self._task(index, work, lane, coming),)
        if not route:
            self.tasks.idle.append((index, self.last))
        if coming:
            for leg in move.legs:
                arriving[leg.target] = coming

    def _send(self, index: int, send: Send) -> None:
        key = send.by, tuple([self._spec(name) for name in send.buffers])
        if key not in self.routes:
            (message,) = messages(send, self.stage, self.program)
            lane = self._lane(Lane("to", by=send.by))
            self.routes[key] = ((self._known(message, message), lane),)
        ((work, lane),) = self.routes[key]
        self._task(index, work, lane, self._coming(send.buffers))

    def _leg(self, leg: Leg) -> Hashable:
        """Give what the messages of a leg depend on."""
        # The program keeps its parts, so that `id` is as good as they are and far quicker.
        return id(leg.steps), self._spec(leg.source), self._spec(leg.target)

    def _spec(self, name: Buffer) -> Hashable:
        """Give what the messages of a buffer depend on."""
        spec = self.stage.buffers[name]
        layout = self.layout_of.get(id(spec.layout))
        if layout is None:
            layout = self.layouts.setdefault(spec.layout, len(self.layouts))
            self.layout_of[id(spec.layout)] = layout
        return layout, id(spec.role), spec.shape, spec.dtype

    def _task(self, index: int, work: int, lane: int, coming: tuple[int, ...]) -> int:
        """Write a task and what it waits for, but for what that has waited for before."""
        out, task = self.tasks, len(self.tasks.instruction)
        out.instruction.append(index)
        out.work.append(work)
        out.lane.append(lane)
        if lane != DEVICE:
            ahead = self.tail.get(lane, -1)
            self.tail[lane] = task
            if ahead >= 0 and ahead not in self.met and ahead not in coming:
                coming = (ahead, *coming)
        if lane == DEVICE or out.lanes[lane].way == "all":
            self.met.update(coming)
        if self.last >= 0 and (not coming or max(coming) < self.last):
            out.before.append(self.last)
            out.after.append(task)
        for other in coming:
            out.before.append(other)
            out.after.append(task)
        return task

    def _coming(self, names: tuple[Buffer, ...]) -> tuple[int, ...]:
        """Give the messages that bring any of `names`."""
        found: tuple[int, ...] = ()
        for name in names:
            found = _with(found, self.arriving.get(name, ()))
        return found

    def _known(self, key: Hashable, work: Work) -> int:
        """Give the index of what is done, the same for the same."""
        if key not in self.known:
            self.known[key] = len(self.tasks.works)
            self.tasks.works.append(work)
        return self.known[key]

    def _lane(self, lane: Lane) -> int:
        """Give the index of a queue; axes that make the same groups have the same."""
        if lane not in self.lanes:
            key = lane.ends(self.mesh, self.rank)
            if key not in self.lanes:
                self.lanes[key] = len(self.tasks.lanes)
                self.tasks.lanes.append(lane)
            self.lanes[lane] = self.lanes[key]
        return self.lanes[lane]


def _read(instruction: Compute | Update) -> tuple[Named, ...]:
    """Give (what for, buffer) of all that may still be on its way to an instruction."""
    match instruction:
        case Compute(values=values, parameters=parameters, adds=adds):
            return values, parameters, adds
        case Update():
            return (tuple(("", name) for name in instruction.input),)


def _with(some: tuple[int, ...], more: tuple[int, ...]) -> tuple[int, ...]:
    """Give tasks and others, each once."""
    if not some or some == more:
        return more or some
    return (*some, *(task for task in more if task not in some))
