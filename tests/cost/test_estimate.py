"""Estimates: utilisation by the conventions of the papers, and one price for one or for many."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cost.cases import n, priced, pricings

from stretto.cluster import find
from stretto.cost import Bill, Estimate, Pricing, cost, estimate, gathered, stack
from stretto.plan import Batch, Memory, Numerics, Pipeline, Plan
from stretto.presets import preset


@settings(max_examples=30)
@given(pricings())
def test_what_runs_again_counts_in_hfu_alone(p: Pricing) -> None:
    e, c = estimate(p), p.choice
    if c.again_core == c.again_matrix == 0:
        assert e.hfu == e.mfu
    else:
        assert e.hfu > e.mfu
    assert 0 < e.hfu < 1


@settings(max_examples=20)
@given(st.lists(pricings(), min_size=2, max_size=3))
def test_an_array_of_estimates_is_each_of_them(singles: list[Pricing]) -> None:
    many = estimate(gathered(singles))
    for i, one in enumerate(map(estimate, singles)):
        for name in ("tokens_per_s_per_device", "mfu", "hfu"):
            assert getattr(many, name)[i] == pytest.approx(float(getattr(one, name)), rel=1e-12)
        for f in fields(Bill):
            value = np.broadcast_to(getattr(many.bill, f.name), len(singles))[i]
            assert value == pytest.approx(float(getattr(one.bill, f.name)), rel=1e-12)
        assert many.fits[i] == one.fits


def gpt(recompute: Any) -> Estimate:
    """96 layers of 12,288 with 51,200 tokens, 1 sequence of 2,048 on each of 8 × 8 ranks."""
    model = replace(preset("gpt3-175b"), vocab=51_200)
    plan = Plan.of(
        pp=8, tp=8, memory=Memory(recompute), numerics=Numerics("bfloat16"),
        pipeline=Pipeline("1f1b"), batch=Batch(16, 1, 2048),
    )  # fmt: skip
    return estimate(priced(model, plan))


def device_flops(e: Estimate, share: Any) -> float:
    """Give the FLOPs of a step that a utilisation stands for."""
    p = e.pricing
    return float(share * e.time.total_s * p.choice.devices * p.machine.peak(n(1)))


B, S, L, H, V = 16, 2048, 96, 12_288, 51_200
CAUSAL = (S + 1) / (2 * S)  # of the scores that the papers count


def test_mfu_counts_model_flops() -> None:
    """72·B·s·l·h²·(1 + s/(6h) + V/(12·h·l)) (Narayanan et al., 2021), causal scores by half."""
    by_hand = 72 * B * S * L * H**2 * (1 + CAUSAL * S / (6 * H) + V / (12 * H * L))
    for recompute in ("none", "full"):
        e = gpt(recompute)
        assert device_flops(e, e.mfu) == pytest.approx(by_hand)


def test_hfu_counts_what_full_recomputation_does() -> None:
    """96·B·s·l·h²·(1 + s/(6h) + V/(16·h·l)) (Narayanan et al., 2021): the head runs once."""
    by_hand = 96 * B * S * L * H**2 * (1 + CAUSAL * S / (6 * H) + V / (16 * H * L))
    e = gpt("full")
    assert device_flops(e, e.hfu) == pytest.approx(by_hand)


def test_throughput_and_fitting_are_those_of_time_and_memory() -> None:
    e = gpt("none")
    assert e.tokens_per_s_per_device == pytest.approx(B * S / 64 / float(e.time.total_s))
    for room, fits in ((1.01, True), (0.99, False)):
        roomy = replace(e.pricing.machine, memory_bytes=e.memory.total_bytes * room)
        assert bool(estimate(replace(e.pricing, machine=roomy)).fits) is fits


@settings(max_examples=10)
@given(st.sampled_from(["llama-3-8b", "mixtral-8x7b"]), st.sampled_from(["modern", "eager"]))
def test_the_cost_of_a_plan_is_the_estimate_of_its_numbers(name: str, software: str) -> None:
    model, plan = preset(name), Plan.of(dp=4, tp=2, zero=1, batch=Batch(8, 1, 4096))
    whole = cost(model, plan, cluster=find("h100x8"), stack=stack(software))
    numbers = estimate(priced(model, plan, software=software))
    assert whole.time == numbers.time and whole.bill == numbers.bill
