"""Why a plan loses, and why one cannot be."""

from __future__ import annotations

import pytest
from cases import EXPERTS, task

from stretto.cluster import find
from stretto.cost import StepTime
from stretto.cost.memory import PARTS as MEMORY_PARTS
from stretto.search import (
    PARTS,
    USES,
    Constraint,
    Found,
    Priced,
    Task,
    more,
    nothing,
    parts,
    search,
    uses,
    why_not,
)


def demands(*texts: str) -> tuple[Constraint, ...]:
    return tuple(Constraint.read(text) for text in texts)


@pytest.fixture(scope="module")
def found() -> Found:
    return search(task())


@pytest.fixture(scope="module")
def best(found: Found) -> Priced:
    assert found.best is not None
    return found.best


def test_every_part_of_a_step_and_of_memory_has_a_name() -> None:
    assert set(PARTS) == set(StepTime.__slots__)
    assert set(USES) == set(MEMORY_PARTS)


def test_the_parts_of_a_step_sum_to_it(best: Priced) -> None:
    assert sum(part.seconds for part in parts(best)) == pytest.approx(best.step_s)


def test_what_fills_a_rank_sums_to_its_memory(best: Priced) -> None:
    assert sum(size for _, size in uses(best)) == pytest.approx(best.memory_bytes)


def test_what_a_plan_takes_more_sums_to_how_much_longer_it_takes(
    found: Found, best: Priced
) -> None:
    for place in found.family_firsts:
        other = found.at(int(place))
        differences = more(other, best)
        assert sum(part.seconds for part in differences) == pytest.approx(
            other.step_s - best.step_s
        )
        sizes = [abs(part.seconds) for part in differences]
        assert sizes == sorted(sizes, reverse=True)


def test_a_plan_that_is_asked_about_is_the_best_that_is_so(found: Found, best: Priced) -> None:
    why = why_not(found.task, demands("tp=8", "zero=0"))
    assert why.problems == ()
    assert why.priced is not None
    assert (why.priced.plan.extent("tp"), why.priced.plan.words.zero) == (8, 0)
    assert why.priced.step_s >= best.step_s


def test_a_plan_that_does_not_fit_is_told_by_how_much() -> None:
    why = why_not(task("llama-3-70b", "h100x8", sequences=8), demands("tp=1", "pp=1", "zero=0"))
    assert why.priced is not None
    (problem,) = why.problems
    assert "but a device has 79.11 GiB" in problem.rule
    assert "too little" in problem.rule


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("tp=3",), "tp 3 does not divide 16 devices"),
        (("tp=8", "pp=4"), "tp 8 × pp 4 = 32 does not divide 16 devices"),
        (("pp=2", "dp=2", "cp=1", "tp=2"), "is not 16 devices"),
        (("micro_batch=3",), "does not 64 sequences"),
        (("cp=16",), "fewer than the 2048 that are tried"),
        (("pp=16", "interleave=4"), "16 × 4 stages are more than the model's 32 layers"),
        (("shard=3", "zero=3"), "shard must divide dp × cp, but 3 does not"),
        (("pp=8", "schedule=interleaved", "dp=2", "micro_batch=32"), "takes them in rounds of pp"),
    ],
)
def test_a_plan_that_cannot_be_is_told_the_rule_with_its_numbers(
    texts: tuple[str, ...], expected: str
) -> None:
    why = why_not(task(), demands(*texts))
    assert why.priced is None
    assert any(expected in problem.rule for problem in why.problems)


def test_heads_that_tensor_parallel_ranks_do_not_divide_are_told() -> None:
    why = why_not(task("smollm2-135m", "h100x8", sequences=8), demands("tp=2"))
    assert any("tp must divide 9 heads" in problem.rule for problem in why.problems)


def test_experts_that_do_not_divide_are_told() -> None:
    one = Task(EXPERTS, find("h100x32"), 32, 4096)
    why = why_not(one, demands("ep=16"))
    assert why.priced is None
    assert any("must divide the model's experts (8)" in p.rule for p in why.problems)


def test_a_model_that_is_too_large_is_told_by_how_much() -> None:
    (problem,) = nothing(search(task("llama-3-70b", "h100x2", sequences=16)))
    assert problem.field == "memory"
    assert "too little" in problem.rule


def test_constraints_that_leave_nothing_are_told_what_each_leaves_alone() -> None:
    (problem,) = nothing(search(task(), constraints=demands("tp>=8", "pp>=4")))
    assert problem.field == "constraint"
    assert "tp>=8" in problem.rule and "pp>=4" in problem.rule


def test_a_limit_that_no_plan_keeps_is_told_beside_the_fastest_and_the_smallest() -> None:
    (problem,) = nothing(search(task(), constraints=demands("time<=10ms")))
    assert "plans that fit meets time<=10ms" in problem.rule
    assert "the fastest takes" in problem.rule and "the smallest" in problem.rule


def test_devices_that_nothing_divides_over_are_told_which_batch_would_do() -> None:
    # 13 devices: more than gpt2 has layers, no divisor of its heads or of 64 sequences
    one = task("gpt2", "h100x13", sequences=64, seq=1024)
    problems = nothing(search(one))
    assert problems
    assert any("52 or 65 sequences" in problem.remedy for problem in problems)
