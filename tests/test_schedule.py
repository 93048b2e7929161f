"""Schedules: who does what in which order. Laws first, then the textbook."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.plan import ScheduleName
from stretto.schedule import (
    RUNNABLE,
    SCHEDULES,
    Action,
    Pass,
    Schedule,
    balanced,
    gpipe,
    grid,
    interleaved,
    one_f_one_b,
    vocabulary,
    zb_1p,
    zb_v,
)

STAGES, MICRO_BATCHES = st.integers(1, 8), st.integers(1, 12)
COSTS = st.fixed_dictionaries({d: st.floats(0.1, 10) for d in Pass})


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Any schedule with numbers that it takes."""
    name = draw(st.sampled_from(sorted(SCHEDULES)))
    ranks, micro_batches = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    chunks = {"interleaved": draw(st.integers(1, 3)), "breadth-first": draw(st.integers(1, 3))}
    if name == "interleaved":
        micro_batches *= ranks
    return SCHEDULES[name](ranks, micro_batches, chunks=chunks.get(name, 1 + (name == "zb-v")))


@given(schedules())
def test_every_stage_does_every_pass_on_every_micro_batch_once(schedule: Schedule) -> None:
    actions = [a for rank in schedule.ranks for a in rank]
    every = itertools.product(
        schedule.passes, range(schedule.stages), range(schedule.micro_batches)
    )
    assert sorted((a.direction, a.stage, a.micro_batch) for a in actions) == sorted(every)
    assert Pass.FORWARD in schedule.passes
    assert (Pass.BACKWARD in schedule.passes) != (Pass.INPUT_GRADIENT in schedule.passes)
    assert (Pass.WEIGHT_GRADIENT in schedule.passes) == (Pass.INPUT_GRADIENT in schedule.passes)


@given(schedules(), COSTS, st.floats(0, 5))
def test_no_action_begins_before_what_it_needs_has_ended_and_arrived(
    schedule: Schedule, cost_s: dict[Pass, float], transfer_s: float
) -> None:
    times = schedule.times(cost_s, transfer_s=transfer_s)
    for rank in schedule.ranks:
        for before, after in itertools.pairwise(rank):
            assert times[after][0] >= times[before][1]
    for action, (start, _) in times.items():
        for needed in schedule.needs(action):
            away = schedule.rank_of(needed.stage) != schedule.rank_of(action.stage)
            assert times[needed][1] + away * transfer_s <= start


@given(schedules(), COSTS, st.floats(0, 5))
def test_an_action_begins_as_soon_as_its_rank_is_free_and_all_has_arrived(
    schedule: Schedule, cost_s: dict[Pass, float], transfer_s: float
) -> None:
    times = schedule.times(cost_s, transfer_s=transfer_s)
    for rank in schedule.ranks:
        for before, action in itertools.pairwise((None, *rank)):
            ready = [times[before][1]] if before else [0.0]
            for needed in schedule.needs(action):
                away = schedule.rank_of(needed.stage) != schedule.rank_of(action.stage)
                ready.append(times[needed][1] + away * transfer_s)
            assert times[action] == (max(ready), max(ready) + cost_s[action.direction])


@given(schedules(), COSTS)
def test_a_cost_for_each_stage_that_is_the_same_is_one_cost(
    schedule: Schedule, cost_s: dict[Pass, float]
) -> None:
    each = {d: [cost] * schedule.stages for d, cost in cost_s.items()}
    assert schedule.times(each) == schedule.times(cost_s)
    assert schedule.bubble(each, transfer_s=1.0) == schedule.bubble(cost_s, transfer_s=1.0)


@given(schedules())
def test_what_a_rank_holds_at_most_it_has_run_forward(schedule: Schedule) -> None:
    for r in range(len(schedule.ranks)):
        most = schedule.in_flight(r)
        assert 1 <= most <= schedule.chunks * schedule.micro_batches
        assert schedule.in_flight(r, kept=0.0) <= most


def test_every_schedule_that_a_plan_may_name_can_be_made() -> None:
    assert set(SCHEDULES) == set(get_args(ScheduleName))
    assert set(RUNNABLE) == {"gpipe", "1f1b"}


NAMES = st.sampled_from(("gpipe", "1f1b"))


@given(NAMES, STAGES, MICRO_BATCHES, st.floats(0.1, 10), st.floats(0.1, 10))
def test_the_bubble_is_that_of_the_textbook(
    name: str, stages: int, micro_batches: int, forward_s: float, backward_s: float
) -> None:
    """(p - 1)/(m + p - 1) of the step (Narayanan et al., 2021), whatever the two passes cost."""
    schedule = SCHEDULES[name](stages, micro_batches)
    bubble = schedule.bubble({Pass.FORWARD: forward_s, Pass.BACKWARD: backward_s})
    assert bubble == pytest.approx((stages - 1) / (micro_batches + stages - 1), abs=1e-9)


