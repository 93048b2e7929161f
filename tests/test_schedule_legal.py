"""Which numbers a schedule takes, and what is said of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.errors import PlanError
from stretto.plan import ScheduleName
from stretto.schedule import SCHEDULES, possible, problems

NAMES = st.sampled_from(sorted(SCHEDULES))


@given(NAMES, st.integers(0, 5), st.integers(0, 9), st.integers(0, 3))
def test_a_schedule_can_be_made_where_it_is_possible_and_has_no_problems(
    name: ScheduleName, ranks: int, micro_batches: int, chunks: int
) -> None:
    found = problems(name, ranks=ranks, micro_batches=micro_batches, chunks=chunks)
    assert possible(name, p=ranks, v=chunks, m=micro_batches) == (not found)
    if not found:
        schedule = SCHEDULES[name](ranks, micro_batches, chunks=chunks)
        assert (len(schedule.ranks), schedule.chunks) == (ranks, chunks)
        return
    with pytest.raises(PlanError) as error:
        SCHEDULES[name](ranks, micro_batches, chunks=chunks)
    assert error.value.problems == found


@pytest.mark.parametrize(
    ("name", "ranks", "micro_batches", "chunks", "said"),
    [
        ("1f1b", 4, 8, 2, "pipeline.interleave: 1f1b takes 1 to a rank, but is 2; use 1, or the "
                          "schedule interleaved"),
        ("zb-v", 4, 8, 1, "pipeline.interleave: zb-v takes 2 to a rank, but is 1; use 2"),
        ("breadth-first", 4, 8, 0, "pipeline.interleave: breadth-first takes 1 or more to a rank, "
                                   "but is 0; use 1"),
        ("interleaved", 4, 6, 2, "batch.sequences: interleaved takes as many micro-batches at a "
                                 "time as there are pp ranks, but 6 % 4 = 2; use 4 or 8 "
                                 "micro-batches, or the schedule breadth-first"),
        ("interleaved", 4, 3, 2, "batch.sequences: interleaved takes as many micro-batches at a "
                                 "time as there are pp ranks, but 3 % 4 = 3; use 4 micro-batches, "
                                 "or the schedule breadth-first"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_would_be_right(
    name: ScheduleName, ranks: int, micro_batches: int, chunks: int, said: str
) -> None:
    found = problems(name, ranks=ranks, micro_batches=micro_batches, chunks=chunks)
    assert [str(p) for p in found] == [said]


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = problems("gpipe", ranks=0, micro_batches=0, chunks=0)
    assert [str(p) for p in found] == [
        "mesh.pp: makes 0 pipeline ranks, below 1; use more",
        "batch.sequences: makes 0 micro-batches, below 1; use more",
        "pipeline.interleave: gpipe takes 1 to a rank, but is 0; use 1",
    ]


def test_interleaved_with_one_stage_a_rank_takes_any_number_of_micro_batches() -> None:
    assert not problems("interleaved", ranks=4, micro_batches=6, chunks=1)
