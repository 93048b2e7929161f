"""Faults do what they say, and who halts is found by those who wait."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.simulate.toy import cluster, model, plan, software

from stretto.errors import InputError
from stretto.program.instruction import Compute, Move, Program, Recv, Send, Update, Vote
from stretto.program.lower import lower
from stretto.simulate import Fault, Halt, SlowLink, SlowRank, simulate
from stretto.timeline import Timeline, usages


def run(program: Program, *faults: Fault, node: int = 8) -> Timeline:
    here = cluster(program.placement.mesh.size, node=node)
    return simulate(program, here, stack=software(), faults=faults)


def at(program: Program, kind: type, *, stage: int = 0, nth: int = 0) -> int:
    """Give the index of an instruction of a kind."""
    listed = program.stages[stage].instructions
    return [i for i, x in enumerate(listed) if isinstance(x, kind)][nth]


# ── slow ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_slow_rank_alone_takes_its_factor_longer() -> None:
    program = lower(model(), plan())
    assert run(program, SlowRank(0, 2.5)).step_s == pytest.approx(2.5 * run(program).step_s)


def test_all_wait_for_a_slow_rank_and_only_it_is_busy() -> None:
    program = lower(model(), plan(dp=4))
    plain, slow = run(program), run(program, SlowRank(2, 3.0))
    assert slow.alike == ((0, 1, 3), (2,))
    others, lame = usages(slow)
    (alone,) = usages(plain)
    assert others.busy_s == pytest.approx(alone.busy_s)
    assert lame.busy_s == pytest.approx(3 * alone.busy_s)
    # All but the reductions that overlap is computing: what the others do not do, they wait for.
    assert others.bubble_s > 1.9 * alone.busy_s
    assert lame.bubble_s == pytest.approx(0.0, abs=0.1 * alone.busy_s)


def test_a_slow_link_slows_the_messages_of_its_ranks_and_level_only() -> None:
    program = lower(model(), plan(tp=2, dp=2, sequence=True))
    rows = {"tp": 0.0, "dp": 0.0}

    def longest(line: Timeline, axis: str) -> float:
        mine = line.stream == line.streams.index(axis)
        return float(line.work_s[mine].sum())

    plain = run(program, node=2)
    inner = run(program, SlowLink((0, 1), "node", 10.0), node=2)
    outer = run(program, SlowLink((0, 1, 2, 3), "spine", 10.0), node=2)
    for axis in rows:
        assert longest(plain, axis) > 0
    # Ranks 0 and 1 are a group along tp; ranks 2 and 3 are another, and so a player.
    assert longest(inner, "tp") > 2 * longest(plain, "tp") + 1e-9
    assert longest(inner, "dp") == pytest.approx(2 * longest(plain, "dp"))
    assert longest(outer, "tp") == pytest.approx(longest(plain, "tp"))
    assert longest(outer, "dp") > 5 * longest(plain, "dp")


def test_a_link_that_is_slow_for_one_rank_is_slow_for_its_group() -> None:
    program = lower(model(vocab=4096), plan(dp=4))
    plain, slow = run(program), run(program, SlowLink((3,), "node", 4.0))
    mine = slow.stream == slow.streams.index("dp")
    size = slow.sent_bytes[mine] / 6 * 4
    latency_s = 2 * 3e-3
    expected = 2 * size * 3 / 4 / (1e6 / 4) + latency_s
    assert (slow.work_s[mine] == pytest.approx(expected)) and slow.step_s > plain.step_s


# ── halt ─────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_rank_halts_before_does_not_begin() -> None:
    program = lower(model(), plan())
    stop = at(program, Compute, nth=3)
    line = run(program, Halt(0, stop))
    vote = at(program, Vote)
    assert not line.finished
    for row in range(len(line.instruction)):
        i = int(line.instruction[row])
        begins = i < stop or i > vote  # the updates of the vote before come first
        assert math.isfinite(line.start_s[row]) == begins
    assert line.waits == ()  # nobody is left to wait


@pytest.mark.parametrize("how", ["crash", "hang"])
def test_the_group_of_a_halted_rank_waits_for_it_and_others_for_the_group(how: Any) -> None:
    program = lower(model(), plan(pp=2, tp=2, dp=2, sequence=True))
    # Ranks: stage 0 has 0 1 (tp), 2 3; stage 1 has 4 5, 6 7. Rank 3 halts before it computes.
    line = run(program, Halt(3, 0, how))
    waits = {w.rank: w for w in line.waits}
    assert sorted(waits) == [0, 1, 2, 4, 5, 6, 7]
    assert waits[2].on == (3,)
    # The neighbours in the next stage wait for what stage 0 would send.
    assert waits[6].on in ((2,), (6,), (7,)) and waits[7].on == (3,)
    # The other replica comes as far as the reduction, or the vote.
    listed = program.of(0).instructions
    assert isinstance(listed[waits[0].instruction], Compute | Update | Vote)
    assert waits[0].instruction > waits[2].instruction


def test_a_crash_loses_what_is_under_way_and_a_hang_does_not() -> None:
    program = lower(model(), plan(pp=2))
    sent = at(program, Send)  # the first activations; the rank stops right after
    crash, hang = (run(program, Halt(0, sent + 1, how)) for how in ("crash", "hang"))
    got = at(program, Recv, stage=1)

    def arrived(line: Timeline) -> bool:
        row = np.flatnonzero((line.player == 1) & (line.instruction == got))
        return bool(np.isfinite(line.stop_s[row]).all())

    assert (arrived(crash), arrived(hang)) == (False, True)
    assert [w.on for w in crash.waits] == [w.on for w in hang.waits] == [(0,)]
    first, second = (w.instruction for line in (crash, hang) for w in line.waits)
    assert first < second  # with its input there, the second stage comes further


def test_a_step_that_halts_ends_when_nothing_moves_any_more() -> None:
    program = lower(model(), plan(dp=2))
    late = at(program, Move)
    line = run(program, Halt(1, late))
    assert not line.finished and 0 < line.step_s < run(program).step_s


def test_ranks_that_wait_for_each_other_are_found() -> None:
    program = lower(model(), plan(pp=2))
    first, second = program.stages
    recv = at(program, Recv)  # stage 0 waits for cotangents before it sends activations
    order = list(first.instructions)
    user = next(i for i in range(recv, len(order)) if set(order[recv].output) & set(order[i].input))
    order.insert(0, order.pop(user))
    order.insert(0, order.pop(recv + 1))
    stuck = replace(program, stages=(replace(first, instructions=tuple(order)), second))
    line = run(stuck)
    assert {w.rank: w.on for w in line.waits} == {0: (1,), 1: (0,)}


# ── what cannot be ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (SlowRank(7, 2.0), "faults.0: there is no rank 7 of 2; use 0 to 1"),
        (SlowRank(0, 0.5), "faults.0: factor is 0.5, below 1 or none; use 1 or more"),
        (SlowRank(0, math.inf), "faults.0: factor is inf, below 1 or none; use 1 or more"),
        (SlowLink((0, -1), "node", 2.0), "faults.0: there is no rank -1 of 2; use 0 to 1"),
        (SlowLink((0,), "rail", 2.0), "faults.0: toys has no level 'rail'; use node"),
        (Halt(1, -1), "faults.0: rank 1 has {n} instructions, but halts at -1; use 0 to {last}"),
        (Halt(0, 999), "faults.0: rank 0 has {n} instructions, but halts at 999; use 0 to {last}"),
    ],
    ids=str,
)
def test_a_fault_that_cannot_be_is_refused(fault: Fault, message: str) -> None:
    program = lower(model(), plan(dp=2))
    with pytest.raises(InputError) as caught:
        run(program, fault)
    count = len(program.stages[0].instructions)
    assert str(caught.value) == message.format(n=count, last=count - 1)


def test_a_level_of_a_single_device_is_refused() -> None:
    with pytest.raises(InputError, match="has no level 'node'; use a cluster with links"):
        run(lower(model(), plan()), SlowLink((0,), "node", 2.0))


def test_more_ranks_than_devices_are_refused_with_all_else_that_is_wrong() -> None:
    program = lower(model(), plan(dp=4))
    with pytest.raises(InputError) as caught:
        simulate(program, cluster(2), stack=software(), faults=[SlowRank(9, 2.0)])
    assert [p.field for p in caught.value.problems] == ["mesh", "faults.0"]
    assert "toys has 2 devices for 4 ranks; simulate 4 devices or more" in str(caught.value)
