"""Chance lengthens a step as statistics say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.simulate.toy import cluster, model, plan, silent, software

from stretto.errors import InputError
from stretto.program.instruction import Program
from stretto.program.lower import lower
from stretto.simulate import Halt, simulate
from stretto.simulate.jitter import MOST_TASKS, Jitter, jittered
from stretto.timeline import KINDS


def played(program: Program, **words: float) -> Jitter:
    given = {"sigma": 0.1, "steps": 40, "seed": 3} | words
    here = silent(program.placement.mesh.size)
    return jittered(
        program, here, stack=software(), sigma=given["sigma"], steps=int(given["steps"]),
        seed=int(given["seed"]),
    )  # fmt: skip


def test_on_one_rank_the_mean_step_is_the_calm_one_and_its_spread_that_of_a_sum() -> None:
    program = lower(model(), plan(micro_batches=4))
    found = played(program, steps=400, sigma=0.2)
    line = simulate(program, cluster(1), stack=software())
    work = line.work_s[line.kind == KINDS.index("device")]
    assert found.calm_s == line.step_s
    # The variance of a log-normal number of mean 1 is e^σ² - 1; tasks are independent.
    spread = math.sqrt((math.exp(0.2**2) - 1) * (work**2).sum())
    assert found.spread_s == pytest.approx(spread, rel=0.15)
    assert abs(found.mean_s - found.calm_s) < 4 * spread / math.sqrt(400)


def test_the_more_ranks_must_wait_for_the_slowest_the_more_is_lost() -> None:
    lost = [played(lower(model(), plan(dp=dp))).lost for dp in (1, 4, 16)]
    assert lost[0] < lost[1] < lost[2]


def test_the_slowest_of_many_is_as_much_slower_as_order_statistics_say() -> None:
    # With one message at the end, a step takes the largest of 16 sums of alike spread.
    program, sigma = lower(model(), plan(dp=16)), 0.05
    found = played(program, steps=200, sigma=sigma)
    line = simulate(program, silent(16), stack=software())
    work = line.work_s[(line.kind == KINDS.index("device")) & (line.player == 0)]
    spread = sigma * math.sqrt((work**2).sum())
    expected = 1.766 * spread / line.step_s  # of 16 normal numbers (Harter, 1961)
    assert found.lost == pytest.approx(expected, rel=0.15)


def test_the_same_seed_gives_the_same_steps_and_another_others() -> None:
    program = lower(model(), plan(dp=2))
    one, again, other = (played(program, seed=s, steps=3).steps_s for s in (1, 1, 2))
    assert one == again and set(one).isdisjoint(other)
    assert played(program, seed=1, steps=5).steps_s[:3] == one


def test_quantiles_are_of_the_steps() -> None:
    found = Jitter(0.1, 1.0, (1.0, 1.1, 1.2, 1.3, 1.4))
    assert found.mean_s == pytest.approx(1.2) and found.lost == pytest.approx(0.2)
    assert found.quantile_s(0.5) == pytest.approx(1.2)
    assert found.spread_s == pytest.approx(np.std([1.0, 1.1, 1.2, 1.3, 1.4], ddof=1))
    assert Jitter(0.1, 1.0, (1.0,)).spread_s == 0.0


def test_all_that_keeps_chance_from_being_played_is_told() -> None:
    program = lower(model(), plan(dp=2))
    with pytest.raises(InputError) as caught:
        jittered(program, cluster(2), stack=software(), sigma=2.0, steps=0, faults=[Halt(0)])
    assert str(caught.value).split("\n") == [
        "jitter: is 2, not above 0 and at most 1; use 0.05",
        "steps: is 0, below 1; use 1 or more",
        "jitter: a step that halts has no length; leave out one of them",
    ]


def test_more_tasks_than_fit_are_refused_with_their_number() -> None:
    program = lower(model(vocab=4096), plan(dp=2**14, micro_batches=64))
    each = sum(len(stage.instructions) for stage in program.stages)
    with pytest.raises(InputError) as caught:
        jittered(program, cluster(2**14), stack=software(), sigma=0.1, steps=1)
    assert (
        f"each of 16384 ranks is played: about {each * 2**14 // 2:,} tasks, more than "
        f"{MOST_TASKS:,}; use fewer ranks, or fewer micro-batches" in str(caught.value)
    )
