"""A step in words: simulated steps whose numbers one can work out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulate.toy import cluster, model, modern, plan, software

from stretto.program.draw import draw
from stretto.program.instruction import Compute, Program
from stretto.program.lower import lower
from stretto.report.quantities import step
from stretto.report.step import MOST_RANKS, step_lines
from stretto.simulate import Halt, SlowRank, simulate
from stretto.timeline import Timeline, Usage, usages
from stretto.timeline.memory import curve


def told(program: Program, line: Timeline) -> list[str]:
    held = [curve(line, program, player) for player in range(len(line.alike))]
    return list(step_lines(line, program, memory=held))


def test_a_rank_alone_is_busy_but_for_the_vote() -> None:
    program = lower(model(), plan())
    line = simulate(program, cluster(1), stack=software())
    first, times, memory, *rest = told(program, line)
    assert first == f"step {step(line.step_s)}, 1 rank"
    assert times == "rank 0  busy 100.0%  bubble 0.0%  exposed nothing"
    assert memory.startswith("        memory ")
    assert rest[0].startswith("critical path  backward ")
    assert rest[1] == "               through rank 0"
    assert rest[2].startswith("               longest: backward layers.")


def test_memory_says_what_made_its_peak_and_what_fills_it() -> None:
    program = lower(model(), plan(micro_batches=1))
    line = simulate(program, cluster(1), stack=software())
    held = curve(line, program, 0)
    # The gradient of the head's weight is made while everything is still kept.
    made = program.stages[0].instructions[int(held.made[held.peak])]
    assert isinstance(made, Compute)
    text = told(program, line)[2]
    assert f"{held.total_bytes.max() / 1024:.2f} KiB at most, by " in text
    assert text.index("optimizer 14.31 KiB") < text.index("parameters 7.16 KiB")  # of 1,832 numbers


def test_messages_are_told_by_what_they_are_for() -> None:
    program = lower(model(), plan(dp=2))
    line = simulate(program, cluster(2), stack=software())
    (usage,) = usages(line)
    first, times, *rest = step_lines(line, program)
    assert first.endswith(", 2 ranks, 1 kind of them")
    assert times.startswith("rank 0, and 1 more like it  busy ")
    assert f"gradients {usage.exposed_s['gradient'] / line.step_s:.1%}" in times
    assert f"gradients over dp {usage.exposed_s['gradient'] / line.step_s:.1%}" in rest[0]


def test_of_many_ranks_those_that_work_most_and_least_are_told_of() -> None:
    program = lower(model(), plan(dp=12))
    faults = [SlowRank(rank, 1.0 + rank / 100) for rank in range(12)]
    line = simulate(program, cluster(12, node=12), stack=software(), faults=faults)
    lines = list(step_lines(line, program))
    shown = [int(text.split()[1]) for text in lines if text.startswith("rank ")]
    assert shown == [0, 1, 2, 3, 8, 9, 10, 11]
    assert len(shown) == MOST_RANKS
    assert "… and 4 more, which work more than the least and less than most" in lines


def test_a_step_that_does_not_end_says_who_waits_for_whom() -> None:
    program = lower(model(), plan(pp=2, cut=(0, 3)))
    line = simulate(program, cluster(2), stack=software(), faults=[Halt(1)])
    lines = list(step_lines(line, program))
    assert lines[0].startswith("the step does not end: nothing moves any more after ")
    assert lines[1].startswith("rank 0 waits before ")
    assert lines[1].endswith(" for rank 1")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_shares_of_the_critical_path_sum_to_the_step(seed: int) -> None:
    program = lower(*draw(seed))
    line = simulate(program, cluster(program.placement.mesh.size, node=3), stack=modern())
    (path,) = (text for text in told(program, line) if text.startswith("critical path"))
    shares = [float(word.rstrip("%,")) for word in path.split() if word.endswith(("%", "%,"))]
    assert sum(shares) == pytest.approx(100.0, abs=0.6)
    assert shares == sorted(shares, reverse=True)


def test_nothing_is_counted_twice_in_a_rank() -> None:
    usage = Usage(0, 1.0, {"gradient": 2.0}, 3.0)
    assert usage.step_s == 6.0
    assert replace(usage, bubble_s=0.0).step_s == 3.0
