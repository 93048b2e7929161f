"""Documents for Perfetto: they load, their events are in order, and arrows have two ends."""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulate.toy import cluster, model, modern, plan, software

from stretto.program.draw import draw
from stretto.program.lower import lower
from stretto.program.render import label
from stretto.simulate import simulate
from stretto.timeline import KINDS
from stretto.timeline.chrome import chrome, document, events
from stretto.timeline.memory import NAMES, curve

cases = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 10_000)


def loaded(pieces: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads("".join(pieces))["traceEvents"]
    return found


@cases
@given(seeds)
def test_events_of_a_rank_are_in_the_order_of_time_and_named(seed: int) -> None:
    program = lower(*draw(seed))
    line = simulate(program, cluster(program.placement.mesh.size, node=3), stack=modern())
    held = [curve(line, program, player) for player in range(len(line.alike))]
    found = loaded(chrome(line, program, name="predicted", memory=held))
    assert {event["ph"] for event in found} <= {"M", "X", "s", "f", "C"}
    for ranks in line.alike:
        mine = [e for e in found if e["pid"] == ranks[0]]
        assert mine[0]["args"]["name"].startswith(f"predicted rank {ranks[0]}")
        times = [e["ts"] for e in mine if e["ph"] != "M"]
        assert times == sorted(times)
        named = {e["tid"] for e in mine if e["name"] == "thread_name"}
        assert {e["tid"] for e in mine if e["ph"] == "X"} <= named


@cases
@given(seeds)
def test_pieces_are_the_rows_that_take_time(seed: int) -> None:
    program = lower(*draw(seed))
    line = simulate(program, cluster(program.placement.mesh.size, node=3), stack=modern())
    found = [e for e in loaded(chrome(line, program, name="x")) if e["ph"] == "X"]
    told = sorted(
        (e["pid"], e["name"], e["cat"], e["args"].get("sent_bytes", 0))
        for e in found
        if e["cat"] != "step"
    )
    expected = []
    for row in range(len(line.kind)):
        if line.kind[row] > 0:
            rank = int(line.rank[row])
            stage = program.of(rank)
            name = label(program, stage, stage.instructions[line.instruction[row]])
            expected.append((rank, name, KINDS[line.kind[row]], int(line.sent_bytes[row])))
    assert told == sorted(expected)
    for event in found:
        if event["cat"] == "step":
            assert (event["ts"], event["dur"]) == (0.0, pytest.approx(line.step_s * 1e6, abs=3e-3))


@cases
@given(seeds)
def test_every_arrow_has_two_ends_within_pieces(seed: int) -> None:
    program = lower(*draw(seed))
    line = simulate(program, cluster(program.placement.mesh.size, node=3), stack=modern())
    found = loaded(chrome(line, program, name="x"))
    ends = Counter((e["id"], e["ph"]) for e in found if e["ph"] in "sf")
    assert set(ends.values()) <= {1}
    assert {i for i, end in ends if end == "s"} == {i for i, end in ends if end == "f"}
    pieces = [e for e in found if e["ph"] == "X"]
    for tip in (e for e in found if e["ph"] in "sf"):
        assert any(
            p["pid"] == tip["pid"] and p["tid"] == tip["tid"]
            and p["ts"] - 1e-3 <= tip["ts"] <= p["ts"] + p["dur"] + 1e-3
            for p in pieces
        )  # fmt: skip


def test_stages_that_send_to_each_other_have_an_arrow_for_each_message() -> None:
    program = lower(model(), plan(pp=2, micro_batches=3, cut=(0, 3)))
    found = loaded(chrome(simulate(program, cluster(2), stack=software()), program, name="x"))
    starts = [e for e in found if e["ph"] == "s"]
    assert Counter(e["pid"] for e in starts) == {0: 3, 1: 3}
    assert all(e["bp"] == "e" for e in found if e["ph"] == "f")


def test_memory_is_a_counter_by_kind() -> None:
    program = lower(model(), plan())
    line = simulate(program, cluster(1), stack=software())
    held = curve(line, program, 0)
    counters = [e for e in loaded(chrome(line, program, name="x", memory=[held])) if e["ph"] == "C"]
    assert len(counters) == len(held.times_s)
    assert all(set(e["args"]) == set(NAMES) for e in counters)
    assert max(sum(e["args"].values()) for e in counters) == held.total_bytes.max()


def test_several_steps_stand_in_one_document() -> None:
    program = lower(model(), plan())
    line = simulate(program, cluster(1), stack=software())
    later = events(line, program, name="measured", title="step 50", at_s=2.0)
    beside = events(line, program, name="predicted", first=1)
    found = loaded(document(chain(later, beside)))
    steps = {e["name"]: (e["pid"], e["ts"]) for e in found if e.get("cat") == "step"}
    assert steps == {"step 50": (0, 2e6), "predicted": (1, 0.0)}
    names = {e["args"]["name"] for e in found if e["name"] == "process_name"}
    assert names == {"measured rank 0", "predicted rank 0"}


def test_ranks_that_are_alike_are_drawn_once_and_counted() -> None:
    program = lower(model(), plan(dp=2))
    line = simulate(program, cluster(2), stack=software())
    found = loaded(chrome(line, program, name="predicted"))
    names = [e["args"]["name"] for e in found if e["name"] == "process_name"]
    assert names == ["predicted rank 0 (2 alike)"]


@cases
@given(seeds)
def test_pieces_of_a_thread_do_not_overlap_for_a_reader_that_cuts_nanoseconds_off(
    seed: int,
) -> None:
    program = lower(*draw(seed))
    line = simulate(program, cluster(program.placement.mesh.size, node=3), stack=modern())
    found = [e for e in loaded(events_at(line, program)) if e["ph"] == "X"]
    threads: dict[tuple[int, int], int] = {}
    for event in found:
        begun, thread = int(event["ts"] * 1000), (event["pid"], event["tid"])
        assert begun >= threads.get(thread, 0)
        threads[thread] = begun + int(event["dur"] * 1000)


def events_at(line: Any, program: Any) -> Any:
    return document(events(line, program, name="x", at_s=1 / 3))


def test_what_takes_no_time_is_not_drawn_and_a_moment_is() -> None:
    program = lower(model(), plan(dp=2))
    line = simulate(program, cluster(2), stack=software())
    marks = [(0, 0.25, "rank 0 dies")]
    found = loaded(chrome(line, program, name="x", first=7, marks=marks))
    named = {e["args"]["name"] for e in found if e["name"] == "thread_name"}
    assert "none" not in named and not [e for e in found if e["name"] == "free"]
    (moment,) = (e for e in found if e["ph"] == "i")
    assert (moment["pid"], moment["ts"], moment["name"]) == (7, 0.25e6, "rank 0 dies")
