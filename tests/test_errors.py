"""Errors carry every problem, and say whose fault it is by their exit code."""

from __future__ import annotations

import pytest

from stretto.errors import (
    CheckpointError,
    ClusterError,
    DataError,
    InputError,
    MachineError,
    ModelError,
    PlanError,
    Problem,
    RankError,
    StrettoError,
)

HEADS = Problem("mesh.tp", "must divide heads, but 9 % 2 = 1", "choose a divisor of 9")
BATCH = Problem("batch.seq", "is 0, below 1", "use 1 or more")


def test_a_problem_reads_as_field_rule_and_remedy() -> None:
    assert str(HEADS) == "mesh.tp: must divide heads, but 9 % 2 = 1; choose a divisor of 9"


def test_an_error_lists_all_its_problems_a_line_each() -> None:
    error = PlanError(p for p in (HEADS, BATCH))
    assert error.problems == (HEADS, BATCH)
    assert str(error).splitlines() == [str(HEADS), str(BATCH)]


def test_an_error_takes_a_single_problem() -> None:
    assert DataError(HEADS).problems == (HEADS,)


def test_an_error_without_a_problem_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        PlanError(())


@pytest.mark.parametrize("kind", [PlanError, ModelError, ClusterError, DataError, CheckpointError])
def test_what_the_user_asked_for_is_an_input_error_and_exits_with_2(
    kind: type[StrettoError],
) -> None:
    assert issubclass(kind, InputError)
    assert kind.exit_code == 2


def test_a_machine_that_refuses_exits_with_2_and_is_not_the_users_fault() -> None:
    assert MachineError.exit_code == 2
    assert not issubclass(MachineError, InputError)


def test_a_rank_that_fails_exits_with_3() -> None:
    assert RankError.exit_code == 3
    assert issubclass(RankError, StrettoError)
