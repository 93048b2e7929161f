"""What is read from a step is what was done in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.calibrate.cases import cores, program, step

from stretto.calibrate.evidence import evidence
from stretto.calibrate.sample import REST, Sample, samples
from stretto.cost.instruction import Message, Prices
from stretto.cost.machine import Machine
from stretto.cost.stacks import own
from stretto.program.instruction import Compute, Program, Update
from stretto.timeline import KINDS, Timeline

PLANS: tuple[dict[str, Any], ...] = (
    {}, {"dp": 2}, {"dp": 2, "zero": 1}, {"dp": 2, "zero": 3}, {"tp": 2}, {"pp": 2},
    {"pp": 2, "tp": 2, "micro_batches": 4}, {"dp": 2, "tp": 2, "zero": 2},
)  # fmt: skip
ALONE = (PLANS[0], PLANS[4])
"""Plans in which messages do not run beside computes."""


def prices(what: Program) -> Prices:
    cluster = cores(what.placement.mesh.size)
    return Prices(what, Machine.of(cluster), own(cluster))


def read(what: Program) -> list[Sample]:
    return list(samples(step(what, cores(what.placement.mesh.size)), what).values())


@pytest.mark.parametrize("words", ALONE, ids=str)
def test_a_sample_of_a_simulated_step_is_what_it_is_priced_at(words: dict[str, Any]) -> None:
    what = program("tiny", seq=64, **words)
    for one in read(what):
        assert one.seconds == pytest.approx(one.priced_s(prices(what)), rel=1e-9), one.name


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(PLANS[:6]), st.sampled_from((32, 128)), st.sampled_from(("tiny", "stretto-1m"))
)
def test_no_sample_says_less_than_the_price_nor_much_more(
    words: dict[str, Any], seq: int, name: str
) -> None:
    """A message and a compute of another rank beside it slow each other."""
    what = program(name, seq=seq, **words)
    most = 1.1 * (1 + float(own(cores(1)).contention))
    for one in read(what):
        assert one.priced_s(prices(what)) * 0.999 < one.seconds, one.name
        if isinstance(one.work, Message):
            assert one.seconds < one.priced_s(prices(what)) * most, one.name


def test_all_seconds_of_a_single_rank_are_in_one_sample_each() -> None:
    what = program()
    line = step(what, cores(1))
    found = samples(line, what).values()
    assert sum(one.seconds * one.count for one in found) == pytest.approx(line.step_s, rel=1e-9)


@pytest.mark.parametrize("words", PLANS, ids=str)
def test_every_compute_and_update_of_a_played_rank_counts_once(words: dict[str, Any]) -> None:
    what = program("tiny", seq=64, **words)
    line = step(what, cores(what.placement.mesh.size))
    listed = Counter(
        type(x).__name__
        for ranks in line.alike
        for x in what.of(ranks[0]).instructions
        if isinstance(x, Compute | Update)
    )
    found: Counter[str] = Counter()
    for one in samples(line, what).values():
        found[type(one.work).__name__] += one.count
    assert {k: found[k] for k in listed} == dict(listed)


def later(line: Timeline, seconds: float, *, kind: str) -> Timeline:
    """Give a step that begins with the host doing something else, on every rank."""
    players = len(line.alike)

    def more(column: Any, value: Any) -> Any:
        return np.concatenate([np.full(players, value), column])

    return replace(
        line,
        player=np.concatenate([np.arange(players), line.player]),
        instruction=more(line.instruction, -1),
        kind=more(line.kind, KINDS.index(kind)),
        stream=more(line.stream, 0),
        start_s=more(line.start_s + seconds, 0.0),
        stop_s=more(line.stop_s + seconds, seconds),
        work_s=more(line.work_s, seconds),
        sent_bytes=more(line.sent_bytes, 0),
        cause=more(np.where(line.cause >= 0, line.cause + players, -1), -1),
        step_s=line.step_s + seconds,
    )


@pytest.mark.parametrize("kind", ["host", "data"])
@pytest.mark.parametrize("words", [{}, {"tp": 2}, {"pp": 2}], ids=str)
def test_what_the_host_does_between_steps_is_the_rest(words: dict[str, Any], kind: str) -> None:
    what = program("tiny", seq=64, **words)
    line = step(what, cores(what.placement.mesh.size))
    before, after = samples(line, what), samples(later(line, 0.25, kind=kind), what)
    assert after[REST].seconds == pytest.approx(before[REST].seconds + 0.25)
    for key in before.keys() - {REST}:
        assert after[key].seconds == pytest.approx(before[key].seconds), key


def test_the_middle_half_of_steps_is_heard() -> None:
    what = program("tiny", seq=64)
    line = step(what, cores(1))
    lines = [later(line, s, kind="host") for s in (0.1, 0.2, 0.3, 0.4, 50.0, 60.0, 70.0, 80.0)]
    found = evidence(what, lines)
    assert found.step_s == pytest.approx(line.step_s + (0.4 + 50) / 2)
    (rest,) = (one for one in found.samples if one.name == REST)
    assert rest.seconds == pytest.approx((0.4 + 50) / 2 + step_rest(line, what))


def step_rest(line: Timeline, what: Program) -> float:
    return samples(line, what)[REST].seconds


def test_names_are_those_that_people_know() -> None:
    names = {one.name for one in read(program("tiny", seq=64, tp=2))}
    assert {"forward attention[attend]", "backward feed_forward[transform]", REST} <= names
    assert any(name.startswith("all-gather tp, ") for name in names)
    assert any(name.startswith("update ") for name in names)
