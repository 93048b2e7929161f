"""When each instruction of a rank ran, written down for the steps that are chosen.

A step goes from the end of a vote to the end of the next. While none is recorded, the actions of
the executor are called as they are. While one is, each is called between two looks at the clock,
and works of messages are wrapped, so that their ends are seen by whoever waits for them.

On an accelerator a look at the clock is an event on the stream: nobody waits for the device. The
vote does, at which the step ends, so that every event has come by then.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch.distributed as dist
from torch import Tensor

from stretto.errors import Problem
from stretto.layout import Kind, Step
from stretto.program.instruction import Instruction, Recv, Send
from stretto.runtime.collective import Group, Message, issue
from stretto.runtime.gauge import Counts, Mark, gauge, machine
from stretto.runtime.rank import Rank
from stretto.runtime.world import World
from stretto.timeline.recorded import Counters, Track, forget, thin, write
from stretto.timeline.rows import kind as kind_of
from stretto.timeline.value import KINDS

Action = Callable[[], None]
Parts = tuple[tuple[Action, ...], ...]
"""What a rank does up to its vote, and after it."""

HOST, DATA = KINDS.index("host"), KINDS.index("data")

WARM = 3
"""The first step after a start that is recorded: those before it allocate and compile."""


@dataclass(slots=True)
class _Row:
    """An instruction, or a message of one, while the step goes on; see `Track`."""

    instruction: int
    kind: int
    start: Mark
    asked: Mark = None
    stop: Mark = None
    done: Mark = None
    memory_bytes: int = 0


@dataclass(slots=True)
class _Draft:
    """A step while it is recorded.

    Attributes:
        step: Steps done with it.
        zero: The end of the vote before, on the gauge's clock.
        zero_s: The same on the machine's clock.
        resting_bytes: What was held then.
        counts: What had been counted by then.
        rows: What was done.
        left: When the executor had done the rest of the step before; None if not yet.
        came: When the micro-batches were there; None if not yet.
        done: How many rows there were then.
        waited_s: Seconds of waiting for them.
        waited: When the wait for a message ended last.
    """

    step: int
    zero: Mark
    zero_s: float
    resting_bytes: int
    counts: Counts
    rows: list[_Row] = field(default_factory=list)
    left: Mark = None
    came: Mark = None
    done: int = 0
    waited_s: float = 0.0
    waited: Mark = None


def recorder(
    rank: Rank,
    world: World,
    directory: Path | None,
    *,
    every: int,
    first: int,
    note: Callable[[Problem], None],
) -> Recorder | None:
    """Give what records a run that has done `first` steps; None if nothing does; see `Recorder`.

    What is recorded of later steps is removed: they will come again.
    """
    if directory is None or every == 0:
        return None
    found = Recorder(rank, world, directory=directory, every=every, first=first, note=note)
    if world.local_rank == 0:
        try:
            forget(directory, after=first)
        except OSError as error:
            found.refuse(first, error)
    return found


class Recorder:
    """Records the steps of a rank that are chosen, and writes them."""

    def __init__(
        self,
        rank: Rank,
        world: World,
        *,
        directory: Path,
        every: int,
        first: int,
        note: Callable[[Problem], None],
    ) -> None:
        """Begin with nothing recorded.

        Args:
            rank: Whose steps.
            world: The rank among others.
            directory: That of the run.
            every: Steps between two that are recorded, 1 or more.
            first: Steps done at the start; the third after it is recorded too.
            note: Told once if the disk refuses.
        """
        self.rank, self.world, self.directory = rank, world, directory
        self.every, self.first, self.note = every, first, note
        self.gauge = gauge(rank.device)
        self.draft: _Draft | None = None
        self.ready: tuple[_Draft, Counts] | None = None
        self.refused = False
        self._plain: Parts = ()
        self._watched: Parts = ()
        self._at = self._kind = 0  # of the move that is being issued

    def due(self, step: int) -> bool:
        """Say whether the step with which so many are done is recorded."""
        return step % self.every == 0 or step == self.first + WARM

    def actions(self, plain: Parts) -> Parts:
        """Give what to call instead of actions: themselves, unless the step is recorded."""
        if self.draft is None:
            return plain
        if self._plain is not plain:
            instructions = iter(enumerate(self.rank.stage.instructions))
            self._watched = tuple(
                tuple(self._watch(action, *next(instructions)) for action in part) for part in plain
            )
            self._plain = plain
        return self._watched

    # ── from vote to vote ────────────────────────────────────────────────────────────────────────

    def voted(self, step: int) -> None:
        """End the recording of a step, and begin that of the next, if they are chosen.

        Args:
            step: Steps done.
        """
        due = self.due(step + 1)
        if self.draft is None and not due:
            return
        now, counts = self.gauge.now(), self.gauge.counts()
        if self.draft is not None:
            self.ready = self.draft, counts
        machine_s, held = time.perf_counter(), self.gauge.held_bytes()
        self.draft = _Draft(step + 1, now, machine_s, held, counts) if due else None
        self.rank.issue = self._issue if due else issue

    def left(self) -> None:
        """Take note that the executor is done with a step; write what is ready."""
        if self.draft is not None:
            self.draft.left = self.gauge.now()
        if self.ready is not None:
            (draft, counts), self.ready = self.ready, None
            try:
                write(self.directory, self._track(draft, counts))
                if self.world.local_rank == 0:
                    thin(self.directory, every=self.every)
            except OSError as error:
                self.refuse(draft.step, error)

    def came(self, waited_s: float) -> None:
        """Take note that the micro-batches of a step are there.

        Args:
            waited_s: Seconds of waiting for them.
        """
        if self.draft is not None:
            self.draft.came, self.draft.waited_s = self.gauge.now(), waited_s
            self.draft.done = len(self.draft.rows)

    def refuse(self, step: int, error: OSError) -> None:
        """Tell, once, that the disk refuses."""
        if not self.refused:
            self.refused = True
            rule = f"step {step} could not be recorded: {error.strerror or error}"
            self.note(Problem(str(self.directory), rule, "make room; training goes on meanwhile"))

    def _track(self, draft: _Draft, counts: Counts) -> Track:
        """Give what was recorded, in seconds."""
        rows, gauge = draft.rows, self.gauge
        start, asked, stop, ended = (
            np.array([gauge.seconds(draft.zero, getattr(row, name)) for row in rows])
            for name in ("start", "asked", "stop", "done")
        )
        own = np.array(self._between(draft), dtype=np.float64).reshape(-1, 3)
        none, done = np.full(len(own), math.nan), [draft.done] * len(own)
        memory = [draft.resting_bytes, *(row.memory_bytes for row in rows)][draft.done]
        counters = Counters(
            self.world.rank,
            socket.gethostname(),
            **counts.since(draft.counts),
            data_s=float((own[:, 2] - own[:, 1])[own[:, 0] == DATA].sum()),
            host_s=float((own[:, 2] - own[:, 1])[own[:, 0] == HOST].sum()),
        )
        return Track(
            draft.step,
            self.world.size,
            self.rank.program.plan.to_toml(),
            machine(),
            draft.zero_s,
            counters,
            draft.resting_bytes,
            np.insert(np.array([row.instruction for row in rows]), done, -1),
            np.insert(np.array([row.kind for row in rows]), done, own[:, 0].astype(np.int64)),
            np.insert(start, done, own[:, 1]),
            np.insert(asked, done, none),
            np.insert(np.fmin(stop, ended), done, own[:, 2]),
            np.insert(np.array([row.memory_bytes for row in rows]), done, memory),
        )

    def _between(self, draft: _Draft) -> list[tuple[int, float, float]]:
        """Give kind, begin and end of what was done between two steps, and of the wait for data."""
        if draft.left is None or draft.came is None:
            return []
        left, came = (self.gauge.seconds(draft.zero, mark) for mark in (draft.left, draft.came))
        came = max(left, came)
        begun = max(left, came - draft.waited_s)
        return [(HOST, left, begun), (DATA, begun, came)]

    # ── instructions and messages ────────────────────────────────────────────────────────────────

    def _watch(self, action: Action, index: int, instruction: Instruction) -> Action:
        """Give an action with a look at the clock before and after it."""
        what = kind_of(instruction, self.rank.stage)
        messages = KINDS[what] not in ("none", "device", "vote")
        now, held_bytes = self.gauge.now, self.gauge.held_bytes

        def alone() -> None:
            draft = cast(_Draft, self.draft)
            draft.waited, start = None, now()
            action()
            stop = now()
            begun = start if draft.waited is None else draft.waited
            draft.rows.append(_Row(index, what, begun, None, stop, None, held_bytes()))

        def message() -> None:
            draft = cast(_Draft, self.draft)
            self._at, self._kind, before = index, what, len(draft.rows)
            draft.waited, start = None, now()
            action()
            if isinstance(instruction, Send | Recv):
                row = _Row(index, what, start if draft.waited is None else draft.waited)
                draft.rows.append(row)
                self._wrap(instruction, row)
            memory = held_bytes()
            for row in draft.rows[before:]:
                row.memory_bytes = memory

        return message if messages else alone

    def _wrap(self, instruction: Send | Recv, row: _Row) -> None:
        """Wrap what a send or a receive has put under way."""
        if isinstance(instruction, Recv):
            works = self.rank.pending[instruction.buffers[0]].message.works
            works[:] = self._seen(works, row)
        else:
            sends = self.rank.sends
            fresh = min(len(instruction.buffers), len(sends))
            for i in range(len(sends) - fresh, len(sends)):
                (work,) = self._seen([sends[i][0]], row)
                sends[i] = work, sends[i][1]

    def _issue(
        self,
        kind: Kind,
        tensors: Sequence[Tensor],
        steps: Sequence[Step],
        *,
        group: Group,
        consumed: bool,
    ) -> Message:
        """Begin a step of a move as `collective.issue` does, with a row of its own."""
        draft = self.draft
        if draft is None or not steps[0].communicates:
            return issue(kind, tensors, steps, group=group, consumed=consumed)
        row = _Row(self._at, self._kind, self.gauge.now())
        draft.rows.append(row)
        message = issue(kind, tensors, steps, group=group, consumed=consumed)
        return Message(self._seen(message.works, row), message.unpack)

    def _seen(self, works: Sequence[dist.Work], row: _Row) -> list[dist.Work]:
        """Wrap the works of a message."""
        return [cast(dist.Work, _Watched(work, row, self)) for work in works]


class _Watched:
    """A work of a message, whose end is seen."""

    __slots__ = ("_recorder", "_row", "_work")

    def __init__(self, work: dist.Work, row: _Row, recorder: Recorder) -> None:
        self._work, self._row, self._recorder = work, row, recorder
        # Where there is a future, it tells of the end even if nobody waits. A rank's own messages
        # to another on gloo have none.
        with contextlib.suppress(RuntimeError):
            work.get_future().add_done_callback(self._done)

    def _done(self, _: object) -> None:
        """Take note of the end; on an accelerator this runs on a stream that waits for it."""
        self._row.done = self._recorder.gauge.now()

    def wait(self) -> bool:
        """Wait, and take note of when."""
        row, recorder = self._row, self._recorder
        if row.asked is None:
            row.asked = recorder.gauge.now()
        found = self._work.wait()
        row.stop = recorder.gauge.now()
        if recorder.draft is not None:
            recorder.draft.waited = row.stop
        return found
