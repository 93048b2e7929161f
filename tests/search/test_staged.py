"""A plan priced rank by rank: what the estimate says where ranks are alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.search.layers import FOUR, WINDOWED

from stretto.cluster import Cluster, Level, Part, find
from stretto.cost import SCHEDULES, Choice, Pricing, stack
from stretto.cost.bubble import Load
from stretto.errors import PlanError
from stretto.model import Model
from stretto.plan import Batch, Group, Memory, Pipeline, Plan
from stretto.presets import PRESETS
from stretto.schedule import Pass
from stretto.schedule.gpipe import gpipe
from stretto.schedule.one_f_one_b import one_f_one_b
from stretto.search import Task, search
from stretto.search.ranks import RankCost
from stretto.search.staged import Staged, even, priced, step_s
from stretto.search.wires import hops_s

H100 = find("h100x8")


def staged(plan: Plan, model: Model = FOUR, cluster: Cluster = H100) -> Staged:
    return priced(plan, model, cluster=cluster, stack=stack())


def pipeline(**parts: object) -> Plan:
    return Plan.of(pp=4, dp=2, batch=Batch(64, 1, 4096), **parts)


@pytest.mark.parametrize(
    ("model", "cluster", "seed"),
    [("llama-3-8b", "h100x16", 0), ("llama-3-70b", "a100x64", 1), ("gpt3-13b", "frontierx32", 2)],
)
def test_ranks_that_are_alike_take_what_the_estimate_says(
    model: str, cluster: str, seed: int
) -> None:
    task = Task(PRESETS[model], find(cluster), 64, 2048)
    found = search(task)
    random, seen = np.random.default_rng(seed), 0
    for place in random.permutation(len(found.candidates))[:40]:
        one = found.at(int(place))
        stages = one.plan.stages
        name = SCHEDULES[int(one.row.schedule)]
        if task.model.layers % stages or name in ("vocabulary", "zb-v"):
            continue  # which the estimate prices as if all ranks had an end, or none
        seen += 1
        each = priced(one.plan, task.model, cluster=task.cluster, stack=task.stack)
        hops = hops_s(one.estimate.pricing)
        if len(hops) and np.ptp(hops) > 0:  # the estimate has the slowest stand for all
            assert 0.95 * one.step_s < each.step_s <= one.step_s * (1 + 1e-4)
        else:
            assert each.step_s == pytest.approx(one.step_s, rel=1e-4)
        assert each.memory_bytes.max() == pytest.approx(one.memory_bytes, rel=1e-9)
    assert seen > 10


def test_groups_that_cover_all_layers_take_what_the_plan_itself_does() -> None:
    plain = pipeline(memory=Memory("selective"))
    groups = pipeline(groups=(Group((0, 3), "selective"), Group((3, 4), "selective")))
    assert staged(groups).step_s == pytest.approx(staged(plain).step_s, rel=1e-12)
    np.testing.assert_allclose(staged(groups).memory_bytes, staged(plain).memory_bytes)


def test_a_group_takes_its_part_of_what_all_layers_would() -> None:
    alone = Plan.of(batch=Batch(64, 1, 4096))
    one = find("h100x1")
    none, some, all_ = (
        staged(replace(alone, groups=groups), cluster=one).step_s
        for groups in ((), (Group((1, 2), "full"),), (Group((0, 4), "full"),))
    )
    assert some - none == pytest.approx((all_ - none) / 4)


def test_the_layers_that_run_again_are_those_of_each_stage() -> None:
    short = Plan.of(pp=2, batch=Batch(64, 1, 4096), memory=Memory("full", 1))
    groups = Plan.of(
        pp=2, batch=Batch(64, 1, 4096), groups=(Group((0, 1), "full"), Group((2, 3), "full"))
    )
    two = find("h100x2")
    assert staged(groups, cluster=two).step_s == staged(short, cluster=two).step_s


def test_layers_by_another_zero_stage_hold_their_part_of_what_it_saves() -> None:
    plan = Plan.of(dp=8, zero=1, batch=Batch(64, 1, 4096))
    rules = Plan.of(dp=8, zero=3).rules
    half = replace(plan, groups=(Group((0, 2), None, rules),))
    whole = replace(plan, groups=(Group((0, 4), None, rules),))
    weights = [float(staged(p).cost.memory.weights_bytes.max()) for p in (plan, half, whole)]
    assert weights[0] - weights[1] == pytest.approx((weights[0] - weights[2]) / 2)


def test_groups_that_differ_in_more_than_their_zero_stage_are_refused() -> None:
    plan = Plan.of(dp=4, tp=2, batch=Batch(64, 1, 4096))
    other = replace(plan.rules, compute=(("batch", ("dp", "tp")),))
    with pytest.raises(PlanError, match="more than in what data-parallel ranks shard"):
        staged(replace(plan, groups=(Group((0, 2), None, other),)))
    three, two = (Plan.of(dp=4, tp=2, zero=zero).rules for zero in (3, 2))
    with pytest.raises(PlanError, match="ZeRO stages 2, 3"):
        staged(replace(plan, groups=(Group((0, 2), None, three), Group((2, 3), None, two))))


def test_a_stage_has_the_layers_that_the_cut_gives_it() -> None:
    cut = pipeline(pipeline=Pipeline("1f1b", (0, 3, 5, 7)))
    assert staged(cut).layers == (1, 1, 1, 1)
    head = pipeline(pipeline=Pipeline("1f1b", (0, 3, 7, 9)))
    assert staged(head).layers == (1, 2, 1, 0)
    within = staged(pipeline(pipeline=Pipeline("1f1b", (0, 2, 5, 7)))).layers
    assert sum(within) == 4 and 0 < within[0] < 1 < within[1]


def test_the_kinds_of_layer_are_priced_apart() -> None:
    one = Plan.of(pp=2, batch=Batch(64, 1, 4096))
    far = staged(one, replace(WINDOWED, full_layers=(2, 3)), find("h100x2"))
    first, last = far.cost.load.total_s
    near = staged(one, replace(WINDOWED, full_layers=(0, 1)), find("h100x2"))
    assert near.cost.load.total_s[0] > first
    assert near.cost.load.total_s[1] < last


def test_layers_that_do_not_divide_are_left_out_at_the_ends() -> None:
    assert even(32, stages=4) == (8, 8, 8, 8)
    assert even(30, stages=4) == (7, 8, 8, 7)
    assert even(61, stages=16) == (3, *[4] * 13, 3, 3)[:16]


@pytest.mark.parametrize("seed", range(40))
def test_a_step_of_unlike_ranks_is_no_shorter_than_if_it_is_played(seed: int) -> None:
    random = np.random.default_rng(seed)
    ranks, batches = int(random.integers(2, 7)), int(random.integers(1, 13))
    forward = random.uniform(0.5, 1.5, ranks)
    task = Task(FOUR, find(f"h100x{ranks}"), batches, 4096)
    for name, make in (("1f1b", one_f_one_b), ("gpipe", gpipe)):
        plan = staged(Plan.of(pp=ranks, batch=Batch(batches, 1, 4096), pipeline=Pipeline(name)),
                      cluster=task.cluster)  # fmt: skip
        load = Load(forward, forward, forward)
        load = replace(load, inputs_s=forward * 0.8, weights_s=forward * 1.2)
        bare = replace(stack(), step_s=np.zeros(()), straggle=np.zeros(()))
        on = replace(plan.wires, send_s=np.zeros(ranks - 1))
        pricing = replace(pricing_of(plan, task), stack=bare)
        own = float(step_s(pricing, RankCost(load, np.zeros(ranks), plan.cost.memory), on))
        cost_s = {Pass.FORWARD: [*forward], Pass.BACKWARD: [*(2 * forward)]}
        played = make(ranks, batches).step_s(cost_s)
        assert own >= played * (1 - 1e-12)
        assert own <= played * (1.25 if name == "1f1b" else 1 + 1e-12)


def pricing_of(plan: Staged, task: Task) -> Pricing:
    return Pricing(task.shape, Choice.of(plan.plan, task.model), plan.wires.machine, task.stack)


def two_parts(bytes_per_s: float, latency_s: float) -> Cluster:
    """Give two nodes of eight that one link joins."""
    node = find("h100x8")
    return Cluster(
        "two",
        tuple(Part(node.device, 8, node.levels) for _ in range(2)),
        (node.levels[0], Level("wide", 16, bytes_per_s, latency_s, sharers=8)),
    )


def test_a_step_is_no_shorter_than_the_slow_link_takes_for_its_activations() -> None:
    plan = Plan.of(pp=2, dp=8, zero=1, batch=Batch(512, 1, 4096))
    found = staged(plan, cluster=two_parts(1e8, 0.0))
    # 512 sequences of 4096 positions, 1024 wide, 2 bytes each, one way, over 100 MB/s.
    assert found.step_s >= 512 * 4096 * 1024 * 2 / 1e8
    assert found.wires.crosses.all() and found.wires.parts == (0, 1)


def test_the_latency_of_a_slow_link_hides_behind_micro_batches_that_are_held() -> None:
    plan = Plan.of(pp=2, dp=8, zero=1, batch=Batch(512, 1, 4096))
    near, far = (staged(plan, cluster=two_parts(1e12, latency)) for latency in (0.0, 1.0))
    # Two micro-batches are on their way at a time, of 64: 32 rounds there and back.
    assert far.step_s >= 32 * 2 * 1.0
    held = staged(replace(plan, pipeline=Pipeline("gpipe")), cluster=two_parts(1e12, 1.0))
    assert held.step_s < far.step_s / 5
    assert near.step_s < far.step_s / 5


def test_a_stage_over_two_parts_gathers_over_the_link_between_them() -> None:
    slow = staged(Plan.of(dp=16, zero=1, batch=Batch(512, 1, 4096)), cluster=two_parts(1e9, 0.0))
    assert slow.wires.parts == (-1,)
    # Gradients of 4 bytes leave a node and come: eight devices share 1 GB/s.
    assert slow.step_s > FOUR.parameter_count * 4 / 1e9


def test_what_a_step_costs_is_what_its_devices_do() -> None:
    mixed = replace(two_parts(1e10, 0.0), parts=(*two_parts(1e10, 0.0).parts[:1], Part(
        find("a100x8").device, 8, find("a100x8").levels)))  # fmt: skip
    found = staged(Plan.of(pp=2, dp=8, batch=Batch(64, 1, 4096)), cluster=mixed)
    price = sum(8 * part.device.price_per_hour for part in mixed.parts) / 3600
    assert found.money == pytest.approx(price * found.step_s)
    assert found.tokens_per_s == pytest.approx(64 * 4096 / found.step_s)
