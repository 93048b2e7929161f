"""A folded step is the step, where a pipeline repeats itself."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulate.toy import cluster, model, modern, plan, silent, software

from stretto.plan import Plan
from stretto.program.lower import lower
from stretto.simulate import SlowRank, simulate
from stretto.simulate.fold import (
    MANY,
    Folded,
    fold,
    foldings,
    least_played,
    played,
    steady,
    with_micro_batches,
)
from stretto.timeline import usages


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from((1, 2, 4)), st.sampled_from(("1f1b", "gpipe")),
    st.sampled_from((1, 2)), st.sampled_from((0, 1)),
)  # fmt: skip
def test_what_is_not_played_adds_what_is_said(
    seed: int, pp: int, schedule: Any, dp: int, zero: int
) -> None:
    chance = random.Random(seed)
    cut = (0, *sorted(chance.sample(range(1, 10), pp - 1)))
    whole = plan(pp=pp, dp=dp, zero=zero, micro_batches=10 * pp, schedule=schedule, cut=cut)
    subject, here = model(layers=4), cluster(pp * dp, node=2)
    faults = [SlowRank(chance.randrange(pp * dp), chance.uniform(1.0, 2.0))]
    few = max(2 * pp, 4)
    folded = fold(
        subject, whole, here, stack=modern(), faults=faults, counts=(few, few + steady(whole))
    )
    line = simulate(lower(subject, whole), here, stack=modern(), faults=faults)
    assert folded.step_s == pytest.approx(line.step_s, rel=2e-3)
    for mine, theirs in zip(folded.usages(), usages(line), strict=True):
        assert mine.busy_s == pytest.approx(theirs.busy_s, abs=2e-3 * line.step_s)
        assert mine.step_s == pytest.approx(line.step_s, rel=4e-3)


def test_without_links_to_wait_for_each_micro_batch_adds_the_slowest_stage() -> None:
    whole = plan(pp=2, micro_batches=40, cut=(0, 2))
    subject, here = model(), silent(2)
    folded = fold(subject, whole, here, stack=software(), counts=(4, 8))
    (first, second) = folded.usages()
    busy = [usage.busy_s for usage in usages(folded.line)]
    fewer = [usage.busy_s for usage in usages(folded.fewer.line)] if folded.fewer else []
    each = [(a - b) / 4 for a, b in zip(busy, fewer, strict=True)]
    assert folded.each_s == pytest.approx(max(each), rel=1e-9)
    assert first.busy_s == pytest.approx(busy[0] + 32 * each[0])
    assert second.busy_s == pytest.approx(busy[1] + 32 * each[1])


def test_what_was_played_whole_is_itself() -> None:
    program = lower(model(), plan(dp=2))
    whole = played(program, cluster(2), stack=modern(straggle=0.1))
    folded = Folded(2, whole)
    assert folded.step_s == whole.line.step_s and folded.each_s == 0.0
    assert folded.expected_s == whole.line.expected_s
    assert [u.busy_s for u in folded.usages()] == [u.busy_s for u in usages(whole.line)]


def test_a_plan_with_other_micro_batches_has_other_sequences_and_nothing_else() -> None:
    some = with_micro_batches(plan(dp=2, micro_batches=8), 3)
    assert (some.micro_batches, some.batch.sequences) == (3, 2 * 2 * 3)
    assert some == plan(dp=2, micro_batches=3)


@pytest.mark.parametrize(
    ("stages", "micro_batches", "counts"),
    # A stage has as many blocks as the model's over the stages, rounded up: 2, 3 and 5.
    [(1, MANY, (8, 12)), (4, MANY // 3 + 1, (8, 12)), (4, MANY // 3, None), (1, 24, None),
     (64, 1600, (128, 192)), (64, MANY // 5, None)],
)  # fmt: skip
def test_long_steps_are_folded_once_their_pipeline_is_full_twice(
    stages: int, micro_batches: int, counts: tuple[int, int] | None
) -> None:
    blocks = {1: 2, 4: 10, 64: 258}[stages]
    made = Plan.of(pp=stages, dp=1, tp=1, zero=0)
    whole = with_micro_batches(made, micro_batches)
    assert foldings(whole, blocks=blocks) == counts
    assert least_played(whole) == 3 * max(stages, 4)
