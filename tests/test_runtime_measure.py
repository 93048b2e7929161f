"""Measuring: when ranks stop, what they make of readings, and who speaks to whom."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.cluster import Sample
from stretto.runtime.environment import World
from stretto.runtime.measure import Measured, Meter, Rung, Timing, Together
from stretto.runtime.measure_links import Axis, axes, tournament


class Scripted(Meter):
    """A meter whose ranks and clock do as they are told."""

    def __init__(self, reading: Callable[[int], tuple[float, ...]]) -> None:
        super().__init__(World(0, 1, 0, 1, ""), tell=lambda sample, now_s: None)
        self.reading = reading
        self.gathered = 0

    def gather(self, value: float) -> tuple[float, ...]:
        row = self.reading(self.gathered)
        self.gathered += 1
        self.now_s += max(row)
        return row


def timing(meter: Meter, *, until_s: float, ranks: Together) -> Timing:
    return meter.time(lambda: None, until_s=until_s, ranks=ranks)


def test_ranks_that_work_together_are_as_slow_as_the_slowest_each_time() -> None:
    rows = [(9.0, 9.0, 9.0), (1.0, 5.0, 2.0), (4.0, 1.0, 3.0), (6.0, 1.0, 1.0)]
    found = timing(Scripted(lambda i: rows[i]), until_s=0.0, ranks="together")
    assert (found.seconds, found.readings) == (5.0, 3)  # of 5, 4 and 6
    assert found.rank_s == (4.0, 1.0, 2.0)


def test_of_ranks_that_work_apart_the_middle_one_counts() -> None:
    rows = [(9.0, 9.0, 9.0), (1.0, 5.0, 2.0), (4.0, 1.0, 3.0), (6.0, 1.0, 1.0)]
    found = timing(Scripted(lambda i: rows[i]), until_s=0.0, ranks="apart")
    assert found.seconds == 2.0  # of 2, 3 and 1


def test_readings_end_once_they_are_stable() -> None:
    found = timing(Scripted(lambda i: (1.0,)), until_s=1e9, ranks="apart")
    assert (found.readings, found.spread) == (3, 0.0)


def test_readings_that_never_agree_end_when_time_is_up() -> None:
    meter = Scripted(lambda i: (1.0 if i % 2 else 2.0,))
    found = timing(meter, until_s=10.0, ranks="apart")
    assert found.readings == 6  # 2 s to warm up, then 1 + 2 + 1 + 2 + 1 + 2 s
    assert found.spread == pytest.approx(1 / 3)


@given(
    st.floats(1e-6, 1e-2), st.floats(1e-9, 1e-3), st.floats(1e-3, 10.0),
    st.lists(st.integers(1, 20), min_size=1, max_size=8, unique=True).map(sorted),
)  # fmt: skip
def test_a_climb_measures_the_first_size_and_exceeds_its_time_by_no_more_than_one_size_could(
    latency_s: float, per_byte_s: float, until_s: float, powers: list[int]
) -> None:
    class Steady(Scripted):
        def time(self, action: object, *, until_s: float, ranks: Together) -> Timing:
            size = float(action)  # type: ignore[arg-type]
            took = latency_s + per_byte_s * size
            self.now_s += 5 * took
            return Timing(took, 0.0, 3, (took,))

    meter = Steady(lambda i: (0.0,))
    sizes = [float(1 << power) for power in powers]
    rungs = [Rung(Sample("send", 1.0, size_bytes=s), s, lambda s=s: s) for s in sizes]
    found: list[Measured] = [*meter.climb(rungs, until_s=until_s, ranks="together")]
    assert [one.sample.size_bytes for one in found] == sizes[: len(found)]
    assert found[0].sample.seconds == pytest.approx(latency_s + per_byte_s * sizes[0])
    if len(found) > 2:  # the third on was foreseen on the line
        assert meter.now_s <= until_s * (1 + 1e-9)
    if len(found) == len(sizes):
        return
    left = sizes[len(found)]
    root = found[-1].sample.seconds * (left / sizes[len(found) - 1]) ** 0.5
    assert meter.now_s + 5 * max(latency_s + per_byte_s * left, root) > until_s * (1 - 1e-9)


@given(st.integers(0, 12), st.floats(0.0, 100.0))
def test_what_items_leave_of_their_time_is_shared_by_those_after_them(n: int, t: float) -> None:
    meter = Scripted(lambda i: (0.0,))
    ends = [end for _, end in meter.shared(range(n), until_s=t)]
    assert ends == pytest.approx([t / (n - i) for i in range(n)])


@given(st.integers(0, 24))
def test_in_a_tournament_each_meets_each_both_ways_and_nobody_two_at_once(players: int) -> None:
    rounds = [*tournament(players)]
    assert sorted(pair for pairs in rounds for pair in pairs) == [*permutations(range(players), 2)]
    for pairs in rounds:
        seats = [player for pair in pairs for player in pair]
        assert seats
        assert len(set(seats)) == len(seats)


@given(st.integers(1, 12), st.integers(1, 12))
def test_groups_of_an_axis_share_out_the_ranks_and_lie_in_nodes_or_over_whole_ones(
    per_node: int, nodes: int
) -> None:
    ranks = per_node * nodes
    found = axes(ranks, per_node)
    assert len(set(found)) == len(found)
    for axis in found:
        groups = {axis.group_of(rank) for rank in range(ranks)}
        assert sorted(rank for group in groups for rank in group) == [*range(ranks)]
        for group in groups:
            assert len(group) == axis.ranks > 1
            touched = {rank // per_node for rank in group}
            assert len(touched) == 1 or axis.stride == per_node or axis.ranks % per_node == 0


def test_axes_are_powers_of_two_the_node_and_all_within_and_across_nodes() -> None:
    assert axes(1, 1) == ()
    assert axes(24, 6) == (
        Axis(2, 1), Axis(6, 1), Axis(12, 1), Axis(24, 1), Axis(2, 6), Axis(4, 6),
    )  # fmt: skip
    assert Axis(2, 6).group_of(8) == (2, 8)
