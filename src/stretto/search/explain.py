"""Why one plan is worse than another, part by part, and why one that is asked for cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType

from stretto.cost import MemoryUse, StepTime
from stretto.errors import Problem
from stretto.search.candidates import Priced
from stretto.search.constraint import Constraint
from stretto.search.impossible import impossible, nothing
from stretto.search.search import search_with_host
from stretto.search.task import Task

PARTS: Mapping[str, str] = MappingProxyType(
    {
        "matrix_s": "matrix products",
        "attention_s": "attention",
        "pointwise_s": "memory-bound work",
        "launch_s": "kernel launches",
        "tensor_s": "tensor-parallel moves",
        "context_s": "context-parallel moves",
        "expert_s": "expert dispatch",
        "bubble_s": "pipeline bubble",
        "send_s": "sends between stages",
        "data_s": "gradients and shards",
        "optimizer_s": "optimizer",
        "host_s": "host memory",
        "fixed_s": "fixed costs",
        "straggle_s": "stragglers",
    }
)
"""What the parts of a step are called."""

USES: Mapping[str, str] = MappingProxyType(
    {
        "weights_bytes": "weights",
        "master_bytes": "master weights",
        "gradient_bytes": "gradients",
        "optimizer_bytes": "optimizer",
        "kept_bytes": "activations kept",
        "work_bytes": "the block at work",
        "transfer_bytes": "transfers",
        "loss_bytes": "logits and loss",
        "update_bytes": "the update",
        "fragment_bytes": "fragmentation",
        "reserve_bytes": "context, libraries",
    }
)
"""What the parts of a rank's memory are called."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a step, or how much more of it one plan has than another.

    Attributes:
        name: What it is.
        seconds: How long it takes.
    """

    name: str
    seconds: float


def parts(priced: Priced) -> tuple[Part, ...]:
    """Give the parts of a step; they sum to it."""
    time = priced.estimate.time
    names = [f.name for f in fields(StepTime)]
    return tuple(Part(PARTS.get(n, n), float(getattr(time, n))) for n in names)


def uses(priced: Priced) -> tuple[tuple[str, float], ...]:
    """Give what fills the fullest rank: (name, bytes) of each part; they sum to it."""
    memory = priced.estimate.memory
    names = [f.name for f in fields(MemoryUse) if f.name.endswith("_bytes")]
    return tuple((USES.get(n, n), float(getattr(memory, n))) for n in names)


def more(priced: Priced, than: Priced) -> tuple[Part, ...]:
    """Give how much more of each part a plan has than another, the largest differences first."""
    pairs = zip(parts(priced), parts(than), strict=True)
    found = [Part(a.name, a.seconds - b.seconds) for a, b in pairs]
    return tuple(sorted(found, key=lambda part: -abs(part.seconds)))


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Why a plan that somebody asks about is not the best.

    Attributes:
        asked: What of it was stated.
        priced: The best plan that is so; the smallest if none fits; None if none can be.
        problems: What makes it impossible.
    """

    asked: tuple[Constraint, ...]
    priced: Priced | None
    problems: tuple[Problem, ...]


def why_not(task: Task, asked: Sequence[Constraint]) -> WhyNot:
    """Give the best plan that is as asked, to be compared with the best of all, or why none can be.

    Args:
        task: What was searched for.
        asked: What is stated of the plan, each by ``=``; all else is chosen for the shortest step.

    Raises:
        InputError: What is asked contradicts itself.
    """
    own = search_with_host(task, constraints=asked)
    if own.best is not None:
        return WhyNot(tuple(asked), own.best, ())
    if own.least is not None:
        return WhyNot(tuple(asked), own.least, nothing(own))
    return WhyNot(tuple(asked), None, impossible(own))
