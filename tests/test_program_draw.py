"""Random plans are legal, and all that there is comes up in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.plan import Plan
from stretto.program.draw import draw
from stretto.rules import Placement

SEEDS = st.integers(0, 2**32)
DRAWN = [draw(seed) for seed in range(300)]


@given(SEEDS, st.integers(1, 16))
def test_every_plan_is_legal_for_its_model_and_needs_no_more_ranks_than_allowed(
    seed: int, ranks: int
) -> None:
    model, plan = draw(seed, ranks=ranks)
    assert plan.check(model) == ()
    assert 1 <= plan.mesh.size <= ranks


@given(SEEDS)
def test_a_seed_draws_one_pair(seed: int) -> None:
    assert draw(seed) == draw(seed)


@given(SEEDS)
def test_a_plan_is_in_float64_and_can_be_written_down(seed: int) -> None:
    _, plan = draw(seed)
    assert plan.numerics.dtype == "float64"
    assert Plan.from_toml(plan.to_toml()) == plan


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("stages", {plan.stages for _, plan in DRAWN} >= {1, 2, 3, 4}),
        ("replicas", {plan.replicas for _, plan in DRAWN} >= {1, 2, 3, 4, 6}),
        ("tp", {plan.mesh.extent("tp") for _, plan in DRAWN} >= {1, 2, 3, 4, 6}),
        ("accumulation", {plan.micro_batches for _, plan in DRAWN} >= {1, 2, 3, 4}),
        ("schedules", {plan.pipeline.schedule for _, plan in DRAWN} == {"gpipe", "1f1b"}),
        ("cuts", {bool(plan.pipeline.cut) for _, plan in DRAWN} == {False, True}),
        ("recompute", len({plan.memory.recompute for _, plan in DRAWN}) == 3),
        ("hybrid", any(plan.mesh.views for _, plan in DRAWN)),
        ("sequence", len({"seq" in dict(p.rules.compute) for _, p in DRAWN}) == 2),
        ("two axes of tp", any("outer" in plan.mesh.names for _, plan in DRAWN)),
        ("no pp", any("pp" not in plan.mesh.names for _, plan in DRAWN)),
        ("families", len({model.family for model, _ in DRAWN}) == 4),
        ("tied", {model.tied for model, _ in DRAWN} == {False, True}),
        ("windows", any(model.full_layers for model, _ in DRAWN)),
        (
            "zero",
            {
                (bool(r.parameter), bool(r.gradient), bool(r.optimizer))
                for _, plan in DRAWN
                for r in [plan.rules]
            }
            >= {(False, False, False), (False, False, True), (False, True, True), (True,) * 3},
        ),
        (
            "key heads shared by ranks",
            any(
                Placement(model, plan.mesh, plan.rules).axes["kv_heads"]
                and Placement(model, plan.mesh, plan.rules).axes["group"]
                for model, plan in DRAWN
            ),
        ),
        (
            "padding",
            {
                dim
                for model, plan in DRAWN
                for dim, size in Placement(model, plan.mesh, plan.rules).sizes.items()
                if size != model.sizes[dim]
            }
            >= {"kv_heads", "group", "ff", "vocab"},
        ),
        ("uneven dp", any(model.embed % plan.replicas for model, plan in DRAWN)),
    ],
)
def test_all_that_there_is_comes_up(what: str, values: bool) -> None:
    assert values, what
