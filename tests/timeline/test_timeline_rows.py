"""The rows of a stage are those that the simulator plays."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulate.toy import cluster, model, modern, plan

from stretto.program.draw import draw
from stretto.program.instruction import Compute, Free, Move, Recv, Send, Update, Vote
from stretto.program.lower import lower
from stretto.simulate import simulate
from stretto.timeline import KINDS
from stretto.timeline.rows import Queue, after_vote, kind, rows


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_rows_are_those_of_a_simulated_step(seed: int) -> None:
    program = lower(*draw(seed))
    line = simulate(program, cluster(program.placement.mesh.size, node=3), stack=modern())
    for player, ranks in enumerate(line.alike):
        mine = line.player == player
        listed = rows(program, program.of(ranks[0]))
        assert np.array_equal(listed.instruction, line.instruction[mine])
        assert np.array_equal(listed.kind, line.kind[mine])
        assert np.array_equal(listed.sent_bytes, line.sent_bytes[mine])
        streams = [line.streams[s] for s in line.stream[mine]]
        alone = {0: "none", 1: "device"}
        assert streams == [
            alone.get(k) or listed.queues[q].name
            for k, q in zip(listed.kind.tolist(), listed.queue.tolist(), strict=True)
        ]


def test_kinds_are_what_a_message_is_for() -> None:
    program = lower(model(), plan(dp=2, zero=3, pp=2, cut=(0, 3)))
    found = {
        (type(x).__name__, KINDS[kind(x, stage)]) for stage in program.stages
        for x in stage.instructions
    }  # fmt: skip
    assert found == {
        ("Compute", "device"), ("Update", "device"), ("Free", "none"), ("Vote", "vote"),
        ("Send", "pipeline"), ("Recv", "pipeline"), ("Move", "parameter"), ("Move", "gradient"),
    }  # fmt: skip
    assert {Compute, Update, Free, Vote, Send, Recv, Move} == {
        type(x) for stage in program.stages for x in stage.instructions
    }


def test_both_ends_of_a_message_between_stages_are_one_queue() -> None:
    mesh = lower(model(), plan(dp=2, pp=2, cut=(0, 3))).placement.mesh
    assert Queue("to", by=1).ends(mesh, 0) == Queue("from", by=-1).ends(mesh, 2) == (0, 2)
    assert Queue("to", by=-1).ends(mesh, 3) == Queue("from", by=1).ends(mesh, 1) == (3, 1)
    assert Queue("group", ("dp",)).ends(mesh, 2) == Queue("group", ("dp",)).ends(mesh, 3)
    assert Queue("group", ("dp",)).ends(mesh, 0) != Queue("group", ("dp",)).ends(mesh, 3)
    names = [Queue("to", by=1).name, Queue("from", by=-1).name, Queue("group", ("dp", "tp")).name]
    assert names == ["to next", "from previous", "dp·tp"]


def test_a_step_begins_after_its_vote() -> None:
    (stage,) = lower(model(), plan()).stages
    at = after_vote(stage)
    assert isinstance(stage.instructions[at - 1], Vote)
    assert any(isinstance(x, Update) for x in stage.instructions[at:])
