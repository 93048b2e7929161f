"""What a page is about."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path

from stretto.cluster import Cluster
from stretto.cost import Estimate, Stack
from stretto.model import Model
from stretto.page.metrics import Metrics
from stretto.page.step_read import recording, written
from stretto.page.step_rows import Book, book, stage_of
from stretto.plan import Plan
from stretto.program.instruction import Program
from stretto.timeline import Timeline
from stretto.timeline.memory import MemoryCurve, curve
from stretto.timeline.recorded import Recording


@dataclass(frozen=True)
class Subject:
    """A plan on a cluster, or a run of one: all that the sections of a page read.

    Attributes:
        title: What it is called: the run's name, or the plan's.
        model: What is trained.
        plan: How.
        cluster: Where; of a run, where it ran as far as anybody said.
        stack: With which software it is priced.
        estimate: What a step takes, in closed form.
        words: (what, in words) of the model, the plan, the cluster, the software.
        program: What every rank does; None where the plan's program cannot be made yet.
        predicted: A step on a clock; None without a program.
        notes: What to know of the prediction: what was assumed, and why a part of it is missing.
        run: The directory of the run; None for a plan.
        steps: Steps of the whole run; 0 where nobody said.
        metrics: What the run said after every step; None for a plan.
        others: Other runs, by name, that it may be compared with.
        beside: Names of those that are drawn beside it from the start.
        rivals: What is known of these as of this run itself, as far as they could be priced.
    """

    title: str
    model: Model
    plan: Plan
    cluster: Cluster
    stack: Stack
    estimate: Estimate
    words: tuple[tuple[str, str], ...] = ()
    program: Program | None = None
    predicted: Timeline | None = None
    notes: tuple[str, ...] = ()
    run: Path | None = None
    steps: int = 0
    metrics: Metrics | None = None
    others: tuple[tuple[str, Metrics], ...] = ()
    beside: tuple[str, ...] = ()
    rivals: tuple[Subject, ...] = ()

    @property
    def recordings(self) -> Path | None:
        """The directory of the run, of which `stretto.timeline.recorded` reads recorded steps."""
        return self.run

    @cached_property
    def book(self) -> Book:
        """What the timelines of its program have in common; it has a program."""
        assert self.program is not None, "a page without a program has no step"
        return book(self.program)

    @cached_property
    def held(self) -> Callable[[int], MemoryCurve]:
        """Gives what a player of the predicted step holds; there is one, and it ends."""
        program, line = self.program, self.predicted
        assert program is not None and line is not None, "a page without a program has no memory"
        made, lock = cache(lambda player: curve(line, program, player)), threading.Lock()

        def held(player: int) -> MemoryCurve:
            with lock:  # sections are made side by side; each curve is made once
                return made(player)

        return held

    @cached_property
    def peak_bytes(self) -> int:
        """The most that a rank holds of the program's buffers in the predicted step."""
        program, line = self.program, self.predicted
        assert program is not None and line is not None, "a page without a program has no memory"
        stages = stage_of(program, line)  # ranks of a stage hold the same
        firsts = [stages.tolist().index(stage) for stage in set(stages.tolist())]
        return max(int(self.held(player).total_bytes.max()) for player in firsts)

    @cached_property
    def recorded(self) -> Callable[[int], Recording]:
        """Gives a recorded step of the run; see `step_read.recording`."""
        program, run = self.program, self.run
        assert program is not None and run is not None, "it is of a run with a program"

        @lru_cache(maxsize=1)  # sections want the same one
        def made(step: int, written: object) -> Recording:
            return recording(run, step, program=program, book=self.book)

        lock = threading.Lock()

        def recorded(step: int) -> Recording:
            with lock:
                return made(step, written(run, step))

        return recorded

    def among(self, others: Sequence[tuple[str, Metrics]]) -> Subject:
        """Give the same run beside others than before; what was made of it is kept."""
        found = replace(self, others=tuple(others))
        vars(found).update(vars(self) | {"others": tuple(others)})
        return found

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.plan.batch.sequences * self.plan.batch.seq

    @property
    def predicted_s(self) -> float:
        """Seconds that a step is predicted to take, with what is lost by chance."""
        line = self.predicted
        if line is not None and line.finished:
            return line.expected_s
        return float(self.estimate.time.total_s)
