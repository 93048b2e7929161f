"""How many layers a pipeline's ranks have: dealt evenly, or as stages are cut."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stretto.cluster import find
from stretto.cost import Choice, Machine, Pricing, Shape, cost, stack
from stretto.cost.deal import Deal, deal
from stretto.model import Model
from stretto.plan import Batch, Numerics, Pipeline, Plan
from stretto.presets import PRESETS, preset
from stretto.program.cut import balanced_cut, stage_layers

SEQ = 2048


def dealt(model: Model, pp: int, *, software: str, pipeline: Pipeline = Pipeline()) -> Deal:  # noqa: B008 — it is frozen
    plan = Plan.of(pp=pp, batch=Batch(8, 1, SEQ), pipeline=pipeline)
    choice = Choice.of(plan, model)
    where = Machine.of(find("h100", devices=8))
    return deal(Pricing(Shape.of(model), choice, where, stack(software)))


def values(one: Deal) -> tuple[float, ...]:
    return float(one.first), float(one.inner), float(one.last), float(one.other)


@pytest.mark.parametrize("name", [n for n, m in PRESETS.items() if m.layers >= 4])
@pytest.mark.parametrize("stages", [1, 2, 4])
def test_stages_have_all_layers_between_them(name: str, stages: int) -> None:
    model = preset(name)
    cut = balanced_cut(model, stages, positions=SEQ)
    layers = stage_layers(model, cut, positions=SEQ)
    assert len(layers) == stages
    assert sum(layers) == pytest.approx(model.layers + model.mtp_layers)


def test_whole_layers_are_dealt_evenly_and_the_ends_have_fewer() -> None:
    model = replace(preset("llama-3-8b"), layers=14)
    assert values(dealt(model, 1, software="modern")) == (14, 14, 14, 14)
    assert values(dealt(model, 2, software="modern")) == (7, 7, 7, 7)
    assert values(dealt(model, 4, software="modern")) == (3, 4, 3, 4)


def test_ours_are_as_stages_are_cut() -> None:
    model = replace(preset("llama-3-8b"), layers=14)
    cut = (0, 9, 17, 25)  # embedding and 4 layers, 4 layers, 4, the last 2 and the head
    found = dealt(model, 4, software="stretto", pipeline=Pipeline("1f1b", cut))
    assert values(found) == pytest.approx((4, 4, 2, 4))
    balanced = dealt(model, 4, software="stretto")
    layers = stage_layers(model, balanced_cut(model, 4, positions=SEQ), positions=SEQ)
    expected = (layers[0], max(layers[1:3]), layers[3], max(layers[:3]))
    assert values(balanced) == pytest.approx(expected)
    assert layers[3] < 3.5 < layers[0]  # the head is as much work as a layer and more


def test_interleaved_stages_are_dealt_evenly() -> None:
    model = replace(preset("llama-3-8b"), layers=16)
    found = dealt(model, 2, software="stretto", pipeline=Pipeline("interleaved", (), 2))
    assert values(found) == (8, 8, 8, 8)


def test_a_cut_that_the_plan_states_costs_what_it_costs() -> None:
    model, where = preset("llama-3-8b"), find("h100", devices=4)

    def step_s(*cut: int) -> float:
        pipeline = Pipeline("1f1b", cut)
        plan = Plan.of(pp=4, batch=Batch(16, 1, SEQ), pipeline=pipeline,
                       numerics=Numerics("bfloat16"))  # fmt: skip
        return float(cost(model, plan, cluster=where, stack=stack("stretto")).time.total_s)

    best = step_s(*balanced_cut(model, 4, positions=SEQ))
    assert best == step_s()
    assert step_s(0, 33, 45, 57) > 1.5 * best


def test_more_ranks_than_blocks_are_priced_all_the_same() -> None:
    model = replace(preset("tiny"), layers=1)
    assert values(dealt(model, 8, software="stretto")) == values(dealt(model, 8, software="modern"))
