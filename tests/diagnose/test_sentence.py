"""Every cause is told in a clause that can be read aloud."""

from __future__ import annotations

import numpy as np
import pytest

from stretto.diagnose.finding import Cause, Finding
from stretto.diagnose.sentence import brief


def a_finding(cause: Cause, where: str, extra_s: float = 0.02) -> Finding:
    return Finding(cause, where, (), 1.0, extra_s, 0.1, "", np.ones(1))


TOLD = {
    (Cause.SLOW_RANK, "rank 0"): "rank 0 is slow, which costs 20.0 ms",
    (Cause.SLOW_RANK, "ranks 2, 5"): "ranks 2, 5 are slow, which costs 20.0 ms",
    (Cause.SLOW_LINK, "h2–h3"): "the link between h2 and h3 is slow, which costs 20.0 ms",
    (Cause.SLOW_LINK, "h2 into spine"): "the link of h2 into spine is slow, which costs 20.0 ms",
    (Cause.SLOW_LINK, "one of h2, h3 into spine"): (
        "one of the links of h2, h3 into spine is slow, which costs 20.0 ms"
    ),
    (Cause.MEMORY_PRESSURE, "rank 3"): "rank 3 is short of memory, which costs 20.0 ms",
    (Cause.DATA_WAIT, "all ranks"): "all ranks wait for data, which costs 20.0 ms",
    (Cause.DATA_WAIT, "rank 1"): "rank 1 waits for data, which costs 20.0 ms",
    (Cause.HOST, "all ranks"): "the hosts of all ranks keep devices waiting, which costs 20.0 ms",
    (Cause.HOST, "rank 1"): "the host of rank 1 keeps its device waiting, which costs 20.0 ms",
    (Cause.WRONG_CONSTANT, "node.latency"): "node.latency is wrong, which costs 20.0 ms",
    (Cause.UNEXPLAINED, "vote"): "20.0 ms unexplained, most of it in vote",
    (Cause.UNEXPLAINED, "all ranks"): "20.0 ms unexplained, on all ranks",
}


@pytest.mark.parametrize(("what", "told"), TOLD.items())
def test_a_cause_is_a_clause_with_what_it_costs(what: tuple[Cause, str], told: str) -> None:
    assert brief(a_finding(*what)) == told


def test_no_cause_is_without_words() -> None:
    assert {cause for cause, _ in TOLD} == set(Cause)


def test_what_takes_less_than_predicted_saves() -> None:
    wrong, unknown = Cause.WRONG_CONSTANT, Cause.UNEXPLAINED
    assert brief(a_finding(wrong, "tdp", -0.02)) == "tdp is wrong, which saves 20.0 ms"
    assert brief(a_finding(unknown, "vote", -0.02)) == (
        "20.0 ms less than predicted unexplained, most of it in vote"
    )
