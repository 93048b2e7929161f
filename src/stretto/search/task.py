"""What is searched for: a model, a cluster, a batch, and the software that will run the plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from stretto.cluster import Cluster
from stretto.cost import Choice, Machine, Shape, Stack, stack
from stretto.errors import InputError, Problem
from stretto.model import Model
from stretto.plan import Batch, DType, Matrix, Memory, Numerics, Plan, Recompute

RECOMPUTES: tuple[Recompute, ...] = ("none", "selective", "full")
"""What may be recomputed; a `Row` holds the index."""

_NAMES = {"float32": ("float32", "tensorfloat32"), "bfloat16": ("bfloat16", "float16")}


@dataclass(frozen=True)
class Task:
    """What is searched for.

    Attributes:
        model: What is trained.
        cluster: On what; a plan uses all of its devices.
        sequences: Sequences of a step, over all ranks.
        seq: Positions of a sequence.
        dtype: In which blocks compute.
        matrix: In which matrix products multiply.
        stack: The software that runs the plan.
        system: What the cluster is a part of, to ask what more devices would do; None if it is all
            that there is.
    """

    model: Model
    cluster: Cluster
    sequences: int
    seq: int
    dtype: DType = "bfloat16"
    matrix: Matrix = "same"
    stack: Stack = field(default_factory=stack)
    system: Cluster | None = None

    def __post_init__(self) -> None:
        """Refuse what no plan can do.

        Raises:
            InputError: All that is wrong.
        """
        problems = [*_problems(self)]
        if problems:
            raise InputError(problems)

    @property
    def devices(self) -> int:
        """All devices."""
        return self.cluster.devices

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.sequences * self.seq

    @cached_property
    def shape(self) -> Shape:
        """The numbers of the model."""
        return Shape.of(self.model)

    @cached_property
    def machine(self) -> Machine:
        """The numbers of the cluster."""
        return Machine.of(self.cluster)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The numbers of a plan on one rank with each of `RECOMPUTES`: what no layout changes."""
        return _choices(self.model, self.numerics, self.seq)

    @property
    def numerics(self) -> Numerics:
        """The precision of the plan."""
        return Numerics(self.dtype, matrix=self.matrix)

    def on(self, cluster: Cluster) -> Task:
        """Give the same on another cluster."""
        return replace(self, cluster=cluster)

    def sized(self, devices: int) -> Task | None:
        """Give the same on another number of devices; None where there are not as many."""
        whole = self.system or self.cluster
        return self.on(whole.at(devices)) if devices <= whole.devices else None


@lru_cache(maxsize=8)  # a task and its changes differ in none of these but seldom
def _choices(model: Model, numerics: Numerics, seq: int) -> tuple[Choice, ...]:
    return tuple(
        Choice.of(
            Plan(batch=Batch(1, 1, seq), memory=Memory(recompute=name), numerics=numerics), model
        )
        for name in RECOMPUTES
    )


def _problems(task: Task) -> Iterator[Problem]:
    for name, count in (("batch.sequences", task.sequences), ("batch.seq", task.seq)):
        if count < 1:
            yield Problem(name, f"is {count}, below 1", "use 1 or more")
    model = task.model
    if model.rope is None and task.seq > model.positions:
        rule = f"{task.seq} positions, but {model.name} has learned {model.positions}"
        yield Problem("batch.seq", rule, f"use at most {model.positions}")
    device = task.cluster.device
    wanted = task.dtype if task.matrix == "same" else task.matrix
    has = [name for name, _ in device.flops_per_s]
    if not set(_NAMES.get(wanted, (wanted,))) & set(has):
        rule = f"{device.name} multiplies no matrices in {wanted}"
        yield Problem("precision", rule, f"it has {', '.join(has)}")
