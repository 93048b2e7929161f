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

import itertools
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from stretto.cost.instruction import Message, messages
from stretto.program.instruction import (
    Buffer,
    Compute,
    Free,
    Instruction,
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
from stretto.timeline.value import Ints

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
    before: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    after: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    works: list[Work] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    idle: Ints = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))


def tasks(program: Program, stage: StageProgram) -> Tasks:
    """Give the tasks of a stage."""
    writer, listed = _Writer(program, stage), stage.instructions
    first, free = after_vote(stage), [type(x) is Free for x in listed]
    for i in (*range(first, len(listed)), *range(first)):
        if not free[i]:
            writer.take(i, listed[i])
    return writer.finish(first, list(itertools.compress(range(len(listed)), free)))


class _Writer:
    """Tasks while they are being written: first what brings what, then what else they wait for."""

    def __init__(self, program: Program, stage: StageProgram) -> None:
        self.program, self.stage, self.tasks = program, stage, Tasks(stage)
        self.mesh = program.placement.mesh
        self.rank = self.mesh.rank({"pp": stage.stage})
        self.before: list[int] = []
        self.after: list[int] = []
        self.idle: list[int] = []
        self.arriving: dict[Buffer, tuple[int, ...]] = {}
        self.known: dict[Hashable, int] = {}
        self.lanes: dict[Hashable, int] = {}
        self.specs: dict[Hashable, int] = {}
        self.spec_of: dict[int, int] = {}
        self.routes: dict[Hashable, tuple[tuple[int, int], ...]] = {}

    def take(self, index: int, instruction: Instruction) -> None:
        """Write the tasks of one instruction."""
        match instruction:
            case Compute(values=values, parameters=parameters, adds=adds):
                key = id(instruction.phase), instruction.block, instruction.segments
                work = self.known.get(key, -1)
                if work < 0:
                    work = self._known(key, instruction)
                self._compute(index, work, values, parameters, adds)
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
                self._task(index, work, lane, self._coming(tuple(self.arriving)))
            case Update():
                named = tuple(("", name) for name in instruction.input)
                self._compute(index, self._known(index, instruction), named)
            case Free():
                raise AssertionError("what is freed is no task")

    def _compute(self, index: int, work: int, *named: Named) -> None:
        """Write a task that waits for all that is still on its way to it, by (what for, buffer)."""
        arriving, coming = self.arriving, tuple[int, ...]()
        for pairs in named:
            for _, name in pairs:
                if name in arriving:
                    coming = _with(coming, arriving.pop(name))
        self._task(index, work, DEVICE, coming)

    def _move(self, index: int, move: Move) -> None:
        """Write a task for each message of a move; without any, readers wait for what it reads."""
        arriving, legs, coming = self.arriving, move.legs, tuple[int, ...]()
        # The program keeps its parts, so that `id` is as good as they are and far quicker.
        key = tuple([(id(x.steps), self._spec(x.source), self._spec(x.target)) for x in legs])
        route = self.routes.get(key)
        if route is None:
            route = self.routes[key] = tuple(
                (self._known(m, m), self._lane(Lane("group", m.axes)))
                for m in messages(move, self.stage, self.program)
            )
        for leg in legs:
            if leg.source in arriving:
                coming = _with(coming, arriving[leg.source])
        for _, name in move.adds:
            if name in arriving:
                coming = _with(coming, arriving[name])
        for work, lane in route:
            coming = (self._task(index, work, lane, coming),)
        if not route:
            self.idle.append(index)
        if coming:
            for leg in legs:
                arriving[leg.target] = coming

    def _send(self, index: int, send: Send) -> None:
        key = send.by, tuple([self._spec(name) for name in send.buffers])
        if key not in self.routes:
            (message,) = messages(send, self.stage, self.program)
            lane = self._lane(Lane("to", by=send.by))
            self.routes[key] = ((self._known(message, message), lane),)
        ((work, lane),) = self.routes[key]
        self._task(index, work, lane, self._coming(send.buffers))

    def _spec(self, name: Buffer) -> int:
        """Give a number to what the messages of a buffer depend on."""
        spec = self.stage.buffers[name]
        number = self.spec_of.get(id(spec), -1)
        if number < 0:
            what = spec.layout, spec.role, spec.shape, spec.dtype
            number = self.spec_of[id(spec)] = self.specs.setdefault(what, len(self.specs))
        return number

    def _task(self, index: int, work: int, lane: int, coming: tuple[int, ...]) -> int:
        """Write a task and the messages that bring what it reads."""
        out = self.tasks
        task = len(out.lane)
        out.instruction.append(index)
        out.work.append(work)
        out.lane.append(lane)
        for message in coming:
            self.before.append(message)
            self.after.append(task)
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

    def finish(self, first: int, free: list[int]) -> Tasks:
        """Let each task wait for the device, and for the message before it in its queue.

        But not for what something that it waits for, or the device, has waited for already.

        Args:
            first: The first instruction of a step from vote to vote.
            free: Those that free buffers.
        """
        out, count = self.tasks, len(self.tasks.lane)
        lane, each = np.array(out.lane, dtype=np.int64), np.arange(count)
        before, after = (np.array(side, dtype=np.int64) for side in (self.before, self.after))
        waits = lane == DEVICE
        for i, queue in enumerate(out.lanes):
            if queue.way == "all":
                waits |= lane == i
        heads = np.flatnonzero(waits)
        last = np.append(-1, heads)[np.searchsorted(heads, each)]
        met = np.full(count, count)
        np.minimum.at(met, before[waits[after]], after[waits[after]])
        ahead = _ahead(lane)
        ahead[after[before == ahead[after]]] = -1
        ahead[met[ahead] < each] = -1
        latest = ahead.copy()
        np.maximum.at(latest, after, before)
        last[latest >= last] = -1
        rows = [(last[last >= 0], each[last >= 0]), (ahead[ahead >= 0], each[ahead >= 0])]
        before, after = (np.concatenate(side) for side in zip(*rows, (before, after), strict=True))
        order = np.argsort(after, kind="stable")
        out.before, out.after = before[order], after[order]
        turn = (np.array(out.instruction, dtype=np.int64)[heads] - first) % len(
            self.stage.instructions
        )
        idle = np.array([*free, *self.idle], dtype=np.int64)
        at = np.searchsorted(turn, (idle - first) % len(self.stage.instructions))
        out.idle = np.stack([idle, np.append(-1, heads)[at]], axis=1)
        return out


def _ahead(lane: Ints) -> Ints:
    """Give for each message the one before it in its queue; -1 for none, and for no message."""
    order = np.argsort(lane, kind="stable")
    found = np.full(len(lane), -1)
    same = (lane[order][1:] == lane[order][:-1]) & (lane[order][1:] != DEVICE)
    found[order[1:][same]] = order[:-1][same]
    return found


def _with(some: tuple[int, ...], more: tuple[int, ...]) -> tuple[int, ...]:
    """Give tasks and others, each once."""
    if not some or some == more:
        return more or some
    return (*some, *(task for task in more if task not in some))
