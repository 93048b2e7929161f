"""Stages of unlike size: sized to the ends, to the devices and to the parts of a cluster."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.search.layers import FOUR, all_splits, row, tight

from stretto.cluster import Cluster, Level, Part, find
from stretto.presets import PRESETS
from stretto.search import Constraint, Priced, Task, search
from stretto.search.frame import Frame, as_is
from stretto.search.layerwise import mixed, same
from stretto.search.split import split
from stretto.search.uneven import Across, across, uneven


def of_two(fast: str, slow: str, *, each: int = 8) -> Cluster:
    """Give two kinds of device, each in nodes of its own, on one InfiniBand network."""
    parts = [find(name, devices=each) for name in (fast, slow)]
    return Cluster(
        f"{fast} and {slow}",
        tuple(Part(part.device, each, part.levels) for part in parts),
        (parts[0].levels[0], Level("spine", 2 * each, 12.5e9, 5e-6, sharers=4, efficiency=0.85)),
    )


@pytest.fixture(scope="module")
def mixed_devices() -> Across:
    task = Task(PRESETS["llama-2-7b"], of_two("a100-80gb", "v100-32gb"), 128, 4096)
    return across(search(task))


@pytest.fixture(scope="module")
def two_sites() -> Across:
    task = Task(PRESETS["llama-3.1-405b"], find("two-sites"), 1024, 4096)
    return across(search(task))


@pytest.mark.parametrize("micro_batches", [4, 16, 64])
def test_a_head_that_weighs_much_leaves_its_stage_fewer_layers(micro_batches: int) -> None:
    task = Task(PRESETS["llama-3-8b"], tight("h100x4", memory_bytes=1e12), micro_batches, 4096)
    plan = Priced.of(row(task, pp=4), task)
    cut, even = uneven(plan), as_is(Frame(task, plan.row)).priced()
    # The head's 128,256 × 4096 elements are those of 2.4 layers: an even cut leaves the last stage
    # with work for 10.4 layers, of 34.4 in all; with nine at most it can be done.
    assert even.layers == (8, 8, 8, 8)
    assert sum(cut.layers) == 32
    assert cut.layers[-1] == 6 and max(cut.layers) == 9
    assert cut.cost.load.total_s.max() < 0.95 * even.cost.load.total_s.max()
    assert cut.step_s < even.step_s


def test_a_cut_is_as_good_as_any() -> None:
    task = Task(FOUR, tight("h100x3", memory_bytes=80e9), 16, 4096)
    of = Frame(task, row(task, pp=3))
    plain = [one for one in all_splits(of) if not one.again[:, 1:].any()]
    found = split(of, mix=same(of))
    assert found is not None
    assert found.step_s == pytest.approx(min(one.step_s for one in plain))


def test_a_rank_with_several_stages_keeps_them() -> None:
    task = Task(replace(FOUR, layers=16), find("h100x4"), 16, 4096)
    plan = Priced.of(row(task, "interleaved", pp=4, interleave=2), task)
    assert uneven(plan).plan == plan.plan


def test_faster_devices_have_more_layers(mixed_devices: Across) -> None:
    plan = mixed_devices.plan
    assert plan is not None
    ranks = np.array(plan.wires.parts)
    layers = np.array(plan.layers)
    assert layers[ranks == 0].sum() > 2 * layers[ranks == 1].sum()
    # An A100 does 2.6 times what a V100 does, of 16 bits: none waits for long.
    assert plan.cost.load.total_s.max() < 1.5 * plan.cost.load.total_s.min()


@pytest.mark.parametrize("name", ["mixed_devices", "two_sites"])
def test_no_stage_lies_in_two_parts(name: str, request: pytest.FixtureRequest) -> None:
    plan = request.getfixturevalue(name).plan
    assert set(plan.wires.parts) == {0, 1}
    assert list(plan.wires.parts) == sorted(plan.wires.parts)
    assert plan.wires.crosses.sum() == 1


@pytest.mark.parametrize("name", ["mixed_devices", "two_sites"])
def test_each_rank_fits_the_memory_of_its_own_devices(
    name: str, request: pytest.FixtureRequest
) -> None:
    plan = request.getfixturevalue(name).plan
    assert plan.fits
    assert (plan.memory_bytes <= plan.limit_bytes).all()
    assert len(set(plan.limit_bytes)) == 2


def test_unlike_devices_are_faster_than_as_many_of_the_slowest(mixed_devices: Across) -> None:
    assert mixed_devices.plan is not None and mixed_devices.alike is not None
    assert mixed_devices.plan.step_s < 0.7 * mixed_devices.alike.step_s


def test_and_than_the_faster_part_alone(mixed_devices: Across) -> None:
    assert mixed_devices.plan is not None
    alone = [one.step_s for one in mixed_devices.alone if one is not None]
    assert mixed_devices.plan.step_s < min(alone)


def test_two_sites_train_what_neither_can_alone(two_sites: Across) -> None:
    assert two_sites.plan is not None and two_sites.alike is not None
    assert two_sites.alone == (None, None)
    assert two_sites.plan.step_s < 0.8 * two_sites.alike.step_s
    # 4 Mi tokens, 16,384 wide, 2 bytes each, over 80 % of 10 Gbit/s.
    assert two_sites.plan.step_s > 2**22 * 16_384 * 2 / 1e9


def test_where_the_link_is_too_slow_the_best_part_alone_is_told() -> None:
    task = Task(PRESETS["llama-3-70b"], find("two-sites"), 1024, 4096)
    found = across(search(task))
    first = found.alone[0]
    assert found.plan is not None and first is not None
    # 4 Mi tokens, 8192 wide, 2 bytes each, over 1 GB/s: 68.7 s, in which 64 H100 are done.
    assert found.plan.step_s > 68.7 > first.step_s
    assert found.best_alone


def test_the_plan_can_be_and_has_what_a_constraint_says() -> None:
    task = Task(PRESETS["llama-2-7b"], of_two("a100-80gb", "v100-32gb"), 128, 4096)
    found = across(search(task, constraints=[Constraint.read("tp=4")]))
    assert found.plan is not None
    assert found.plan.plan.words.tp == 4
    assert found.plan.plan.check(task.model, task.cluster) == ()


def test_the_best_of_what_is_tried_is_as_good_as_a_cut_by_hand() -> None:
    task = Task(FOUR, of_two("a100-80gb", "v100-32gb"), 64, 4096)
    found = across(search(task))
    assert found.plan is not None
    by_hand = Frame(task, row(task, pp=2, dp=8, zero=1, shard=8))
    best = split(by_hand, mix=mixed(by_hand))
    assert best is not None
    assert found.plan.step_s <= best.step_s * (1 + 1e-9)
