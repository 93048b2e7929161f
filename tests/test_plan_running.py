"""What the runtime does not run yet: each thing named once, with what would run."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.model import Model
from stretto.plan import (
    RUN_SCHEDULES,
    Batch,
    Communication,
    Group,
    Memory,
    Numerics,
    Pipeline,
    Plan,
    ScheduleName,
)
from stretto.program.draw import draw

MODEL = Model(
    "small", layers=2, embed=16, heads=4, kv_heads=2, head_dim=4, ff=32, vocab=50, positions=64
)
SPARSE = replace(MODEL, experts=4, top_k=2, expert_ff=8)


def refused(plan: Plan, model: Model = MODEL) -> list[str]:
    """What is not run."""
    return [str(p) for p in plan.unsupported(model)]


@given(st.integers(0, 2**32))
def test_what_is_drawn_to_be_run_asks_for_nothing_else(seed: int) -> None:
    model, plan = draw(seed)
    assert plan.unsupported(model) == ()


@pytest.mark.parametrize("schedule", sorted(set(get_args(ScheduleName)) - set(RUN_SCHEDULES)))
def test_only_two_schedules_are_run(schedule: ScheduleName) -> None:
    assert refused(Plan.of(pipeline=Pipeline(schedule))) == [
        f"pipeline.schedule: {schedule} can be planned, but is not run yet; use gpipe or 1f1b"
    ]


@pytest.mark.parametrize(
    ("plan", "found"),
    [
        (Plan(pipeline=Pipeline("gpipe", interleave=2)),
         "pipeline.interleave: 2 can be planned, but is not run yet; use 1"),
        (Plan(memory=Memory("full", 2)),
         "memory.recompute_layers: 2 can be planned, but is not run yet; use all"),
        (Plan(memory=Memory(offload=0.5)),
         "memory.offload: 0.5 can be planned, but is not run yet; use 0.0"),
        (Plan(memory=Memory(optimizer_offload=1.0)),
         "memory.optimizer_offload: 1.0 can be planned, but is not run yet; use 0.0"),
        (Plan(memory=Memory(regather=False)),
         "memory.regather: false can be planned, but is not run yet; use true"),
        (Plan(communication=Communication(codec="int8")),
         "communication.codec: int8 can be planned, but is not run yet; use none"),
        (Plan(communication=Communication(hierarchy="two-level")),
         "communication.hierarchy: two-level can be planned, but is not run yet; use flat"),
        (Plan(communication=Communication(tensor_overlap=True)),
         "communication.tensor_overlap: true can be planned, but is not run yet; use false"),
        (Plan(numerics=Numerics(matrix="float8")),
         "numerics.matrix: float8 can be planned, but is not run yet; use same"),
        (Plan.of(cp=4),
         "rules.compute.time: context parallelism, here over 4 ranks, can be planned, but is not "
         "run yet; leave it out, and use those ranks for batch or heads"),
        (Plan(groups=(Group((0, 1), "full"),)),
         "groups: a choice for some layers can be planned, but is not run yet; leave groups out"),
    ],
)  # fmt: skip
def test_each_thing_that_is_not_run_is_named_with_what_is(plan: Plan, found: str) -> None:
    assert refused(plan) == [found]


def test_expert_parallelism_is_not_run_where_there_are_experts() -> None:
    plan = Plan.of(dp=2, ep=2)
    assert refused(plan) == []
    assert refused(plan, SPARSE) == [
        "rules.compute.expert: expert parallelism, here over 2 ranks, can be planned, but is not "
        "run yet; leave it out"
    ]


def test_all_that_is_not_run_is_listed_beside_what_is_impossible() -> None:
    plan = Plan.of(
        pp=2, cp=2, batch=Batch(3, 1, 16), memory=Memory("full", 1),
        pipeline=Pipeline("interleaved", interleave=2), numerics=Numerics(matrix="float4"),
    )  # fmt: skip
    assert [p.field for p in plan.obstacles(MODEL)] == [
        "batch.sequences",
        "pipeline.schedule", "pipeline.interleave", "memory.recompute_layers", "numerics.matrix",
        "rules.compute.time",
    ]  # fmt: skip
