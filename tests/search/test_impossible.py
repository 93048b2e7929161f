"""Why nothing can be."""

from __future__ import annotations

import pytest
from cases import EXPERTS, task

from stretto.cluster import find
from stretto.presets import preset
from stretto.search import (
    Answer,
    Constraint,
    Found,
    Objective,
    Task,
    answer,
    nothing,
    rescues,
    search,
    why_not,
)
from stretto.search.search import search_with_host
from stretto.units import show_bytes


def demands(*texts: str) -> tuple[Constraint, ...]:
    return tuple(Constraint.read(text) for text in texts)


def test_a_search_that_found_a_plan_has_nothing_to_explain() -> None:
    assert nothing(search(task())) == ()


def test_a_rule_that_every_plan_breaks_is_told_alone() -> None:
    # 3 divides no batch of 64; that some plans also have too few positions is no reason.
    (problem,) = why_not(task(), demands("micro_batch=3")).problems
    assert "× 3 does not 64 sequences" in problem.rule


@pytest.mark.parametrize(
    ("text", "expected"),
    [("mfu>=99%", "the nearest mfu is "), ("energy<=1Wh", "the nearest energy is "),
     ("cost<=0.000001", "the nearest cost is ")],
)  # fmt: skip
def test_a_demand_that_no_plan_meets_is_told_the_nearest_that_one_does(
    text: str, expected: str
) -> None:
    (problem,) = nothing(search(task(), constraints=demands(text)))
    assert expected in problem.rule


def test_the_nearest_share_of_the_peak_is_that_of_the_fastest_plan() -> None:
    best = search(task()).best
    assert best is not None
    (problem,) = nothing(search(task(), constraints=demands("mfu>=99%")))
    assert f"the nearest mfu is {float(best.estimate.mfu):.1%};" in problem.rule


def test_demands_of_speed_are_met_with_the_hosts_memory_too() -> None:
    # 405 G parameters fit 64 devices with the host's memory alone.
    one = task("llama-3.1-405b", "h100x64", sequences=64)
    found = search_with_host(one, constraints=demands("time<=1ms"))
    assert found.best is None and found.least is not None and found.least.estimate.fits
    (problem,) = nothing(found)
    assert "plans that fit meets time<=1ms" in problem.rule


def test_more_devices_are_told_without_and_with_the_hosts_memory() -> None:
    found = search_with_host(task("llama-3-70b", "h100x2", sequences=64))
    assert found.best is None
    plain, hosted = (c for c in rescues(found) if "devices" in c.what)
    assert "host" not in plain.what and hosted.what.endswith("and the host's memory")
    assert hosted.found.task.devices < plain.found.task.devices
    assert plain.found.best is not None and hosted.found.best is not None
    memory = plain.found.best.plan.memory
    assert (memory.offload, memory.optimizer_offload) == (0, 0)


def test_devices_do_not_help_where_the_share_of_the_peak_is_too_low() -> None:
    assert rescues(search(task(), constraints=demands("mfu>=99%"))) == ()


def test_only_what_runs_is_left_where_that_is_demanded() -> None:
    found = search(task(), constraints=demands("runs=true"))
    assert found.best is not None
    assert found.candidates.runs.all()
    assert found.best.plan == (search(task()).best_running or found.best).plan


def test_a_model_that_does_not_run_is_told_why_where_that_is_demanded() -> None:
    one = Task(EXPERTS, find("h100x4"), 32, 4096)
    (problem,) = nothing(search(one, constraints=demands("runs=true")))
    assert "mixture of 8 experts" in problem.rule


def test_what_runs_and_does_not_fit_is_told_by_how_much_and_what_would_help() -> None:
    one = Task(preset("llama-3-70b"), find("h100x8"), 1024, 8192)
    assert search_with_host(one).best is not None  # offloaded, which does not run
    found = search(one, constraints=demands("runs=true"))
    (problem,) = nothing(found)
    assert found.least is not None
    assert problem.field == "memory" and show_bytes(found.least.memory_bytes) in problem.rule
    # Parameters, gradients and state of 70.6 G at 16 bytes, over 8 devices, are 131 GiB.
    assert found.least.memory_bytes > 131 * 2**30
    assert not found.least.plan.unsupported(one.model)
    assert all(change.found.candidates.runs.all() for change in rescues(found))


def test_the_best_plan_is_not_told_as_another_where_it_is_accepted() -> None:
    found = answer(task(), tokens=1e9, accepts=lambda plan: True)
    assert isinstance(found, Answer)
    assert found.refused is None


def test_where_no_plan_is_accepted_the_search_is_given() -> None:
    found = answer(task(), tokens=1e9, accepts=lambda plan: False)
    assert isinstance(found, Found)
    assert found.best is not None


def test_no_front_ends_in_a_plan_that_takes_ten_times_as_long() -> None:
    one = task("llama-3-8b", "two-sitesx128")
    found = answer(one, tokens=1e9)
    assert isinstance(found, Answer)
    whole = found.found.candidates.time_s
    assert whole.max() > 10 * whole.min()  # so that there is something to leave out
    for front in (found.memory_front, found.energy_front):
        assert all(plan.step_s <= 10 * found.best.step_s for plan in front)


@pytest.mark.parametrize("objective", ["cost", "energy"])
def test_what_costs_least_is_the_least_of_full_searches_on_fewer_devices(
    objective: Objective,
) -> None:
    one = task("llama-3-8b", "h100x32", sequences=512, seq=8192)
    found = answer(one, tokens=1e9, objective=objective)
    assert isinstance(found, Answer)
    alone = (search(one.on(one.cluster.at(n)), objective=objective).best for n in (32, 16, 8, 4))
    spent = [p.money if objective == "cost" else p.energy_j for p in alone if p is not None]
    own = found.best.money if objective == "cost" else found.best.energy_j
    assert own == pytest.approx(min(spent), rel=1e-12)