@given(STAGES, MICRO_BATCHES)
def test_gpipe_holds_every_micro_batch_at_once(stages: int, micro_batches: int) -> None:
    schedule = gpipe(stages, micro_batches)
    assert {schedule.in_flight(r) for r in range(stages)} == {micro_batches}


@given(STAGES, MICRO_BATCHES)
def test_1f1b_holds_at_most_as_many_as_stages_follow(stages: int, micro_batches: int) -> None:
    schedule = one_f_one_b(stages, micro_batches)
    held = [schedule.in_flight(r) for r in range(stages)]
    assert held == [min(stages - r, micro_batches) for r in range(stages)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.data())
def test_a_balanced_cut_is_as_cheap_as_any(costs: list[int], data: st.DataObject) -> None:
    stages = data.draw(st.integers(1, len(costs)))

    def dearest(cut: tuple[int, ...]) -> int:
        return max(sum(costs[a:b]) for a, b in itertools.pairwise((*cut, len(costs))))

    cut = balanced([float(c) for c in costs], stages)
    every = [(0, *rest) for rest in itertools.combinations(range(1, len(costs)), stages - 1)]
    assert cut in every
    assert dearest(cut) == min(dearest(c) for c in every)


def test_among_equal_cuts_the_earlier_stages_are_lighter() -> None:
    assert balanced([1, 1, 1], 2) == (0, 1)
    assert balanced([1, 1, 1, 1], 2) == (0, 2)
    assert balanced([5, 1, 1, 1], 2) == (0, 1)


@pytest.mark.parametrize("stages", [0, 3])
def test_more_stages_than_blocks_or_none_are_a_bug(stages: int) -> None:
    with pytest.raises(AssertionError):
        balanced([1.0, 1.0], stages)


def test_1f1b_alternates_once_it_is_warm() -> None:
    schedule = one_f_one_b(3, 4)
    assert [" ".join(map(str, rank)) for rank in schedule.ranks] == [
        "F0 F1 F2 B0 F3 B1 B2 B3",
        "F0 F1 B0 F2 B1 F3 B2 B3",
        "F0 B0 F1 B1 F2 B2 F3 B3",
    ]


def test_gpipe_runs_all_forwards_first() -> None:
    assert " ".join(map(str, gpipe(2, 3).ranks[1])) == "F0 F1 F2 B0 B1 B2"


def test_a_backward_needs_its_forward_and_the_backward_after_it() -> None:
    schedule = gpipe(2, 1)
    forward, backward = Pass.FORWARD, Pass.BACKWARD
    assert schedule.needs(Action(forward, 0, 0)) == ()
    assert schedule.needs(Action(forward, 1, 0)) == (Action(forward, 0, 0),)
    assert schedule.needs(Action(backward, 1, 0)) == (Action(forward, 1, 0),)
    assert schedule.needs(Action(backward, 0, 0)) == (
        Action(forward, 0, 0), Action(backward, 1, 0),
    )  # fmt: skip


def test_a_split_backward_waits_for_its_parts_only() -> None:
    schedule = zb_1p(2, 1)
    inputs, weights = Pass.INPUT_GRADIENT, Pass.WEIGHT_GRADIENT
    assert schedule.needs(Action(inputs, 0, 0)) == (
        Action(Pass.FORWARD, 0, 0), Action(inputs, 1, 0),
    )  # fmt: skip
    assert schedule.needs(Action(weights, 0, 0)) == (Action(inputs, 0, 0),)


def test_the_loss_of_a_shared_vocabulary_waits_for_all_ranks() -> None:
    """The constraints of (Yeung et al., 2024), section 5.1, for algorithm 2."""
    schedule = vocabulary(2, 1)
    output, weight = Pass.VOCABULARY, Pass.VOCABULARY_WEIGHT
    both = (Action(output, 0, 0), Action(output, 1, 0))
    for r in range(2):
        assert schedule.needs(Action(output, r, 0)) == (Action(Pass.FORWARD, 1, 0),)
        assert schedule.needs(Action(weight, r, 0)) == both
    assert schedule.needs(Action(Pass.BACKWARD, 1, 0)) == (Action(Pass.FORWARD, 1, 0), *both)
    assert not set(both) & set(schedule.needs(Action(Pass.BACKWARD, 0, 0)))


def test_a_loop_begins_again_with_the_first_rank_and_a_v_turns_around() -> None:
    loop, v = interleaved(3, 3, chunks=2), zb_v(3, 3)
    assert [loop.rank_of(s) for s in range(6)] == [0, 1, 2, 0, 1, 2]
    assert [v.rank_of(s) for s in range(6)] == [0, 1, 2, 2, 1, 0]


