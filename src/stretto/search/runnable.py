"""Which plans of a search the runtime runs today, as `Plan.unsupported` says of each decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stretto.cost import SCHEDULES
from stretto.plan import Communication, Memory, Pipeline, Plan
from stretto.search.row import CODECS, Row
from stretto.search.rule import Mask
from stretto.search.task import RECOMPUTES, Task


@dataclass(frozen=True, slots=True)
class _Case:
    """A decision that may not run: plans that made it, and one that made no other."""

    made: Callable[[Row], Mask]
    plan: Plan


def _is(field: str, value: float) -> Callable[[Row], Mask]:
    return lambda row: getattr(row, field) == value


def _above(field: str, value: float) -> Callable[[Row], Mask]:
    return lambda row: getattr(row, field) > value


_CASES = (
    *(_Case(_is("schedule", i), Plan(pipeline=Pipeline(n))) for i, n in enumerate(SCHEDULES)),
    *(_Case(_is("recompute", i), Plan(memory=Memory(n))) for i, n in enumerate(RECOMPUTES)),
    *(
        _Case(_is("codec", i), Plan(communication=Communication(codec=n)))
        for i, n in enumerate(CODECS)
    ),
    _Case(_above("interleave", 1), Plan(pipeline=Pipeline(interleave=2))),
    _Case(_above("recompute_layers", 0), Plan(memory=Memory("full", 1))),
    _Case(_above("offload", 0), Plan(memory=Memory(offload=0.5))),
    _Case(_above("optimizer_offload", 0), Plan(memory=Memory(optimizer_offload=0.5))),
    _Case(_is("regather", 0), Plan(memory=Memory(regather=False))),
    _Case(_is("tensor_overlap", 1), Plan(communication=Communication(tensor_overlap=True))),
    _Case(_is("two_level", 1), Plan(communication=Communication(hierarchy="two-level"))),
    _Case(_above("cp", 1), Plan.of(cp=2)),
    _Case(_above("ep", 1), Plan.of(dp=2, ep=2)),
)


def refusals(task: Task) -> tuple[Callable[[Row], Mask], ...]:
    """Give what tells, each for one decision, which plans the runtime does not run."""
    if task.model.unsupported or Plan(numerics=task.numerics).unsupported(task.model):
        return (lambda row: np.ones((), dtype=np.bool_),)
    return tuple(case.made for case in _CASES if case.plan.unsupported(task.model))
