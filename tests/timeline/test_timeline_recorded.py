"""What ranks saw, joined by hand: when messages begin, who waits for whom, and what for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.simulate.toy import model, plan
from tests.timeline.seconds import Row, at, listed, track

from stretto.errors import InputError
from stretto.program.instruction import (
    Compute,
    Move,
    Program,
    Recv,
    Send,
    Update,
    Vote,
)
from stretto.program.lower import lower
from stretto.timeline import KINDS, Timeline, usages
from stretto.timeline.recorded import Recording, join, read, write


def alone() -> Program:
    return lower(model(layers=1), plan(micro_batches=1))


def pair() -> Program:
    """Two replicas, which reduce gradients in one message."""
    return lower(model(layers=1), plan(dp=2, micro_batches=1))


def stages() -> Program:
    """Two stages, of which one sends forward and the other backward."""
    return lower(model(layers=1), plan(pp=2, micro_batches=1, cut=(0, 2)))


def row_of(line: Timeline, rank: int, instruction: int) -> int:
    return int(np.flatnonzero((line.rank == rank) & (line.instruction == instruction))[0])


def span(line: Timeline, rank: int, instruction: int) -> tuple[float, float]:
    row = row_of(line, rank, instruction)
    return float(line.start_s[row]), float(line.stop_s[row])


def gaps(line: Timeline, rank: int) -> list[tuple[str, float, float]]:
    """Give kind, begin and end of the rows of a rank that are of no instruction."""
    rows = np.flatnonzero((line.rank == rank) & (line.instruction < 0))
    return [
        (KINDS[line.kind[r]], round(float(line.start_s[r]), 9), round(float(line.stop_s[r]), 9))
        for r in rows
    ]


# ── one rank ─────────────────────────────────────────────────────────────────────────────────────


def test_where_a_rank_neither_works_nor_waits_its_host_is_at_work() -> None:
    program = alone()
    (stage,) = program.stages
    computes = [i for i, x in enumerate(stage.instructions) if isinstance(x, Compute)]
    told: dict[int, Row] = {at(stage, Update): (0.0, 1.0), computes[0]: (4.0, 5.0)}
    told |= dict.fromkeys(computes[1:-1], (5.0, 5.0))
    told |= {computes[-1]: (6.0, 8.0), at(stage, Vote): (8.0, 9.0)}
    own = ((-1, "host", 1.0, 1.5), (-1, "data", 1.5, 3.0))
    recording = join([track(listed(stage, told, own=own))], program)
    line = recording.timeline
    assert line.step_s == 9.0
    assert gaps(line, 0) == [
        ("host", 1.0, 1.5), ("data", 1.5, 3.0), ("host", 3.0, 4.0), ("host", 5.0, 6.0),
    ]  # fmt: skip
    (usage,) = usages(line)
    assert usage.busy_s == pytest.approx(1 + 1 + 2)
    assert usage.exposed_s["data"] == pytest.approx(1.5)
    assert usage.exposed_s["host"] == pytest.approx(0.5 + 1 + 1)
    assert usage.exposed_s["vote"] == pytest.approx(1.0)
    assert usage.bubble_s == pytest.approx(0.0, abs=1e-12)
    assert line.alike == ((0,),)
    assert (line.work_s == line.stop_s - line.start_s).all()
    path = line.critical()
    assert line.stop_s[path[-1]] == 9.0
    assert sum(line.work_s[path]) == pytest.approx(9.0)


def test_memory_and_counters_are_those_of_the_rank() -> None:
    program = alone()
    rows = listed(program.stages[0], {at(program.stages[0], Vote): (0.0, 1.0)})
    seen = track(rows)
    recording = join([seen], program)
    assert recording.step == 50
    assert recording.resting_bytes.tolist() == [1000]
    assert recording.counters == (seen.counters,)
    told = recording.timeline.instruction[recording.timeline.instruction >= 0]
    assert told.tolist() == [*range(len(program.stages[0].instructions))]
    by_instruction = dict(zip(seen.instruction.tolist(), seen.memory_bytes.tolist(), strict=True))
    assert recording.memory_bytes[recording.timeline.instruction >= 0].tolist() == [
        by_instruction[i] for i in told.tolist()
    ]


# ── messages of a group ──────────────────────────────────────────────────────────────────────────


def reduced(
    issued: Sequence[float], ended: float, *, asked: Sequence[float] = (), late: float = 0.0
) -> Recording:
    """Give a step of two replicas that compute until they issue their reduction."""
    program = pair()
    (stage,) = program.stages
    last = at(stage, Compute, -1)
    tracks = []
    for rank, ready in enumerate(issued):
        told: dict[int, Row] = {
            i: (0.0, 0.0) for i, x in enumerate(stage.instructions) if isinstance(x, Compute)
        }
        wait = asked[rank] if asked else ready
        told |= {
            last: (0.0, ready), at(stage, Move): (ready, ended, wait),
            at(stage, Vote): (ended, ended + 1.0),
        }  # fmt: skip
        rows = listed(stage, told)
        tracks.append(track(rows, rank=rank, world=2, zero_s=late * rank))
    return join(tracks, program)


def test_a_message_begins_when_the_last_rank_has_issued_it() -> None:
    program, recording = pair(), reduced((2.0, 5.0), 6.0)
    line, move = recording.timeline, at(program.stages[0], Move)
    assert span(line, 0, move) == span(line, 1, move) == (5.0, 6.0)
    first, second = usages(line)
    assert first.bubble_s == pytest.approx(3.0)
    assert second.bubble_s == pytest.approx(0.0)
    assert first.exposed_s["gradient"] == second.exposed_s["gradient"] == pytest.approx(1.0)
    assert line.step_s == 7.0


def test_the_critical_path_goes_to_the_rank_that_came_last() -> None:
    line = reduced((2.0, 5.0), 6.0).timeline
    assert line.rank[line.critical()[0]] == 1
    assert sum(line.work_s[line.critical()]) == pytest.approx(7.0)


def test_a_message_that_is_there_before_anybody_asks_is_not_waited_for() -> None:
    program = pair()
    (stage,) = program.stages
    first, last = at(stage, Move), at(stage, Compute, -1)
    tracks = []
    for rank in range(2):
        told: dict[int, Row] = {
            i: (0.0, 0.0) for i, x in enumerate(stage.instructions) if isinstance(x, Compute)
        }
        told |= {last: (0.0, 1.0), first: (1.0, 3.0, 4.0), at(stage, Vote): (4.0, 5.0)}
        tracks.append(track(listed(stage, told), rank=rank, world=2))
    usage, _ = usages(join(tracks, program).timeline)
    assert usage.exposed_s["gradient"] == 0.0
    assert usage.exposed_s["host"] == pytest.approx(3.0)  # from 1 to 4: nobody worked or waited


def waits_for_the_message(*, asked: Sequence[float]) -> list[bool]:
    """Say of each of two replicas whether its vote waited for a reduction from 1 s to 4.1 s."""
    program = pair()
    move, vote = (at(program.stages[0], what) for what in (Move, Vote))
    line = reduced((1.0, 1.0), 4.1, asked=asked).timeline
    waits = [line.cause[row_of(line, rank, vote)] for rank in range(2)]
    return [row == row_of(line, rank, move) for rank, row in enumerate(waits)]


def test_a_message_that_all_found_there_as_they_asked_is_not_what_the_step_comes_from() -> None:
    # Both ask at 4 s and know at 4.1 s: that is what asking took. Their hosts were busy until 4 s.
    assert waits_for_the_message(asked=(4.0, 4.0)) == [False, False]


def test_a_message_that_another_waited_for_until_then_is_what_the_step_comes_from() -> None:
    # Rank 1 asks at 4 s as well, but rank 0 waited from 2 s on and saw that it came at 4.1 s.
    assert waits_for_the_message(asked=(2.0, 4.0)) == [True, True]


def test_clocks_of_one_machine_are_one() -> None:
    # Rank 1 heard of the vote half a second after rank 0, and counts from then.
    program, recording = pair(), reduced((2.0, 5.0), 6.0, late=0.5)
    line, move = recording.timeline, at(program.stages[0], Move)
    assert span(line, 0, move) == (5.5, 6.0)
    assert span(line, 1, move) == (5.5, 6.5)
    assert gaps(line, 1)[0] == ("host", 0.0, 0.5)
    assert line.step_s == 7.0  # where the first rank hears of the next vote


def test_a_message_waits_for_those_before_it_in_its_queue() -> None:
    program = lower(model(layers=1), plan(dp=2, micro_batches=1, zero=1))
    (stage,) = program.stages
    moves = [i for i, x in enumerate(stage.instructions) if isinstance(x, Move)]
    before, after = moves[-1], moves[0]  # new weights after the vote, then gradients
    tracks = []
    for rank in range(2):
        told: dict[int, Row] = {
            i: (3.0, 3.0) for i, x in enumerate(stage.instructions) if isinstance(x, Compute)
        }
        told |= {
            at(stage, Update): (0.0, 1.0), before: (1.0, np.nan, 9.0), after: (3.0, 8.0, 4.0),
            at(stage, Vote): (9.0, 10.0),
        }  # fmt: skip
        tracks.append(track(listed(stage, told), rank=rank, world=2))
    line = join(tracks, program).timeline
    # Nobody saw the first end; it had when the second one had.
    assert span(line, 0, before) == (1.0, 8.0)
    assert span(line, 0, after) == (8.0, 8.0)
    assert int(line.cause[row_of(line, 0, after)]) == row_of(line, 0, before)


# ── messages between stages ──────────────────────────────────────────────────────────────────────


def staged() -> tuple[Program, Recording]:
    """Give a step of two stages: 2 s, a message of 1 s, 3 s, a message of 1 s, 2 s, a vote."""
    program = stages()
    front, back = program.stages
    ahead, behind = (
        [i for i, x in enumerate(s.instructions) if isinstance(x, Compute)] for s in (front, back)
    )
    down, up = at(front, Send), at(front, Recv)
    told: list[dict[int, Row]] = [
        {i: (2.0, 2.0) for i in ahead if i < down} | {i: (7.0, 7.0) for i in ahead if i > down},
        dict.fromkeys(behind, (3.0, 3.0)),
    ]
    told[0] |= {ahead[0]: (0.0, 2.0), down: (2.0, np.nan), up: (0.0, 7.0, 2.0)}
    told[0] |= {ahead[-1]: (7.0, 9.0), at(front, Vote): (9.0, 10.0)}
    told[1] |= {at(back, Recv): (0.0, 3.0, 0.0), behind[-1]: (3.0, 6.0)}
    told[1] |= {at(back, Send): (6.0, np.nan), at(back, Vote): (6.0, 10.0)}
    tracks = [
        track(listed(stage, one), rank=rank, world=2)
        for rank, (stage, one) in enumerate(zip(program.stages, told, strict=True))
    ]
    return program, join(tracks, program)


def test_a_message_between_stages_has_one_begin_and_one_end() -> None:
    program, recording = staged()
    front, back = program.stages
    line = recording.timeline
    assert span(line, 0, at(front, Send)) == span(line, 1, at(back, Recv)) == (2.0, 3.0)
    assert span(line, 1, at(back, Send)) == span(line, 0, at(front, Recv)) == (6.0, 7.0)


def test_a_stage_that_waits_for_another_is_in_a_bubble_until_the_message_leaves() -> None:
    first, second = usages(staged()[1].timeline)
    assert second.bubble_s == pytest.approx(2.0 + 3.0)  # at the beginning, and before the vote
    assert second.exposed_s["pipeline"] == pytest.approx(1.0)
    assert first.bubble_s == pytest.approx(4.0)
    assert first.exposed_s["pipeline"] == pytest.approx(1.0)
    assert [u.step_s for u in (first, second)] == pytest.approx([10.0, 10.0])


def test_the_critical_path_goes_down_and_up_the_stages() -> None:
    line = staged()[1].timeline
    path = [row for row in line.critical() if line.work_s[row] > 0]
    assert [int(line.rank[row]) for row in path] == [0, 1, 1, 0, 0, 0]
    assert [KINDS[line.kind[row]] for row in path] == [
        "device", "pipeline", "device", "pipeline", "device", "vote",
    ]  # fmt: skip


def early(*, seen_s: float, known_s: float = 7.25) -> tuple[Program, Timeline]:
    """Give a step of two stages and micro-batches; the second activation is asked for at 7 s.

    Args:
        seen_s: When the sender saw that it had arrived.
        known_s: When the receiver did.
    """
    program = lower(model(layers=1), plan(pp=2, micro_batches=2, cut=(0, 2)))
    front, back = program.stages
    ahead, behind = (
        [i for i, x in enumerate(s.instructions) if isinstance(x, Compute)] for s in (front, back)
    )
    down, up = ([at(front, what, nth) for nth in (0, 1)] for what in (Send, Recv))
    told: list[dict[int, Row]] = [{
        # Forward and forward, two instructions each, then backward and backward.
        ahead[0]: (0.0, 1.0), down[0]: (1.0, np.nan), ahead[2]: (1.0, 2.0),
        down[1]: (2.0, seen_s), up[0]: (1.0, 8.0, 2.0), ahead[4]: (8.0, 9.0),
        up[1]: (2.0, 12.0, 9.0), ahead[6]: (12.0, 13.0), at(front, Vote): (13.0, 15.0),
    }, {
        at(back, Recv): (0.0, 1.5, 0.0), behind[0]: (1.5, 3.0),
        at(back, Recv, 1): (3.0, known_s, 7.0), behind[2]: (3.0, 7.0),
        at(back, Send): (7.0, np.nan), behind[4]: (known_s, 11.0),
        at(back, Send, 1): (11.0, np.nan), at(back, Vote): (11.0, 15.0),
    }]  # fmt: skip
    tracks = [
        track(listed(stage, one), rank=rank, world=2)
        for rank, (stage, one) in enumerate(zip(program.stages, told, strict=True))
    ]
    return program, join(tracks, program).timeline


def test_a_message_that_was_there_long_before_it_was_asked_for_is_no_cause_of_what_came_late() -> (
    None
):
    # It arrived at 4 s, while the rank worked from 3 s to 7 s; asking for it took until 7.25 s.
    program, line = early(seen_s=4.0)
    back = program.stages[1]
    assert span(line, 1, at(back, Recv, 1)) == (3.0, 4.0)
    path = line.critical()
    assert row_of(line, 1, at(back, Recv, 1)) not in path
    assert row_of(line, 1, at(back, Compute, 2)) in path
    assert sum(line.work_s[path]) == pytest.approx(15.0 - 0.25)


def test_a_message_that_came_after_the_work_before_it_is_the_cause_of_what_waited() -> None:
    program, line = early(seen_s=7.25)
    back = program.stages[1]
    assert span(line, 1, at(back, Recv, 1)) == (3.0, 7.25)
    path = line.critical()
    assert row_of(line, 1, at(back, Recv, 1)) in path
    assert row_of(line, 1, at(back, Compute, 2)) not in path


def test_a_message_that_nobody_waited_for_but_asked_is_no_cause_of_what_came_after() -> None:
    # Asking took 0.1 s of the 4.1 s that it may have taken, and the sender never asked.
    program, line = early(seen_s=np.nan, known_s=7.1)
    back = program.stages[1]
    path = line.critical()
    assert row_of(line, 1, at(back, Recv, 1)) not in path
    assert row_of(line, 1, at(back, Compute, 2)) in path
    assert sum(line.work_s[path]) == pytest.approx(15.0 - 0.1)


def test_votes_end_when_the_step_does() -> None:
    line = staged()[1].timeline
    votes = line.kind == KINDS.index("vote")
    assert line.start_s[votes].tolist() == [9.0, 9.0]
    assert line.stop_s[votes].tolist() == [10.0, 10.0]


# ── what cannot be read ──────────────────────────────────────────────────────────────────────────


def test_ranks_of_another_program_are_refused() -> None:
    rows = listed(alone().stages[0], {})
    with pytest.raises(InputError, match="1 ranks recorded it, but the program is of 2"):
        join([track(rows)], pair())
    with pytest.raises(InputError, match="rank 0 recorded another program than this"):
        join([track(rows, world=2)], pair())


def test_some_ranks_of_a_step_can_be_read_and_others_are_named(tmp_path: Path) -> None:
    program = pair()
    rows = listed(program.stages[0], {at(program.stages[0], Vote): (0.0, 1.0)})
    for rank in range(2):
        write(tmp_path, track(rows, rank=rank, world=2))
    assert read(tmp_path, 50, program=program).timeline.alike == ((0,), (1,))
    assert read(tmp_path, 50, program=program, ranks=[1]).timeline.alike == ((1,),)
    with pytest.raises(InputError, match=r"no recording by rank 2, 7; choose from 0 … 1"):
        read(tmp_path, 50, program=program, ranks=[7, 2])
    with pytest.raises(InputError, match="step 9 was not recorded; choose 50"):
        read(tmp_path, 9, program=program)
