"""Bubbles: what a rank waits is what it waits in the schedule that is played."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.cost.cases import LARGE, n, plans, priced

from stretto.cost import SCHEDULES, Choice, Number, Pricing, record
from stretto.cost.bubble import Load, bubble_s
from stretto.cost.layer import Work, embedding, head
from stretto.cost.step import mean_layer, step_time
from stretto.plan import Batch, Pipeline, Plan, ScheduleName
from stretto.presets import preset
from stretto.schedule import SCHEDULES as MAKE
from stretto.schedule import Costs, Pass, Schedule, problems, vocabulary

SECONDS = st.floats(0.1, 10)
NAMES = get_args(ScheduleName)


def chosen(name: ScheduleName, p: int, *, v: int, m: int) -> Choice:
    numbers = {"pp": p, "interleave": v, "micro_batches": m, "schedule": SCHEDULES.index(name)}
    return record(Choice, **(dict.fromkeys(Choice.__slots__, 1) | numbers))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(st.data(), SECONDS, SECONDS, SECONDS)
def test_ranks_that_are_alike_wait_as_in_the_schedule_that_is_played(
    name: ScheduleName, data: st.DataObject, x: float, y: float, z: float
) -> None:
    """Where a weight gradient takes no longer than a forward, that than an input gradient."""
    p, m = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 20))
    v = {"interleaved": 3, "breadth-first": 2, "zb-v": 2}.get(name, 1)
    m = m * p if problems(name, ranks=p, micro_batches=m, chunks=v) else m
    w, f, b = sorted((x, y, z))
    costs: Costs = {
        Pass.FORWARD: f / v, Pass.INPUT_GRADIENT: b / v, Pass.WEIGHT_GRADIENT: w / v,
        Pass.BACKWARD: (b + w) / v, Pass.VOCABULARY: 0.0, Pass.VOCABULARY_WEIGHT: 0.0,
    }  # fmt: skip
    if name == "vocabulary":
        schedule = vocabulary(p, m, backward=(b + w) / f)
    else:
        schedule = MAKE[name](p, m, chunks=v)
    alike = Load(n(f), n(b), n(w))
    waits = bubble_s(chosen(name, p, v=v, m=m), slowest=alike, others=alike)
    played = schedule.step_s(costs)
    assert m * (f + b + w) + waits == pytest.approx(played, rel=1e-9)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "vocabulary"])
@settings(max_examples=25)
@given(st.data(), st.floats(1, 3), st.floats(0.5, 1), st.floats(0, 4))
def test_where_the_last_stage_is_slower_ranks_wait_as_in_the_schedule_that_is_played(
    name: ScheduleName, data: st.DataObject, b: float, w: float, more: float
) -> None:
    """As a head makes it; exactly, but for ``zb-v``, of which two ranks wait for that stage."""
    p = data.draw(st.integers(2, 6))
    v = {"interleaved": 3, "breadth-first": 2, "zb-v": 2}.get(name, 1)
    m = p * data.draw(st.integers(1, 3)) + (0 if name == "interleaved" else 1)
    passes = (Pass.FORWARD, 1.0), (Pass.INPUT_GRADIENT, b), (Pass.WEIGHT_GRADIENT, w)
    costs = {x: [one / v] * (p * v - 1) + [one / v + more * one] for x, one in passes}
    costs[Pass.BACKWARD] = [
        sum(both) for both in zip(*(costs[x] for x, _ in passes[1:]), strict=True)
    ]
    rest, slow = (Load(n(x), n(b * x), n(w * x)) for x in (1, 1 + more))
    waits = bubble_s(chosen(name, p, v=v, m=m), slowest=slow, others=rest)
    played = MAKE[name](p, m, chunks=v).step_s(costs)
    within = 0.03 if name == "zb-v" else 1e-9
    assert m * (1 + more) * (1 + b + w) + waits == pytest.approx(played, rel=within)


def test_nobody_waits_for_a_head_that_all_share() -> None:
    """Under ``vocabulary`` the bubble is that of the layers, whatever the vocabulary."""
    small, large = (
        priced(
            replace(preset("llama-2-7b"), vocab=vocab),
            Plan.of(pp=4, pipeline=Pipeline("vocabulary"), batch=Batch(8, 1, 2048)),
        )
        for vocab in (1000, 200_000)
    )
    assert step_time(small).bubble_s == pytest.approx(float(step_time(large).bubble_s))
    assert step_time(small).matrix_s < step_time(large).matrix_s


def test_no_rank_waits_for_itself() -> None:
    for name in NAMES:
        alone = Load(n(1), n(2), n(1))
        assert bubble_s(chosen(name, 1, v=1, m=4), slowest=alone, others=alone) == 0


def test_an_array_of_schedules_waits_as_each_does() -> None:
    names: tuple[ScheduleName, ...] = ("1f1b", "zb-2p", "zb-v", "1f1b")
    ranks, counts = [4, 4, 2, 8], [8, 2, 6, 32]
    slow, rest = Load(n(2), n(2.5), n(1.5)), Load(n(1), n(1.5), n(0.5))
    each = [chosen(a, p, v=1, m=m) for a, p, m in zip(names, ranks, counts, strict=True)]
    many = record(
        Choice,
        **{f: [float(getattr(c, f)) for c in each] for f in Choice.__slots__},
    )
    waits = [float(bubble_s(c, slowest=slow, others=rest)) for c in each]
    assert bubble_s(many, slowest=slow, others=rest).tolist() == waits


@pytest.mark.parametrize(("p", "m"), [(2, 3), (4, 7), (4, 20), (8, 15)])
def test_an_update_that_waits_for_all_ranks_adds_the_forwards_of_the_others_to_zb_2p(
    p: int, m: int
) -> None:
    """Ranks end as late after each other as they began; in 1F1B the first ends last."""
    cost_s = dict.fromkeys(Pass, 1.0)
    for name, more in (("1f1b", 0), ("zb-1p", 0), ("zb-2p", p - 1)):
        schedule = MAKE[name](p, m)
        ends = max(stop for _, stop in schedule.times(cost_s).values())
        assert ends == schedule.step_s(cost_s) + more


def stages_of(p: Pricing, schedule: Schedule) -> Costs:
    """Give what each stage takes: its layers, the embedding on the first, the head on the last."""
    c, count = p.choice, schedule.stages
    pieces = (mean_layer(p), embedding(p), head(p))
    shared = Pass.VOCABULARY in schedule.passes

    def seconds(*names: str) -> tuple[list[float], float]:
        one, first, last = (sum(float(getattr(q, x).seconds) for x in names) for q in pieces)
        each = [one * float(p.shape.layers) / count] * count
        each[0] += first
        each[-1] += 0.0 if shared else last * float(p.shape.heads_out)
        return each, last * float(p.shape.heads_out / c.pp)

    return {
        Pass.FORWARD: seconds("forward")[0],
        Pass.INPUT_GRADIENT: seconds("again", "inputs")[0],
        Pass.WEIGHT_GRADIENT: seconds("weights")[0],
        Pass.BACKWARD: seconds("again", "inputs", "weights")[0],
        Pass.VOCABULARY: seconds("forward", "again", "inputs")[1],
        Pass.VOCABULARY_WEIGHT: seconds("weights")[1],
    }


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20)
@given(st.data())
def test_a_step_takes_what_the_schedule_takes_when_it_is_played(
    name: ScheduleName, data: st.DataObject
) -> None:
    """Of as many layers for each stage, with embedding and head; without moves between ranks.

    Schedules that split their backward do so for weight gradients that fit where a forward does.
    """
    model = data.draw(st.sampled_from([m for m in LARGE if not m.dense_layers]))
    plan = data.draw(plans(32, name).filter(lambda plan: plan.words.pp > 1))
    layers = max(1, round(model.layers / plan.stages)) * plan.stages
    p = priced(replace(model, layers=layers, full_layers=()), plan)
    each = mean_layer(p)
    assume(not name.startswith("zb") or each.weights.seconds <= each.forward.seconds)
    ranks, m, v = plan.words.pp, plan.micro_batches, plan.pipeline.chunks
    more = {"backward": float(each.backward_s / each.forward.seconds)}
    schedule = (
        vocabulary(ranks, m, **more) if name == "vocabulary" else MAKE[name](ranks, m, chunks=v)
    )
    time = step_time(p)
    closed = sum(float(getattr(time, part)) for part in (*Work.__slots__, "bubble_s"))
    within = {"gpipe": 1e-9, "1f1b": 1e-9, "zb-v": 0.03}.get(name, 0.02)
    assert closed == pytest.approx(schedule.step_s(stages_of(p, schedule)), rel=within)


def test_of_two_ranks_none_is_between_first_and_last() -> None:
    """Interleaved over 2 × 2 stages, 6 layers: each rank has 3, as first and last have one less."""
    model = replace(preset("llama-2-7b"), layers=6, vocab=2)
    plan = Plan.of(pp=2, pipeline=Pipeline("interleaved", interleave=2), batch=Batch(8, 1, 2048))
    p = priced(model, plan)
    assert step_time(p).matrix_s == pytest.approx(8 * 3 * float(_products(p)), rel=1e-2)


def test_stages_of_a_single_rank_have_its_layers() -> None:
    model = replace(preset("llama-2-7b"), layers=5, vocab=2)
    plan = Plan.of(pipeline=Pipeline("interleaved", interleave=2), batch=Batch(1, 1, 2048))
    p = priced(model, plan)
    assert step_time(p).matrix_s == pytest.approx(5 * float(_products(p)), rel=1e-2)
    assert step_time(p).bubble_s == 0


def _products(p: Pricing) -> Number:
    """Give the seconds of the products of a layer in all passes of a micro-batch."""
    passes = mean_layer(p)
    return passes.forward.matrix_s + passes.inputs.matrix_s + passes.weights.matrix_s