def test_stages_may_differ_and_transfers_take_time() -> None:
    """By hand: forwards of 1 s and 3 s, backwards of 2 s and 4 s, and half a second between."""
    schedule = one_f_one_b(2, 1)
    cost_s = {Pass.FORWARD: (1.0, 3.0), Pass.BACKWARD: (2.0, 4.0)}
    assert list(schedule.times(cost_s, transfer_s=0.5).values()) == [
        (0.0, 1.0), (1.5, 4.5), (4.5, 8.5), (9.0, 11.0),
    ]  # fmt: skip
    assert schedule.step_s(cost_s, transfer_s=0.5) == 11.0
    assert schedule.bubble(cost_s, transfer_s=0.5) == pytest.approx(1 - 10 / 22)


def test_a_transfer_within_a_rank_takes_no_time() -> None:
    """The turn of a V: rank 1 of 2 has both of the middle stages."""
    times = zb_v(2, 1).times(dict.fromkeys(Pass, 1.0), transfer_s=10.0)
    starts = [times[Action(Pass.FORWARD, s, 0)][0] for s in range(4)]
    assert starts == [0.0, 11.0, 12.0, 23.0]


def order(*words: str) -> tuple[tuple[Action, ...], ...]:
    """Read ``F0 B0`` a rank."""
    passes = {d.letter: d for d in Pass}
    return tuple(
        tuple(Action(passes[a[0]], stage, int(a[1:])) for a in rank.split())
        for stage, rank in enumerate(words)
    )


def test_a_schedule_that_waits_for_itself_is_refused() -> None:
    with pytest.raises(AssertionError, match="deadlock"):
        Schedule(2, 2, order("F0 B0 F1 B1", "F0 F1 B0 B1"))
    with pytest.raises(AssertionError, match="deadlock"):
        Schedule(1, 1, order("B0 F0"))


def test_a_schedule_that_leaves_out_or_repeats_an_action_is_refused() -> None:
    with pytest.raises(AssertionError, match="an action is missing"):
        Schedule(2, 2, order("F0 F1 B0 B1", "F0 F1 B0"))
    with pytest.raises(AssertionError, match="an action is missing"):
        Schedule(1, 1, order("F0 B0 B0"))


@pytest.mark.parametrize("words", ["F0", "F0 B0 W0", "F0 I0", "F0 B0 S0", "F0 S0 I0 W0 T0"])
def test_passes_that_do_not_belong_together_are_refused(words: str) -> None:
    with pytest.raises(AssertionError, match="passes"):
        Schedule(1, 1, order(words))


def test_ranks_with_different_numbers_of_stages_are_refused() -> None:
    with pytest.raises(AssertionError, match="number of stages"):
        Schedule(3, 1, order("F0 B0", "F0 B0"))


def test_a_weight_gradient_before_its_input_gradient_is_refused() -> None:
    with pytest.raises(AssertionError, match="deadlock"):
        Schedule(1, 1, order("F0 W0 I0"))


def test_stages_that_take_micro_batches_in_different_orders_are_refused() -> None:
    with pytest.raises(AssertionError, match="order of micro-batches"):
        Schedule(2, 2, order("F0 F1 B0 B1", "F0 F1 B1 B0"))


def test_an_action_on_another_stages_rank_is_refused() -> None:
    first, second = order("F0 B0", "F0 B0")
    with pytest.raises(AssertionError, match="wrong rank"):
        Schedule(2, 1, (second, first))


def test_a_rank_may_run_several_stages_in_turn() -> None:
    one, two, three, four = order("F0 B0", "F0 B0", "F0 B0", "F0 B0")
    ranks = ((one[0], three[0], three[1], one[1]), (two[0], four[0], four[1], two[1]))
    schedule = Schedule(4, 1, ranks)
    assert schedule.in_flight(0) == 2
    assert schedule.bubble({Pass.FORWARD: 1.0, Pass.BACKWARD: 1.0}) == pytest.approx(0.5)


def test_the_grid_shows_a_rank_a_line_and_what_it_costs() -> None:
    assert grid(one_f_one_b(2, 2)).splitlines() == [
        "rank 0  F0 F1  ·  · B0 ──  · B1 ──",
        "rank 1   · F0 B0 ── F1 B1 ──  ·  ·",
        "bubble 33.3%; micro-batches in flight by rank: 2, 1",
    ]


def test_the_grid_tells_the_stages_of_a_rank_apart() -> None:
    assert grid(zb_v(2, 1)).splitlines() == [
        "rank 0  F0.0   ·    ·  F0.1 I0.1 W0.1   ·    ·  I0.0 W0.0",
        "rank 1    ·  F0.0 F0.1   ·    ·  I0.1 W0.1 I0.0 W0.0   ·",
        "bubble 40.0%; micro-batches in flight by rank: 1, 1",
    ]


def test_the_grid_has_letters_for_the_vocabulary() -> None:
    assert grid(vocabulary(2, 1)).splitlines() == [
        "rank 0  F0  · S0 T0  ·  · B0 ──",
        "rank 1   · F0 S0 T0 B0 ──  ·  ·",
        "bubble 37.5%; micro-batches in flight by rank: 1, 1",
    ]
