"""The step: parts sum to it, arrays price as singles do, and nothing faster makes it slower."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.cost.cases import n, priced, pricings, tree

from stretto.cost import SCHEDULES, Link, Pricing, StepTime, gathered, stack
from stretto.cost.collectives import all_reduce_s, ring_s
from stretto.cost.step import step_time
from stretto.model import Model
from stretto.plan import Batch, Numerics, Pipeline, Plan
from stretto.presets import preset

FACTOR = st.floats(1, 20)


@settings(max_examples=40)
@given(pricings())
def test_the_parts_of_a_step_are_not_negative_and_sum_to_it(p: Pricing) -> None:
    time = step_time(p)
    parts = [float(getattr(time, f.name)) for f in fields(StepTime)]
    assert min(parts) >= 0 and np.isfinite(parts).all()
    assert time.total_s == pytest.approx(sum(parts), rel=1e-12)


@settings(max_examples=30)
@given(st.lists(pricings(), min_size=2, max_size=4))
def test_an_array_of_plans_is_priced_as_each_of_them(singles: list[Pricing]) -> None:
    """Whatever the models, plans, clusters and software of its neighbours."""
    many = step_time(gathered(singles))
    for i, single in enumerate(map(step_time, singles)):
        for f in fields(StepTime):
            value = np.broadcast_to(getattr(many, f.name), len(singles))[i]
            assert value == pytest.approx(float(getattr(single, f.name)), rel=1e-12, abs=1e-15)


@settings(max_examples=40)
@given(pricings(), st.integers(0, 6), FACTOR)
def test_a_faster_link_never_makes_a_step_slower(p: Pricing, level: int, factor: float) -> None:
    links = list(p.machine.links)
    link = links[level]
    links[level] = Link(link.devices, link.bytes_per_s * factor, link.latency_s / factor)
    faster = replace(p, machine=replace(p.machine, links=tuple(links)))
    assert step_time(faster).total_s <= step_time(p).total_s * (1 + 1e-12)


@settings(max_examples=40)
@given(pricings(), FACTOR)
def test_more_memory_bandwidth_never_makes_a_step_slower(p: Pricing, factor: float) -> None:
    """Where transfers hide in no more than the pass that they overlap, and weight gradients, which
    get shorter, fill no bubble.
    """
    names = ("data_overlap", "gather_overlap")
    shares = {name: np.minimum(getattr(p.stack, name), 1.0) for name in names}
    p = replace(p, stack=replace(p.stack, **shares))
    assume(not SCHEDULES[int(p.choice.schedule)].startswith("zb"))
    wide = replace(p.machine, memory_bytes_per_s=p.machine.memory_bytes_per_s * factor)
    assert step_time(replace(p, machine=wide)).total_s <= step_time(p).total_s * (1 + 1e-12)


@settings(max_examples=40)
@given(pricings(), FACTOR)
def test_more_to_compute_never_takes_less(p: Pricing, factor: float) -> None:
    more = replace(p.choice, micro_batches=p.choice.micro_batches * np.ceil(factor))
    assert step_time(replace(p, choice=more)).total_s >= step_time(p).total_s


@settings(max_examples=40)
@given(pricings())
def test_what_is_not_split_waits_for_nobody(p: Pricing) -> None:
    time, c = step_time(p), p.choice
    if c.tp == 1:
        assert time.tensor_s == 0
    if c.cp == 1:
        assert time.context_s == 0
    if c.ep == 1:
        assert time.expert_s == 0
    if c.pp == 1:
        assert time.bubble_s == time.send_s == 0
    if c.devices == c.pp:
        assert time.data_s == 0


RING = {"stride": n(1), "machine": tree((64, 100e9, 2e-6))}
BARE = replace(
    stack(), data_overlap=n(0), gather_overlap=n(0), contention=n(0), send_overlap=n(0)
)  # fmt: skip
"""Software that hides nothing."""


def bare(model: Model, words: dict[str, Any], **parts: Any) -> Pricing:
    plan = Plan.of(**words, **parts, numerics=Numerics("bfloat16"))
    return replace(priced(model, plan), machine=RING["machine"], stack=BARE)


def data_s(model: Model, **words: Any) -> float:
    batch = Batch(words["dp"], 1, 2048)
    return float(step_time(bare(model, words, batch=batch)).data_s)


def test_replicas_take_the_collectives_of_their_gradients_and_parameters_by_hand() -> None:
    """64 ranks; gradients have 4 bytes, parameters in use 2; ZeRO-3 gathers them once more, and
    waits for those of 1 layer at both ends of a pass (Rajbhandari et al., 2020)."""  # fmt: skip
    model = preset("gpt3-13b")
    size = float(priced(model, Plan()).plain_parameters)
    whole = float(all_reduce_s(n(4 * size), n(64), **RING))
    half, gather = (float(ring_s(n(k * size), n(64), **RING)) for k in (4, 2))
    assert data_s(model, dp=64) == pytest.approx(whole)
    assert data_s(model, dp=64, zero=1) == pytest.approx(half + gather)
    ends = (half + 2 * gather) / model.layers
    assert data_s(model, dp=64, zero=3) == pytest.approx(half + 2 * gather + ends)


def test_shards_of_some_ranks_are_reduced_among_the_replicas_of_each() -> None:
    model = preset("gpt3-13b")
    size = float(priced(model, Plan()).plain_parameters)
    scatter, gather = (float(ring_s(n(k * size), n(8), **RING)) for k in (4, 2))
    replicas = float(all_reduce_s(n(4 * size / 8), n(8), **RING | {"stride": n(8)}))
    assert data_s(model, dp=64, zero=1, shard=8) == pytest.approx(scatter + replicas + gather)


def test_a_dense_model_reduces_no_experts() -> None:
    """Whatever a plan says of experts, not even a latency."""
    model = preset("gpt3-13b")
    one, other = (data_s(model, dp=32, tp=2, zero=1, ep=ep) for ep in (1, 8))
    assert one == other
    size = float(priced(model, Plan.of(tp=2)).plain_parameters)
    halves = (ring_s(n(k * size), n(32), **RING | {"stride": n(2)}) for k in (4, 2))
    assert one == pytest.approx(sum(float(x) for x in halves))


def test_experts_without_data_parallelism_are_reduced_among_tensor_ranks() -> None:
    """Each of 8 tensor ranks has whole experts: 4 sets of them in 2 copies."""
    model = preset("mixtral-8x7b")
    p = bare(model, {"tp": 8, "ep": 4, "etp": 1}, batch=Batch(1, 1, 2048))
    size = 4 * 32 * 2 * 3 * 4096 * 14_336  # bytes × layers × experts × matrices of each
    by_hand = all_reduce_s(n(size), n(2), **RING | {"stride": n(4)})
    assert step_time(p).data_s == pytest.approx(float(by_hand))


def test_stages_send_each_micro_batch_both_ways() -> None:
    """Of 8 micro-batches: 16 messages, and 6 more while the pipeline of 4 fills and drains."""
    batch = Batch(8, 1, 2048)
    p = bare(preset("gpt3-13b"), {"pp": 4}, pipeline=Pipeline("1f1b"), batch=batch)
    one = 2 * 2048 * 5120 / 100e9 + 2e-6
    assert step_time(p).send_s == pytest.approx((2 * 8 + 2 * 3) * one)


def test_ranks_beyond_eight_straggle_more_each_time_they_double() -> None:
    shares = []
    for dp in (8, 16, 64):
        time = step_time(bare(preset("gpt3-13b"), {"dp": dp}, batch=Batch(dp, 1, 2048)))
        shares.append(float(time.straggle_s / (time.total_s - time.straggle_s)))
    assert shares == pytest.approx([k * float(BARE.straggle) for k in (0, 1, 3)])
