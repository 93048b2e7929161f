"""Why one plan is worse than another, part by part, and why one that is asked for cannot be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType

from stretto.cost import MemoryUse, StepTime
from stretto.errors import Problem
from stretto.search.candidates import Priced
from stretto.search.constraint import Constraint
from stretto.search.found import Found
from stretto.search.search import offloaded, search
from stretto.search.task import Task
from stretto.search.words import line
from stretto.units import show_bytes, show_seconds

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

_MESH = ("pp", "dp", "cp", "tp")
_SHOWN = 3  # rules, where none of all plans keeps them


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
    own = search(task, constraints=asked)
    if own.best is None and own.least is not None:
        own = offloaded(own)
    if own.best is not None:
        return WhyNot(tuple(asked), own.best, ())
    if own.least is not None:
        return WhyNot(tuple(asked), own.least, (_too_large(own.least),))
    return WhyNot(tuple(asked), None, tuple(_mesh_problems(own)) or tuple(_broken(own)))


def nothing(found: Found) -> tuple[Problem, ...]:
    """Give why a search found no plan, and how far the nearest is from being one."""
    least = found.least
    if least is None:
        why = (*_mesh_problems(found), *_excluding(found))
        return why or tuple(_broken(found))
    if least.memory_bytes > float(found.task.machine.memory_bytes):
        return (_too_large(least),)
    return tuple(_unmet(found, least))


def _too_large(least: Priced) -> Problem:
    limit, need = float(least.task.machine.memory_bytes), least.memory_bytes
    rule = (
        f"the plan that needs least, {line(least.row)}, takes {show_bytes(need)} on its fullest "
        f"rank, but a device has {show_bytes(limit)}: {show_bytes(need - limit)} too little"
    )
    return Problem("memory", rule, "use more devices, or devices with more memory")


def _unmet(found: Found, least: Priced) -> Iterator[Problem]:
    """Constraints on what a plan takes that none of those that fit meets."""
    decisions = [c for c in found.constraints if c.before]
    fitting = search(found.task, constraints=decisions)
    best = fitting.best
    assert best is not None, "a plan that fits was found before"
    text = " and ".join(c.text for c in found.constraints if not c.before)
    rule = (
        f"none of {len(fitting.candidates):,} plans that fit meets {text}: the fastest takes "
        f"{show_seconds(best.step_s)} and {show_bytes(best.memory_bytes)}, the smallest "
        f"{show_seconds(least.step_s)} and {show_bytes(least.memory_bytes)}"
    )
    yield Problem("constraint", rule, "demand less")


def _mesh_problems(found: Found) -> Iterator[Problem]:
    """Ranks of the axes that are demanded, and that do not make the devices."""
    stated = {
        c.key: int(c.values[0])
        for c in found.constraints
        if c.key in _MESH and c.sign == "=" and len(c.values) == 1
    }
    devices, product = found.task.devices, math.prod(stated.values())
    whole = len(stated) == len(_MESH)
    if product < 1 or devices % product or (whole and product != devices):
        shape = " × ".join(f"{name} {extent}" for name, extent in stated.items())
        made = f" = {product}" if len(stated) > 1 else ""
        rule = f"{shape}{made} {'is not' if whole else 'does not divide'} {devices} devices"
        yield Problem("mesh", rule, "choose divisors of the number of devices")


def _excluding(found: Found) -> Iterator[Problem]:
    """Constraints on decisions that together leave no plan."""
    decisions = [c for c in found.constraints if c.before]
    if len(decisions) > 1:
        counts = [len(search(found.task, constraints=[c]).candidates) for c in decisions]
        alone = ", ".join(f"{c.text} {count:,}" for c, count in zip(decisions, counts, strict=True))
        rule = f"no plan meets all of them; alone they leave, of plans that fit: {alone}"
        yield Problem("constraint", rule, "leave one out")


def _broken(found: Found) -> Iterator[Problem]:
    """Rules that plans break, of all that could be."""
    rules = [r for r in found.rejections if r.example]
    for rule in rules[:_SHOWN]:
        yield Problem("plan", f"{rule.example} ({rule.count:,} plans)", _remedy(found))
    if not rules:
        text = " ".join(c.text for c in found.constraints)
        yield Problem("plan", f"no plan that is tried has {text}", "demand less")


def _remedy(found: Found) -> str:
    devices, batch = found.task.devices, found.task.sequences
    if batch % devices == 0:
        return "choose otherwise"
    near = sorted({max(1, batch // devices) * devices, (batch // devices + 1) * devices})
    return f"choose otherwise; {' or '.join(map(str, near))} sequences divide by all devices"
