"""Schedules: who does what in which order. Laws first, then the textbook."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.schedule import SCHEDULES, Action, Pass, Schedule, balanced, gpipe, grid, one_f_one_b

STAGES, MICRO_BATCHES = st.integers(1, 8), st.integers(1, 12)
NAMES = st.sampled_from(sorted(SCHEDULES))


@given(NAMES, STAGES, MICRO_BATCHES)
def test_every_stage_runs_every_micro_batch_once_in_each_direction(
    name: str, stages: int, micro_batches: int
) -> None:
    schedule = SCHEDULES[name](stages, micro_batches)
    actions = [a for rank in schedule.ranks for a in rank]
    assert len(actions) == 2 * stages * micro_batches
    assert {(a.direction, a.stage, a.micro_batch) for a in actions} == set(
        itertools.product(Pass, range(stages), range(micro_batches))
    )


@given(NAMES, STAGES, MICRO_BATCHES, st.floats(0.1, 10), st.floats(0.1, 10))
def test_no_action_begins_before_what_it_needs_has_ended(
    name: str, stages: int, micro_batches: int, forward_s: float, backward_s: float
) -> None:
    schedule = SCHEDULES[name](stages, micro_batches)
    times = schedule.times({Pass.FORWARD: forward_s, Pass.BACKWARD: backward_s})
    for rank in schedule.ranks:
        for before, after in itertools.pairwise(rank):
            assert times[after][0] >= times[before][1]
    for action, (start, _) in times.items():
        assert all(times[needed][1] <= start for needed in schedule.needs(action))


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


def order(*words: str) -> tuple[tuple[Action, ...], ...]:
    """Read ``F0 B0`` a rank."""
    passes = {"F": Pass.FORWARD, "B": Pass.BACKWARD}
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
