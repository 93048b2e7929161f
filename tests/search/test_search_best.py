"""What a search finds: the least of all that can be."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from cases import TASKS, task

from stretto.cost import cost
from stretto.errors import InputError
from stretto.search import (
    Answer,
    Constraint,
    Found,
    Options,
    Training,
    answer,
    fleets,
    offloaded,
    rescues,
    search,
    sensitivity,
)


@pytest.fixture(scope="module")
def found() -> Found:
    return search(task())


def demands(*texts: str) -> tuple[Constraint, ...]:
    return tuple(Constraint.read(text) for text in texts)


@pytest.mark.parametrize("number", range(len(TASKS)))
def test_a_candidate_costs_what_its_plan_does(number: int) -> None:
    one = TASKS[number]
    found = search(one)
    for place in random.Random(number).choices(range(len(found.candidates)), k=30):
        plan = found.at(place).plan
        alone = cost(one.model, plan, cluster=one.cluster, stack=one.stack)
        assert found.candidates.time_s[place] == pytest.approx(float(alone.time.total_s), rel=1e-12)
        assert found.candidates.memory_bytes[place] == pytest.approx(
            float(alone.memory.total_bytes), rel=1e-12
        )
        assert found.candidates.energy_j[place] == pytest.approx(
            float(alone.bill.energy_j), rel=1e-12
        )


def test_no_candidate_is_faster_than_the_best(found: Found) -> None:
    assert found.best is not None
    assert found.best.step_s == pytest.approx(found.candidates.time_s.min(), rel=1e-12)


def test_all_candidates_fit(found: Found) -> None:
    assert found.candidates.memory_bytes.max() <= float(found.task.machine.memory_bytes)


def test_the_best_of_few_options_is_the_best_of_all_their_plans_priced_one_by_one() -> None:
    one = task("gpt2", "h100x4", sequences=16, seq=1024)
    options = Options(micro_batch=(1, 2), schedule=(1,), recompute=(0, 2), recompute_layers=(0,),
                      zero=(0, 1), shard=(0,), tensor_overlap=(0,), order=(0,))  # fmt: skip
    found = search(one, options=options)
    steps = []
    for place in range(len(found.candidates)):
        alone = cost(one.model, found.at(place).plan, cluster=one.cluster, stack=one.stack)
        steps.append(float(alone.time.total_s))
    assert found.best is not None
    assert found.best.step_s == pytest.approx(min(steps), rel=1e-12)
    # gpt2 has 12 heads: tp 1, 2 and 4; 1,024 positions leave cp none
    rows = found.candidates.rows(range(len(found.candidates)))
    meshes = np.stack([rows.pp, rows.dp, rows.tp], axis=1).astype(int).tolist()
    assert {(pp, dp, tp) for pp, dp, tp in meshes} == {
        (1, 1, 4), (1, 2, 2), (1, 4, 1), (2, 1, 2), (2, 2, 1), (4, 1, 1),
    }  # fmt: skip


def test_whether_a_candidate_runs_is_what_its_plan_says() -> None:
    for one in TASKS:
        found = search(one)
        for place in random.Random(2).choices(range(len(found.candidates)), k=60):
            plan = found.at(place).plan
            runs = not plan.unsupported(one.model) and not one.model.unsupported
            assert bool(found.candidates.runs[place]) == runs


def test_the_best_that_runs_is_not_faster_than_the_best_of_all(found: Found) -> None:
    assert found.best is not None and found.best_running is not None
    assert found.best_running.step_s >= found.best.step_s
    assert found.best_running.plan.unsupported(found.task.model) == ()


@pytest.mark.parametrize(
    "text",
    ["tp<=2", "pp=4", "zero!=3", "schedule=1f1b,gpipe", "recompute=full", "memory<=20GB",
     "time<=60s", "mfu>=0.3", "micro_batch>1", "recompute_layers=all", "regather=true"],
)  # fmt: skip
def test_every_candidate_meets_a_constraint(text: str) -> None:
    (demand,) = demands(text)
    found = search(task(), constraints=[demand])
    assert len(found.candidates)
    rows = found.candidates.rows(range(len(found.candidates)))
    results = {"memory": found.candidates.memory_bytes, "time": found.candidates.time_s}
    if demand.key in results:
        assert demand.holds(results).all()
    elif demand.key == "mfu":
        for place in (0, len(found.candidates) - 1):
            assert float(found.at(place).estimate.mfu) >= 0.3
    else:
        assert demand.holds({demand.key: getattr(rows, demand.key)}).all()


@pytest.mark.parametrize("text", ["micro_batch=3", "codec=int8", "two_level=true", "interleave=3",
                                  "offload=0.25", "shard=4", "recompute_layers=3"])  # fmt: skip
def test_what_is_demanded_is_tried_even_if_it_is_unusual(text: str) -> None:
    found = search(task("llama-3-8b", "h100x16", sequences=96), constraints=demands(text))
    (demand,) = found.constraints
    rows = found.candidates.rows(range(len(found.candidates)))
    assert len(found.candidates)
    assert demand.holds({demand.key: getattr(rows, demand.key)}).all()


def test_a_constraint_leaves_the_best_of_those_that_meet_it(found: Found) -> None:
    tight = search(found.task, constraints=demands("tp>=4"))
    rows = found.candidates.rows(range(len(found.candidates)))
    assert tight.best is not None
    assert tight.best.step_s == pytest.approx(
        found.candidates.time_s[rows.tp >= 4].min(), rel=1e-12
    )


def test_constraints_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match=r"no value meets tp<=2 and tp>=4"):
        search(task(), constraints=demands("tp<=2", "tp>=4"))


def test_memory_headroom_is_the_smallest_of_those_as_fast_as_can_be_told(found: Found) -> None:
    roomy = search(found.task, objective="memory-headroom")
    assert roomy.best is not None and found.best is not None
    near = found.candidates.time_s <= found.best.step_s * 1.05
    assert roomy.best.memory_bytes == pytest.approx(found.candidates.memory_bytes[near].min())


def test_energy_is_the_least_energy(found: Found) -> None:
    frugal = search(found.task, objective="energy")
    assert frugal.best is not None
    assert frugal.best.energy_j == pytest.approx(found.candidates.energy_j.min(), rel=1e-12)


def test_twice_of_something_never_hurts(found: Found) -> None:
    for change in sensitivity(found):
        assert change.speedup(found) >= 1 - 1e-9, change.what


def test_twice_the_devices_of_a_node_are_two_nodes() -> None:
    found = search(task("gpt2", "h100x8", sequences=64, seq=1024))
    twice = next(change for change in sensitivity(found) if change.what == "2 × devices")
    assert (twice.found.task.cluster.nodes, twice.found.task.cluster.per_node) == (2, 8)


def test_no_more_devices_are_asked_about_than_there_are() -> None:
    whole = task("gpt2", "h100x8", sequences=64, seq=1024)
    found = search(replace(whole, system=None))
    assert "2 × devices" not in [change.what for change in sensitivity(found)]


def test_one_device_has_no_links_to_be_faster() -> None:
    found = search(task("gpt2", "h100x1", sequences=64, seq=1024))
    assert [change.what for change in sensitivity(found)] == [
        "2 × device memory", "2 × devices", "2 × batch",
    ]  # fmt: skip
    assert len(fleets(found)) == 1


def test_fewer_devices_take_longer(found: Found) -> None:
    sizes = fleets(found)
    steps = [change.found.best.step_s for change in sizes if change.found.best]
    assert [change.found.task.devices for change in sizes[:2]] == [16, 8]
    assert steps == sorted(steps)


def test_what_is_cheapest_may_take_fewer_devices() -> None:
    one = task()
    fast, cheap = (answer(one, tokens=1e9, objective=o) for o in ("time", "cost"))
    assert isinstance(fast, Answer) and isinstance(cheap, Answer)
    assert cheap.best.money <= fast.best.money
    assert fast.best.task.devices == 16


def test_a_model_that_fits_nowhere_leaves_the_plan_that_needs_least() -> None:
    found = search(task("llama-3-70b", "h100x2", sequences=16))
    assert found.best is None and len(found.candidates) == 0
    assert found.least is not None
    assert found.least.memory_bytes > float(found.task.machine.memory_bytes)


def test_host_memory_makes_room() -> None:
    found = search(task("llama-3-70b", "h100x8", sequences=64))
    assert found.best is None
    assert offloaded(found).best is not None


def test_what_would_fit_fits() -> None:
    found = search(task("llama-3-70b", "h100x4", sequences=64))
    changes = rescues(found)
    assert changes
    assert all(change.found.best is not None for change in changes)
    assert changes[0].found.task.devices in (8, 16, 32, 64)


def test_the_steps_of_a_training_see_all_tokens(found: Found) -> None:
    assert found.best is not None
    training = Training.of(found.best, 1_000_000)
    assert training.steps == 4  # 64 × 4,096 = 262,144 tokens a step
    assert training.seconds == pytest.approx(4 * found.best.step_s)


def test_the_best_accepted_plan_is_told_with_the_best_of_all() -> None:
    one = task()
    result = answer(one, tokens=1e9, accepts=lambda plan: plan.extent("pp") == 2)
    assert isinstance(result, Answer)
    assert result.best.plan.extent("pp") == 2
    pipelined = search(one, constraints=demands("pp=2"))
    assert pipelined.best is not None
    assert result.best.step_s == pytest.approx(pipelined.best.step_s, rel=1e-12)


def test_places_within_the_error_are_all_that_are(found: Found) -> None:
    assert found.best is not None
    within = found.candidates.time_s <= found.best.step_s * 1.05
    assert sorted(found.within_error) == np.flatnonzero(within).tolist()


def test_each_mesh_and_each_family_is_told_once_best_first(found: Found) -> None:
    meshes = [found.at(int(p)) for p in found.mesh_firsts]
    shapes = [tuple(int(getattr(m.row, n)) for n in ("pp", "dp", "cp", "tp", "ep")) for m in meshes]
    assert len(set(shapes)) == len(shapes)
    kinds = found.candidates.family[found.family_firsts]
    assert len(set(kinds.tolist())) == len(kinds) == len(np.unique(found.candidates.family))
    steps = found.candidates.time_s[found.family_firsts]
    assert (np.diff(steps) >= 0).all()


def test_a_slower_machine_is_never_faster() -> None:
    one = task()
    level = one.cluster.levels[-1]
    slow = replace(
        one.cluster,
        levels=(*one.cluster.levels[:-1], replace(level, bytes_per_s=level.bytes_per_s / 4)),
    )
    fast_best, slow_best = search(one).best, search(one.on(slow)).best
    assert fast_best is not None and slow_best is not None
    assert slow_best.step_s >= fast_best.step_s
