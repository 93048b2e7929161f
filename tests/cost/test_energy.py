"""Energy and money: between idle and full power, in parts that sum."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from tests.cost.cases import n, pricings

from stretto.cluster import find
from stretto.cost import Pricing, StepTime, cost, record, stack
from stretto.cost.energy import Bill, bill
from stretto.cost.step import step_time
from stretto.plan import Batch, Numerics, Plan
from stretto.presets import preset


@settings(max_examples=30)
@given(pricings())
def test_a_step_takes_more_than_idle_and_less_than_full_power(p: Pricing) -> None:
    time = step_time(p)
    energy, machine = bill(p, time), p.machine
    parts = (energy.compute_j, energy.memory_j, energy.idle_j)
    assert min(parts) >= 0
    assert energy.energy_j == pytest.approx(float(sum(parts)))
    device_s = float(p.choice.devices * time.total_s)
    assert machine.idle_w * device_s < energy.energy_j < machine.compute_w * device_s


@settings(max_examples=30)
@given(pricings())
def test_money_is_the_price_of_all_devices_for_the_step(p: Pricing) -> None:
    dear = replace(p, machine=replace(p.machine, price_per_s=n(3)))
    time = step_time(p)
    assert bill(dear, time).money == pytest.approx(3 * float(p.choice.devices * time.total_s))


@settings(max_examples=30)
@given(pricings())
def test_each_second_draws_the_power_of_what_bounds_it(p: Pricing) -> None:
    """One second of each part of a step: 2 of products, 4 of waiting, 8 of all else."""
    p = replace(p, machine=replace(p.machine, compute_w=n(100), memory_w=n(10), idle_w=n(1)))
    p = replace(p, choice=replace(p.choice, pp=n(1)))  # of stages, one has more of them than others
    energy = bill(p, record(StepTime, **{f.name: 1 for f in fields(StepTime)}))
    by_hand = [float(p.choice.devices) * w for w in (2 * 100, 8 * 10, 4 * 1)]
    assert [energy.compute_j, energy.memory_j, energy.idle_j] == pytest.approx(by_hand)


def staged(pp: int) -> Bill:
    """Give the bill of eight layers and a head as long as two or three of them, in stages."""
    model = replace(preset("llama-3-8b"), layers=8)
    plan = Plan.of(
        pp=pp, dp=1, tp=1, zero=0, numerics=Numerics("bfloat16"), batch=Batch(16, 1, 4096)
    )
    return cost(model, plan, cluster=find("h100", devices=pp), stack=stack("modern")).bill


def test_products_take_the_same_energy_in_uneven_stages_as_on_one_device() -> None:
    alone, apart = staged(1), staged(4)
    assert apart.compute_j == pytest.approx(float(alone.compute_j))
    assert apart.idle_j > 4 * alone.idle_j  # three wait for the one with the head
