"""A step again and again, with tasks that take by chance more or less time than they should.

What a task takes is multiplied by a number of its own, drawn from a log-normal distribution whose
mean is 1. So no task takes longer on average; but a step does, for wherever ranks meet all wait for
the one that was slowest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stretto.cluster import Cluster
from stretto.cost.stack import Stack
from stretto.errors import InputError, Problem
from stretto.program.instruction import Program
from stretto.simulate.fault import Fault, Halt, problems
from stretto.simulate.graph import graph
from stretto.simulate.network import FAIR, Network
from stretto.simulate.play import play
from stretto.simulate.simulate import uncollected
from stretto.simulate.site import Site

MOST_TASKS = 4_000_000
"""Of all ranks in a step: more would not fit into memory with their graph."""


@dataclass(frozen=True, slots=True)
class Jitter:
    """Steps that chance makes unlike.

    Attributes:
        sigma: Of the logarithm of what multiplies each task.
        calm_s: Seconds of a step without chance.
        steps_s: Seconds of each step with it.
    """

    sigma: float
    calm_s: float
    steps_s: tuple[float, ...]

    @property
    def mean_s(self) -> float:
        """Seconds of the mean step."""
        return float(np.mean(self.steps_s))

    @property
    def spread_s(self) -> float:
        """The standard deviation of the seconds of a step; 0 for a single one."""
        return float(np.std(self.steps_s, ddof=1)) if len(self.steps_s) > 1 else 0.0

    @property
    def lost(self) -> float:
        """The share that the mean step is longer than one without chance."""
        return self.mean_s / self.calm_s - 1.0

    def quantile_s(self, share: float) -> float:
        """Give the seconds that a share of the steps stays below."""
        return float(np.quantile(self.steps_s, share))


def jittered(
    program: Program,
    cluster: Cluster,
    *,
    stack: Stack,
    sigma: float,
    steps: int,
    seed: int = 0,
    faults: Sequence[Fault] = (),
    network: Network = FAIR,
) -> Jitter:
    """Play steps of every rank, each task of each step with a chance of its own.

    Args:
        program: What every rank does.
        cluster: Where.
        stack: With which software.
        sigma: Of the logarithm of what multiplies each task.
        steps: How many.
        seed: Of chance.
        faults: What is wrong besides.
        network: How transfers share what lies between switches.

    Raises:
        InputError: All that keeps them from being played.
    """
    found = [
        *problems(program, cluster, faults=faults, network=network),
        *_problems(program, sigma=sigma, steps=steps, seed=seed, faults=faults),
    ]
    if found:
        raise InputError(found)
    with uncollected():
        whole = graph(Site(program, cluster, stack, tuple(faults), network, apart=True))
        contention, base = float(stack.contention), whole.work_s
        calm_s = float(play(whole, contention=contention)[1].max())
        played = []
        for step in range(steps):
            chance = np.random.default_rng((seed, step)).standard_normal(len(base))
            work_s = base * np.exp(sigma * chance - sigma**2 / 2)
            _, done_s = play(replace(whole, work_s=work_s), contention=contention)
            played.append(float(done_s.max()))
    return Jitter(sigma, calm_s, tuple(played))


def _problems(
    program: Program, *, sigma: float, steps: int, seed: int, faults: Sequence[Fault]
) -> list[Problem]:
    found = []
    if not 0 < sigma <= 1:
        rule = f"is {sigma:g}, not above 0 and at most 1"
        found.append(Problem("jitter", rule, "use 0.05"))
    if steps < 1:
        found.append(Problem("steps", f"is {steps}, below 1", "use 1 or more"))
    if seed < 0:
        found.append(Problem("seed", f"is {seed}, below 0", "use 0 or more"))
    if any(isinstance(fault, Halt) for fault in faults):
        found.append(Problem("jitter", "a step that halts has no length", "leave out one of them"))
    ranks = program.placement.mesh.size
    each = ranks // len(program.stages)
    count = sum(len(stage.instructions) for stage in program.stages) * each // 2
    if count > MOST_TASKS:
        rule = f"each of {ranks} ranks is played: about {count:,} tasks, more than {MOST_TASKS:,}"
        found.append(Problem("jitter", rule, "use fewer ranks, or fewer micro-batches"))
    return found
