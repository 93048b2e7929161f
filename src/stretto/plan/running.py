"""What a plan asks for and the runtime does not run yet: planned and priced only."""

from __future__ import annotations

from collections.abc import Iterator

from stretto.errors import Problem
from stretto.model import Model
from stretto.plan.value import (
    Communication,
    Decisions,
    Memory,
    Numerics,
    Pipeline,
    ScheduleName,
)

RUN_SCHEDULES: tuple[ScheduleName, ...] = ("gpipe", "1f1b")
"""The schedules that the runtime runs."""

_NOT_YET = "can be planned, but is not run yet"


def not_run(plan: Decisions, model: Model) -> tuple[Problem, ...]:
    """Give all that the plan asks for and the runtime does not run, each with what would run."""
    return (*_part_problems(plan), *_rule_problems(plan, model), *_group_problems(plan))


def _part_problems(plan: Decisions) -> Iterator[Problem]:
    """Values of single keys: each runs as the default only."""
    schedule = plan.pipeline.schedule
    if schedule not in RUN_SCHEDULES:
        yield Problem(
            "pipeline.schedule", f"{schedule} {_NOT_YET}", f"use {' or '.join(RUN_SCHEDULES)}"
        )
    for section, default, names in (
        ("pipeline", Pipeline(), ("interleave",)),
        ("memory", Memory(), ("recompute_layers", "offload", "optimizer_offload", "regather")),
        ("communication", Communication(), ("codec", "hierarchy", "tensor_overlap")),
        ("numerics", Numerics(), ("matrix",)),
    ):
        for name in names:
            value, runs = getattr(getattr(plan, section), name), getattr(default, name)
            if value != runs:
                yield Problem(f"{section}.{name}", f"{_shown(value)} {_NOT_YET}",
                              f"use {_shown(runs)}")  # fmt: skip


def _rule_problems(plan: Decisions, model: Model) -> Iterator[Problem]:
    context, experts = plan.split("time"), plan.split("expert")
    if context > 1:
        rule = f"context parallelism, here over {context} ranks, {_NOT_YET}"
        remedy = "leave it out, and use those ranks for batch or heads"
        yield Problem("rules.compute.time", rule, remedy)
    if experts > 1 and model.experts:
        rule = f"expert parallelism, here over {experts} ranks, {_NOT_YET}"
        yield Problem("rules.compute.expert", rule, "leave it out")


def _group_problems(plan: Decisions) -> Iterator[Problem]:
    if plan.groups:
        yield Problem("groups", f"a choice for some layers {_NOT_YET}", "leave groups out")


def _shown(value: object) -> str:
    match value:
        case None:
            return "all"
        case bool():
            return str(value).lower()
        case _:
            return str(value)
