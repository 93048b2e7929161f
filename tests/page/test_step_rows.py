"""Every instruction that takes time is in a page's columns, once, under its name in the trace."""

from __future__ import annotations

import numpy as np
import pytest
from steps import a_subject, known, unpacked
from tests.simulate.toy import cluster, modern

from stretto.page.step_rows import SORTS, book, bounds, places, stage_of
from stretto.page.step_side import rows
from stretto.program.draw import draw
from stretto.program.instruction import Compute, Phase, Program
from stretto.program.lower import lower
from stretto.program.render import label
from stretto.program.traffic import traffic
from stretto.simulate import simulate
from stretto.timeline import Timeline

SEEDS = range(12)


def drawn(seed: int) -> tuple[Program, Timeline]:
    program = lower(*draw(seed))
    size = program.placement.mesh.size
    return program, simulate(program, cluster(size), stack=modern())


@pytest.mark.parametrize("seed", SEEDS)
def test_every_row_that_takes_time_has_one_place(seed: int) -> None:
    program, line = drawn(seed)
    leaves, limits = book(program), bounds(line)
    for player, stage in enumerate(stage_of(program, line)):
        mine = slice(*limits[player : player + 2])
        at, place = places(line, leaves.sheets[stage], rows=mine)
        timed = np.flatnonzero((line.player == player) & (line.kind > 0))
        assert sorted(at.tolist()) == timed.tolist()
        assert sorted(place.tolist()) == list(range(len(leaves.sheets[stage].key)))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_page_reads_the_begin_and_the_length_of_every_row(seed: int) -> None:
    program, line = drawn(seed)
    leaves, limits, stages = book(program), bounds(line), stage_of(program, line)
    everybody = range(len(line.alike))
    found = rows(line, program, book=leaves, players=everybody)
    assert found["others"] == []
    for stage, columns in enumerate(found["stages"]):
        begin, length = unpacked(columns["begin"]), unpacked(columns["length"])
        assert columns["players"] == [p for p in everybody if stages[p] == stage]
        for i, player in enumerate(columns["players"]):
            mine = slice(*limits[player : player + 2])
            at, place = places(line, leaves.sheets[stage], rows=mine)
            assert np.allclose(begin[i, place], line.start_s[at], rtol=1e-6)
            assert np.allclose(length[i, place], line.stop_s[at] - line.start_s[at], atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_bytes_of_a_stage_are_those_of_its_traffic(seed: int) -> None:
    program, _ = drawn(seed)
    for stage, sheet in zip(program.stages, book(program).sheets, strict=True):
        sent = sum(
            size for x in stage.instructions for _, size in traffic(x, stage, program.placement)
        )
        votes = sheet.sort == SORTS.index("vote")
        assert int(sheet.sent_bytes[~votes].sum()) == sent


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_are_called_as_in_the_trace(seed: int) -> None:
    program, _ = drawn(seed)
    leaves = book(program)
    for stage, sheet in zip(program.stages, leaves.sheets, strict=True):
        for name, instruction in zip(sheet.name, sheet.instruction, strict=True):
            wanted = label(program, stage, stage.instructions[instruction])
            assert leaves.names[name] == wanted
    assert len(set(leaves.names)) == len(leaves.names)


def test_the_rows_of_a_step_begin_with_what_follows_its_vote() -> None:
    program, _ = known(a_subject())
    sheet = book(program).sheets[0]
    order = [SORTS[sort] for sort in sheet.sort]
    assert order[0] == "update"
    assert order[-1] == "vote"


def test_work_of_the_device_is_told_apart_by_its_phase() -> None:
    program, _ = known(a_subject())
    stage, sheet = program.stages[0], book(program).sheets[0]
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        listed = sum(isinstance(x, Compute) and x.phase is phase for x in stage.instructions)
        assert (sheet.sort == SORTS.index(phase)).sum() == listed > 0


def test_queues_name_only_axes_that_split_something() -> None:
    program, _ = known(a_subject())
    told = book(program).packed(program.placement.mesh)["queues"]
    assert {tuple(queue["axes"]) for queue in told if queue["way"] == "group"} == {("dp",)}
    assert {queue["by"] for queue in told if queue["way"] == "to"} == {1, -1}
