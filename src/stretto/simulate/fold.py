"""A step of very many micro-batches, from two of fewer.

Once its pipeline is full, a step repeats itself: each further micro-batch adds what the one before
it added. So two steps that differ by some micro-batches say what any number adds, to the length of
the step and to everything that is summed over it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from stretto.cluster import Cluster
from stretto.cost.stack import Stack
from stretto.model import Model
from stretto.plan import Plan
from stretto.program.instruction import Program
from stretto.program.lower import lower
from stretto.simulate.fault import Fault
from stretto.simulate.network import FAIR, Network
from stretto.simulate.simulate import simulate, uncollected
from stretto.timeline.usage import Usage, usages
from stretto.timeline.value import Timeline

MANY = 4096
"""Runs of a block on a micro-batch in a stage, from which on a step is folded where nobody says."""


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """A step with some of its micro-batches.

    Attributes:
        micro_batches: How many.
        program: What every rank does then.
        line: The step.
        took_s: Seconds that playing it took.
    """

    micro_batches: int
    program: Program
    line: Timeline
    took_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """A step of which some micro-batches were played.

    Attributes:
        micro_batches: That the step has.
        most: What was played.
        fewer: What was played besides, with fewer of them; None if all were played.
    """

    micro_batches: int
    most: Played
    fewer: Played | None = None

    @property
    def line(self) -> Timeline:
        """What was played."""
        return self.most.line

    @property
    def step_s(self) -> float:
        """Seconds of the whole step."""
        if self.fewer is None:
            return self.line.step_s
        return self._whole(self.line.step_s, self.fewer.line.step_s)

    @property
    def expected_s(self) -> float:
        """Seconds of a step with what is lost by chance."""
        return self.step_s * (1.0 + self.line.straggle)

    @property
    def each_s(self) -> float:
        """Seconds that each micro-batch which was not played adds."""
        if self.fewer is None:
            return 0.0
        count = self.most.micro_batches - self.fewer.micro_batches
        return (self.line.step_s - self.fewer.line.step_s) / count

    def usages(self) -> tuple[Usage, ...]:
        """Give where the time of every rank that is played goes in the whole step."""
        most = usages(self.line)
        if self.fewer is None:
            return most
        least = usages(self.fewer.line)
        return tuple(self._usage(a, b) for a, b in zip(most, least, strict=True))

    def parts(self, most: Mapping[str, float], least: Mapping[str, float]) -> dict[str, float]:
        """Give what parts of the step sum to in the whole.

        Args:
            most: Of the step that was played.
            least: Of that with fewer micro-batches.
        """
        names = dict.fromkeys((*most, *least))
        return {n: max(0.0, self._whole(most.get(n, 0.0), least.get(n, 0.0))) for n in names}

    def _whole(self, most: float, least: float) -> float:
        assert self.fewer is not None, "all was played"
        played = self.most.micro_batches
        each = (most - least) / (played - self.fewer.micro_batches)
        return most + (self.micro_batches - played) * each

    def _usage(self, most: Usage, least: Usage) -> Usage:
        return Usage(
            most.rank,
            self._whole(most.busy_s, least.busy_s),
            self.parts(most.exposed_s, least.exposed_s),
            max(0.0, self._whole(most.bubble_s, least.bubble_s)),
        )


def steady(plan: Plan) -> int:
    """Give by how many micro-batches two steps differ that tell what each adds."""
    return max(plan.stages, 4)


def least_played(plan: Plan) -> int:
    """Give the fewest micro-batches to play of a step instead of all: its pipeline is long full."""
    return 3 * steady(plan)


def foldings(plan: Plan, *, blocks: int) -> tuple[int, int] | None:
    """Give how many micro-batches to play instead of all of a plan, first fewer; None for all.

    Args:
        plan: The plan.
        blocks: Of its model.
    """
    more, runs = least_played(plan), plan.micro_batches * -(-blocks // plan.stages)
    if runs <= MANY or plan.micro_batches <= 2 * more:
        return None
    return more - steady(plan), more


def with_micro_batches(plan: Plan, count: int) -> Plan:
    """Give a plan with another number of micro-batches, and so of sequences in a step."""
    sequences = plan.batch.sequences // plan.micro_batches * count
    return replace(plan, batch=replace(plan.batch, sequences=sequences))


def played(
    program: Program,
    cluster: Cluster,
    *,
    stack: Stack,
    faults: Sequence[Fault] = (),
    network: Network = FAIR,
) -> Played:
    """Play a program, by the clock: see `simulate`.

    Raises:
        InputError: All that keeps it from being played.
    """
    began = time.perf_counter()
    line = simulate(program, cluster, stack=stack, faults=faults, network=network)
    return Played(program.plan.micro_batches, program, line, time.perf_counter() - began)


def fold(
    model: Model,
    plan: Plan,
    cluster: Cluster,
    *,
    stack: Stack,
    faults: Sequence[Fault] = (),
    network: Network = FAIR,
    counts: tuple[int, int],
) -> Folded:
    """Play a step of a plan with fewer micro-batches, twice.

    Args:
        model: What is trained.
        plan: How.
        cluster: Where.
        stack: With which software.
        faults: What is slow; nothing may halt.
        network: How transfers share what lies between switches.
        counts: How many micro-batches to play: fewer, then more of them.

    Raises:
        InputError: All that keeps it from being played.
    """
    found = []
    for count in counts:
        with uncollected():
            program = lower(model, with_micro_batches(plan, count))
        found.append(played(program, cluster, stack=stack, faults=faults, network=network))
    fewer, most = found
    return Folded(plan.micro_batches, most, fewer)
