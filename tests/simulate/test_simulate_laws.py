"""What holds for the timeline of every program."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulate.toy import cluster, modern, silent, software

from stretto.cost import Machine, Stack
from stretto.cost.instruction import Prices, messages
from stretto.program.draw import draw
from stretto.program.instruction import Compute, Free, Move, Program, Recv, Send, Update, Vote
from stretto.program.lower import lower
from stretto.program.traffic import traffic
from stretto.simulate import SlowRank, simulate
from stretto.timeline import KINDS, Timeline, usages

DEVICE = KINDS.index("device")
EPS = 1e-9

cases = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 10_000)
stacks = st.sampled_from((modern(), software(), software(contention=0.5, data_overlap=0.3)))


def drawn(seed: int, stack: Stack, *, node: int = 3) -> tuple[Program, Timeline]:
    program = lower(*draw(seed))
    return program, simulate(program, cluster(program.placement.mesh.size, node=node), stack=stack)


def rows_of(line: Timeline, player: int) -> dict[int, list[int]]:
    """Give the rows of each instruction of a player."""
    found: dict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero(line.player == player).tolist():
        found[int(line.instruction[row])].append(row)
    return found


@cases
@given(seeds, stacks)
def test_every_instruction_is_there_once_and_a_move_once_for_each_message(
    seed: int, stack: Stack
) -> None:
    program, line = drawn(seed, stack)
    assert sorted(r for ranks in line.alike for r in ranks) == [*range(program.placement.mesh.size)]
    for player, ranks in enumerate(line.alike):
        stage, rows = program.of(ranks[0]), rows_of(line, player)
        assert sorted(rows) == [*range(len(stage.instructions))]
        for i, x in enumerate(stage.instructions):
            assert len(rows[i]) == max(1, len(messages(x, stage, program)))


@cases
@given(seeds, stacks)
def test_nothing_overlaps_on_one_stream(seed: int, stack: Stack) -> None:
    _, line = drawn(seed, stack)
    assert line.finished
    for player in range(len(line.alike)):
        for stream in range(1, len(line.streams)):
            rows = np.flatnonzero((line.player == player) & (line.stream == stream))
            rows = rows[np.lexsort((line.stop_s[rows], line.start_s[rows]))]
            assert (line.start_s[rows][1:] >= line.stop_s[rows][:-1] - EPS).all()


@cases
@given(seeds, stacks)
def test_nothing_is_read_before_it_is_there(seed: int, stack: Stack) -> None:
    program, line = drawn(seed, stack)
    for player, ranks in enumerate(line.alike):
        stage, rows = program.of(ranks[0]), rows_of(line, player)
        there: dict[str, float] = {}
        device = 0.0
        vote = max(i for i, x in enumerate(stage.instructions) if isinstance(x, Vote))
        count = len(stage.instructions)
        for i in (*range(vote + 1, count), *range(vote + 1)):
            x = stage.instructions[i]
            start, stop = line.start_s[rows[i][0]], line.stop_s[rows[i][-1]]
            waits = () if isinstance(x, Free) else x.input
            moves = isinstance(x, Send | Recv | Move)
            if not moves or messages(x, stage, program):  # a slice waits with its readers
                assert all(there.get(name, 0.0) <= start + EPS for name in waits)
            assert start >= device - EPS  # issued where it stands
            arrived = max([stop, *(there.get(name, 0.0) for name in waits)])
            there |= dict.fromkeys(x.output, arrived)
            if isinstance(x, Compute | Update | Vote):
                device = stop


@cases
@given(seeds, stacks)
def test_a_message_is_sent_while_it_is_received(seed: int, stack: Stack) -> None:
    program, line = drawn(seed, stack)
    mesh = program.placement.mesh
    player_of = {r: p for p, ranks in enumerate(line.alike) for r in ranks}
    for player, ranks in enumerate(line.alike):
        stage, rows = program.of(ranks[0]), rows_of(line, player)
        for i, x in enumerate(stage.instructions):
            if not isinstance(x, Recv):
                continue
            peer = mesh.shift(ranks[0], "pp", by=x.by)
            theirs = program.of(peer).instructions
            (at,) = (
                j
                for j, y in enumerate(theirs)
                if isinstance(y, Send) and (y.tag, y.by) == (x.tag, -x.by)
            )
            (sent,), (got,) = rows_of(line, player_of[peer])[at], rows[i]
            assert line.start_s[sent] == line.start_s[got]
            assert line.stop_s[sent] == line.stop_s[got]


@cases
@given(seeds, stacks)
def test_ranks_send_the_bytes_that_their_program_says(seed: int, stack: Stack) -> None:
    program, line = drawn(seed, stack)
    for player, ranks in enumerate(line.alike):
        stage = program.of(ranks[0])
        wanted = sum(
            size for x in stage.instructions for _, size in traffic(x, stage, program.placement)
        )
        voted = line.kind == KINDS.index("vote")
        assert line.sent_bytes[(line.player == player) & ~voted].sum() == wanted


@cases
@given(seeds, stacks)
def test_nothing_takes_less_than_alone_and_a_step_no_less_than_any_rank_works(
    seed: int, stack: Stack
) -> None:
    _, line = drawn(seed, stack)
    assert (line.stop_s - line.start_s >= line.work_s * (1 - EPS) - EPS).all()
    for player in range(len(line.alike)):
        mine = (line.player == player) & (line.kind == DEVICE)
        assert line.step_s >= line.work_s[mine].sum() * (1 - EPS)


@cases
@given(seeds, stacks)
def test_the_critical_path_has_no_holes_and_is_as_long_as_the_step(seed: int, stack: Stack) -> None:
    _, line = drawn(seed, stack)
    path = line.critical()
    assert line.start_s[path[0]] == 0.0
    assert line.stop_s[path[-1]] == line.step_s
    assert (line.start_s[path[1:]] == line.stop_s[path[:-1]]).all()


@cases
@given(seeds, stacks)
def test_where_a_ranks_time_goes_sums_to_the_step(seed: int, stack: Stack) -> None:
    _, line = drawn(seed, stack)
    for usage in usages(line):
        parts = (usage.busy_s, usage.bubble_s, *usage.exposed_s.values())
        assert min(parts) >= 0.0
        assert sum(parts) == pytest.approx(line.step_s, rel=1e-9)


@cases
@given(seeds, stacks)
def test_one_rank_for_all_that_are_alike_takes_as_long_as_all(seed: int, stack: Stack) -> None:
    program = lower(*draw(seed))
    size = program.placement.mesh.size
    here = cluster(size, node=3)
    # So little slower that nobody notices, but each rank by itself.
    faults = [SlowRank(r, 1.0 + 1e-13 * (r + 1)) for r in range(size)]
    few, all_ = (simulate(program, here, stack=stack, faults=f) for f in ((), faults))
    assert len(all_.alike) == size
    assert few.step_s == pytest.approx(all_.step_s, rel=1e-6)
    of_rank = {
        rank: usage for usage, ranks in zip(usages(few), few.alike, strict=True) for rank in ranks
    }
    for mine in usages(all_):
        theirs = of_rank[mine.rank]
        assert mine.busy_s == pytest.approx(theirs.busy_s, abs=1e-6 * few.step_s)
        # What begins or ends at once, but for what nobody notices, can be told of either.
        assert mine.step_s - mine.busy_s == pytest.approx(
            theirs.step_s - theirs.busy_s, abs=1e-6 * few.step_s
        )


@cases
@given(seeds, st.integers(0, 15), st.floats(1.0, 3.0))
def test_a_slow_rank_costs_at_most_its_factor_and_never_gains(
    seed: int, rank: int, factor: float
) -> None:
    program = lower(*draw(seed))
    size = program.placement.mesh.size
    # Where nothing shares links or contends, later ends never make for earlier ones.
    stack, here = software(), silent(size)
    plain = simulate(program, here, stack=stack)
    slow = simulate(program, here, stack=stack, faults=[SlowRank(rank % size, factor)])
    assert plain.step_s * (1 - 1e-6) <= slow.step_s <= plain.step_s * factor * (1 + 1e-6)


@cases
@given(seeds)
def test_without_links_to_wait_for_a_step_on_one_rank_is_the_sum_of_its_work(seed: int) -> None:
    model, plan = draw(seed, ranks=1)
    program, stack = lower(model, plan), modern()
    line = simulate(program, cluster(1), stack=stack)
    prices = Prices(program, Machine.of(cluster(1)), stack)
    total = sum(prices.seconds(x, program.stages[0]) for x in program.stages[0].instructions)
    assert line.step_s == pytest.approx(total, rel=1e-9)
