"""A training as the forecast sees it: its steps, its checkpoints, its machines, its recovery."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from stretto.errors import InputError, Problem

Survives = Literal["nothing", "process", "node"]
"""What a snapshot in host memory outlives: a process, or, where a copy lies elsewhere, a node."""


@dataclass(frozen=True, slots=True)
class Job:
    """The steps of a training, and what they run on.

    Attributes:
        steps: Their number.
        step_s: Seconds of one while all devices run.
        devices: That train.
        per_node: Devices of a node, which are replaced together.
    """

    steps: int
    step_s: float
    devices: int
    per_node: int = 8

    @property
    def work_s(self) -> float:
        """Seconds of all steps, if nothing fails and nothing is saved."""
        return self.steps * self.step_s

    @property
    def nodes(self) -> int:
        """The number of nodes, the last perhaps incomplete."""
        return math.ceil(self.devices / self.per_node)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How a training is saved, and how it is read again.

    Attributes:
        every_s: Seconds of steps between two checkpoints in storage.
        blocking_s: Seconds that steps wait for a snapshot: until it lies in the host's memory.
        background_s: Seconds until it is in storage, while steps go on; till then it does not
            count.
        load_s: Seconds to read it from there.
        memory_every_s: Seconds of steps between two snapshots in host memory, where they are kept;
            None where a snapshot only passes through it.
        survives: What those outlive.
        memory_load_s: Seconds to read one of those.
    """

    every_s: float
    blocking_s: float = 0.0
    background_s: float = 0.0
    load_s: float = 0.0
    memory_every_s: float | None = None
    survives: Survives = "nothing"
    memory_load_s: float = 0.0

    @property
    def stored(self) -> int:
        """Of how many snapshots one is written to storage."""
        if self.memory_every_s is None:
            return 1
        return max(1, round(self.every_s / self.memory_every_s))

    @property
    def snapshot_s(self) -> float:
        """Seconds of steps between two snapshots."""
        return self.every_s / self.stored


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long it takes until a run that stopped is running again, besides loading.

    Attributes:
        crash_s: Until a process that died is noticed.
        hang_s: Until one that hangs is.
        corruption_s: That a run goes on with wrong numbers.
        diagnose_s: Until it is known which node must be replaced.
        hot_s: To bring in a spare node that is ready.
        warm_s: To start one that is not, or that comes back.
        schedule_s: To start all processes and connect them.
        warmup_s: Lost while the first steps are slow.
        reset_s: That a node is away that is reset.
        repair_s: That one is away on average that is repaired; exponentially distributed.
    """

    crash_s: float = 0.0
    hang_s: float = 0.0
    corruption_s: float = 0.0
    diagnose_s: float = 0.0
    hot_s: float = 0.0
    warm_s: float = 0.0
    schedule_s: float = 0.0
    warmup_s: float = 0.0
    reset_s: float = 0.0
    repair_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Spares:
    """Nodes that wait. Where some are warm, those that come back from repair are so too.

    Attributes:
        hot: That are ready.
        warm: That must start first.
    """

    hot: int = 0
    warm: int = 0

    @property
    def nodes(self) -> int:
        """All of them."""
        return self.hot + self.warm


@dataclass(frozen=True, slots=True)
class Elastic:
    """How a run goes on with fewer data-parallel replicas where no spare is left.

    Attributes:
        unit_nodes: Nodes that leave together: those of a replica, or one that holds several.
        speeds: Of a run with 0, 1, 2, … units fewer, relative to all of them; as many as may go.
        patience_s: A node that is back so soon is waited for.
    """

    unit_nodes: int
    speeds: tuple[float, ...]
    patience_s: float = 300.0

    @staticmethod
    def proportional(job: Job, *, replicas: int, least: float = 0.5) -> Elastic:
        """Give replicas that each do their share, as far down as a share of them.

        Args:
            job: What shrinks.
            replicas: Of the model; units of whole nodes are made of them.
            least: The smallest speed to go on with.
        """
        units = math.gcd(replicas, job.nodes)
        most = math.floor(units * (1 - least) + 1e-9)
        speeds = tuple((units - missing) / units for missing in range(most + 1))
        return Elastic(job.nodes // units, speeds)


@dataclass(frozen=True, slots=True)
class Setup:
    """All that a forecast needs besides what fails.

    Attributes:
        job: The steps.
        checkpoint: How they are saved.
        recovery: How long recovery takes.
        spares: Nodes that wait.
        elastic: How the run shrinks; None if it waits for nodes instead.
    """

    job: Job
    checkpoint: Checkpoint
    recovery: Recovery = field(default_factory=Recovery)
    spares: Spares = field(default_factory=Spares)
    elastic: Elastic | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            InputError: All that is wrong.
        """
        problems = [*_numbers(self), *_checkpoint(self.checkpoint)]
        problems += _elastic(self) if not problems else ()
        if problems:
            raise InputError(problems)

    @property
    def least_s(self) -> float:
        """Seconds of the whole training if nothing fails: its steps, and a stop for each snapshot.

        The last step is followed by one too, whether it is time for it or not.
        """
        saved = self.checkpoint
        snapshots = math.ceil(self.job.work_s / saved.snapshot_s - 1e-9)
        return self.job.work_s + snapshots * saved.blocking_s


def _numbers(setup: Setup) -> Iterator[Problem]:
    job = setup.job
    counts = {"steps": job.steps, "devices": job.devices, "per_node": job.per_node}
    for name, count in counts.items():
        if count < 1:
            yield Problem(name, f"is {count}, below 1", "use 1 or more")
    if not 0 < job.step_s < math.inf:
        yield Problem("step", f"takes {job.step_s:g} s", "use a time above 0")
    for part in (setup.checkpoint, setup.recovery, setup.spares):
        for name in part.__slots__:
            value = getattr(part, name)
            if isinstance(value, float | int) and not 0 <= value < math.inf:
                yield Problem(name.removesuffix("_s"), f"is {value:g}, below 0", "use 0 or more")


def _checkpoint(saved: Checkpoint) -> Iterator[Problem]:
    if saved.every_s <= 0:
        yield Problem("checkpoint", f"every {saved.every_s:g} s", "use a time above 0")
    elif saved.every_s < saved.background_s:
        rule = f"every {saved.every_s:g} s, but one takes {saved.background_s:g} s to be stored"
        yield Problem("checkpoint", rule, f"use {saved.background_s:g} s or more")
    if saved.memory_every_s is not None and not 0 < saved.memory_every_s <= saved.every_s:
        rule = f"snapshots every {saved.memory_every_s:g} s, checkpoints every {saved.every_s:g} s"
        yield Problem("memory", rule, "use snapshots above 0 s, and no rarer than checkpoints")


def _elastic(setup: Setup) -> Iterator[Problem]:
    elastic, nodes = setup.elastic, setup.job.nodes
    if elastic is None:
        return
    missing = (len(elastic.speeds) - 1) * elastic.unit_nodes
    if elastic.unit_nodes < 1 or missing >= nodes:
        rule = f"{missing} of {nodes} nodes may go"
        yield Problem("elastic", rule, f"use units of 1 node or more, {nodes - 1} nodes in all")
    if elastic.speeds[:1] != (1.0,) or not all(0 < speed <= 1 for speed in elastic.speeds):
        rule = f"speeds are {', '.join(f'{s:g}' for s in elastic.speeds) or 'missing'}"
        yield Problem("elastic", rule, "begin with 1 for all units, and stay between 0 and 1")
