"""The clock against cases that one can work out on paper."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from stretto.simulate.graph import End, Graph, Player, Traffic
from stretto.simulate.play import play
from stretto.simulate.route import Route
from stretto.simulate.task import Tasks

OUT, IN = 0, 1
OTHER_OUT, OTHER_IN = 2, 3


@dataclass(frozen=True)
class Task:
    """A task: on the device of a player, or a message between ports of players."""

    work_s: float
    after: tuple[int, ...] = ()
    device: int = -1
    ends: tuple[End, ...] = ()
    hides: float = 1.0
    floor_s: float = 0.0


def compute(work_s: float, *after: int, device: int = 0, floor_s: float = 0.0) -> Task:
    return Task(work_s, after, device, floor_s=floor_s)


def ring(work_s: float, *after: int, player: int = 0, hides: float = 1.0) -> Task:
    return Task(work_s, after, ends=((player, OUT, IN),), hides=hides)


def played(
    *tasks: Task, contention: float = 0.0, traffic: Traffic | None = None
) -> list[tuple[float, float]]:
    """Give when each task begins and ends."""
    edges = [(b, a) for a, task in enumerate(tasks) for b in task.after]
    players = 1 + max([t.device for t in tasks] + [p for t in tasks for p, _, _ in t.ends])
    nothing = np.zeros(0, dtype=np.int64)
    # A graph needs a stage only to be shown.
    idle = Player((0,), Tasks(stage=None), nothing, (), 0, False)  # type: ignore[arg-type]
    graph = Graph(
        (idle,) * players,
        np.array([t.device for t in tasks]),
        np.array([t.work_s for t in tasks]),
        np.array([t.floor_s for t in tasks]),
        np.array([t.hides for t in tasks]),
        [t.ends for t in tasks],
        np.array([b for b, _ in edges], dtype=np.int64),
        np.array([a for _, a in edges], dtype=np.int64),
        4,
        traffic,
    )
    begun, done = play(graph, contention=contention)
    return list(zip(begun.tolist(), done.tolist(), strict=True))


def test_tasks_begin_when_the_last_that_they_wait_for_is_done() -> None:
    assert played(compute(1), ring(3), compute(1, 0, 1)) == [(0, 1), (0, 3), (3, 4)]


def test_messages_on_one_port_share_it() -> None:
    assert played(ring(1), ring(1)) == [(0, 2), (0, 2)]


def test_a_message_that_comes_later_shares_from_then_on() -> None:
    # Alone until 1; then both at half pace until the second, of 1 s, is done at 3.
    assert played(compute(1, device=1), ring(3), ring(1, 0)) == [(0, 1), (0, 4), (1, 3)]


def test_messages_on_other_levels_or_in_other_directions_do_not_share() -> None:
    out, into = Task(1, ends=((0, OUT, OUT),)), Task(1, ends=((0, IN, IN),))
    outer = Task(1, ends=((0, OTHER_OUT, OTHER_IN),))
    assert played(out, into, outer) == [(0, 1)] * 3


def test_a_message_is_as_slow_as_at_the_busier_of_its_ends() -> None:
    send = Task(1, ends=((0, OUT, OUT), (1, IN, IN)))
    # Two others arrive at player 1, none leaves player 0.
    others = [Task(2, ends=((p, OUT, OUT), (1, IN, IN))) for p in (2, 3)]
    assert played(send, *others)[0] == (0, pytest.approx(3))


def test_a_hidden_message_takes_its_contention_from_the_compute() -> None:
    # The message of 2 s takes 0.25 s of each of its seconds: 10 + 0.5.
    (_, stop), (_, arrived) = played(compute(10), ring(2), contention=0.25)
    assert (stop, arrived) == (pytest.approx(10.5), pytest.approx(2.5))


def test_beside_a_compute_a_message_moves_at_its_share() -> None:
    # In 4 s half of them hides 2 of 3 s; the last is alone.
    assert played(compute(4), ring(3, hides=0.5)) == [(0, 4), (0, 5)]


def test_a_message_that_cannot_hide_waits_for_the_compute() -> None:
    assert played(compute(4), ring(3, hides=0), contention=0.5) == [(0, 4), (0, 7)]


def test_contention_and_share_together_cost_what_the_closed_form_says() -> None:
    # 3 s of which 2 are hidden in 4 s of compute: 4 + 0.25·2, and 1 more.
    (_, stop), (_, arrived) = played(compute(4), ring(3, hides=0.5), contention=0.25)
    assert (stop, arrived) == (pytest.approx(4.5), pytest.approx(5.5))


def test_two_messages_that_share_a_port_contend_no_more_than_one() -> None:
    ((_, stop), *_) = played(compute(10), ring(1), ring(1), contention=0.25)
    assert stop == pytest.approx(10 + 0.25 * 2)


def test_a_compute_ends_no_sooner_than_its_host_has_started_it() -> None:
    tasks = compute(1, floor_s=3), compute(1, 0, floor_s=3.5), compute(1, 1, floor_s=4)
    assert played(*tasks) == [(0, 3), (3, 4), (4, 5)]


def test_what_waits_for_its_host_is_not_disturbed_by_a_message() -> None:
    tasks = compute(1, floor_s=4), compute(2, device=1), ring(1, 1, player=0)
    assert played(*tasks, contention=0.5)[0] == (0, 4)


def test_tasks_without_length_are_done_at_once() -> None:
    assert played(compute(0), ring(0, 0), compute(0, 1)) == [(0, 0)] * 3


def test_what_waits_in_a_circle_never_begins() -> None:
    first, second, third = played(compute(1), compute(1, 2), compute(1, 1))
    assert first == (0, 1)
    assert second == third == (math.inf, math.inf)


# ── links between ranks ──────────────────────────────────────────────────────────────────────────


def wire(*rates: float, capacity: float) -> Traffic:
    """Give one link that all messages take; what has no rate takes none."""
    route = np.array([0 if rate else -1 for rate in rates])
    return Traffic((Route((0,), (1.0,), (1.0,)),), route, np.array(rates), (capacity,))


def test_messages_of_different_ranks_on_one_link_share_it() -> None:
    # Each alone takes 8 of the link's 12 bytes a second: together 6 each, until the first is done.
    tasks = ring(3, player=0), ring(6, player=1)
    first, second = played(*tasks, traffic=wire(8, 8, capacity=12))
    assert first == (0, pytest.approx(4))
    assert second == (0, pytest.approx(4 + 3))  # 3 of its 6 s are done at 4


def test_a_message_that_begins_later_slows_those_on_its_link_from_then_on() -> None:
    tasks = compute(2, device=2), ring(4, player=0), ring(1, 0, player=1)
    _, first, second = played(*tasks, traffic=wire(0, 8, 8, capacity=8))
    assert second == (2, pytest.approx(4))  # half of the link from 2 on
    assert first == (0, pytest.approx(5))


def test_a_share_of_a_link_and_a_compute_beside_slow_a_message_one_on_top_of_the_other() -> None:
    # At half of the link, and a half of that beside the compute.
    tasks = compute(8), ring(1, player=0, hides=0.5), ring(9, player=1)
    assert played(*tasks, traffic=wire(0, 8, 8, capacity=8))[1] == (0, pytest.approx(4))


def test_what_shares_a_link_takes_less_of_the_compute_beside_it() -> None:
    # At half pace a message takes half as much of a compute's time, for twice as long.
    tasks = compute(10), ring(1, player=0), ring(9, player=1)
    (_, stop), (_, arrived), _ = played(*tasks, contention=0.25, traffic=wire(0, 8, 8, capacity=8))
    pace = 0.5 / (1 + 0.25 * 0.5)
    assert arrived == pytest.approx(1 / pace)
    assert stop == pytest.approx(10 + 0.25 * 0.5 / (1 + 0.25 * 0.5) * arrived)


# ── several at once ──────────────────────────────────────────────────────────────────────────────


def test_what_begins_at_once_is_beside_each_other_from_the_first_moment() -> None:
    # Both wait for the first: the message moves at half of its pace beside the compute.
    tasks = compute(1), ring(1, 0, hides=0.5), compute(3, 0)
    assert played(*tasks) == [(0, 1), (1, 3), (1, 4)]


def test_a_message_among_ranks_is_as_slow_as_beside_the_one_that_computes_longest() -> None:
    ends = tuple((p, OUT, IN) for p in range(3))
    tasks = compute(2, device=0), compute(4, device=1), Task(3, ends=ends, hides=0.5)
    # Half pace until 4, when 1 of its 3 s is left.
    assert played(*tasks)[2] == (0, pytest.approx(5))
