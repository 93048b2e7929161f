"""A recorded step as a page reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import Look, Serve, a_run
from steps import a_recording, a_subject, on_disk, unpacked

from stretto.cli.shown import of_run
from stretto.page import step, step_read
from stretto.page.step_side import UNREAD
from stretto.page.subject import Subject
from stretto.plan import Batch, Plan
from stretto.simulate import SlowRank
from stretto.timeline.recorded import Recording
from stretto.timeline.track import files


def ranks(recording: Recording) -> list[int]:
    return [alike[0] for alike in recording.timeline.alike]


@pytest.fixture
def eight(tmp_path: Path) -> Subject:
    """Two stages of four replicas, whose ranks are 0 and 4, 1 and 5, and so on; rank 2 is slow."""
    subject = a_subject(run=tmp_path, dp=4)
    on_disk(subject, a_recording(subject, faults=[SlowRank(2, 2.0)]))
    return subject


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, eight: Subject) -> None:
    """Let a page read no more rows than three ranks have: one replica and a half."""
    monkeypatch.setattr(step_read, "WHOLE", 1)
    each = max(len(sheet.key) for sheet in eight.book.sheets)
    monkeypatch.setattr(step_read, "PART", 3 * each)


def test_a_step_of_few_rows_is_read_whole(eight: Subject) -> None:
    assert ranks(eight.recorded(50)) == [*range(8)]


@pytest.mark.usefixtures("few")
def test_of_too_many_rows_the_replica_of_the_slow_rank_is_read(eight: Subject) -> None:
    assert ranks(eight.recorded(50)) == [2, 6]


@pytest.mark.usefixtures("few")
def test_a_rank_that_was_read_with_few_others_took_what_it_took(eight: Subject) -> None:
    part = eight.recorded(50).timeline
    device = part.kind == 1
    busy = np.bincount(part.player[device], (part.stop_s - part.start_s)[device])
    whole = a_recording(eight, faults=[SlowRank(2, 2.0)]).timeline
    mine = whole.kind == 1
    all_busy = np.bincount(whole.player[mine], (whole.stop_s - whole.start_s)[mine])
    assert busy == pytest.approx(all_busy[[2, 6]])


@pytest.mark.usefixtures("few")
def test_a_page_tells_ranks_that_were_not_read_from_those_that_did_not_record(
    eight: Subject,
) -> None:
    assert eight.run is not None
    files(eight.run, 50)[7].unlink()
    (found,) = step.picture(eight, [eight.recorded(50)], steps=[50])["recordings"]
    player = unpacked(found["measured"]["player"]).tolist()
    assert player == [UNREAD, UNREAD, 0, UNREAD, UNREAD, UNREAD, 1, -1]
    assert found["read"] == 2


@pytest.mark.usefixtures("few")
def test_causes_are_not_told_of_a_step_of_which_others_were_not_looked_at(eight: Subject) -> None:
    assert step.answer(eight, {"step": "50", "why": "1"}) == {
        "top": [],
        "findings": [],
        "compared": 0,
    }


def test_a_step_is_read_once_until_it_is_recorded_anew(eight: Subject) -> None:
    first = eight.recorded(50)
    assert eight.recorded(50) is first
    on_disk(eight, a_recording(eight, faults=[SlowRank(2, 4.0)]))
    assert eight.recorded(50).timeline.step_s > first.timeline.step_s


@pytest.mark.parametrize("limit", ["few ranks are read", "few ranks are given"])
def test_rows_that_are_asked_for_are_those_of_the_rank(
    look: Look, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    batch = Batch(sequences=8, micro_batch=2, seq=64)
    run = a_run(tmp_path / "a", steps=4, plan=Plan.of(pp=2, dp=2, batch=batch))
    subject = of_run(run)
    on_disk(subject, a_recording(subject, faults=[SlowRank(1, 3.0)], noise=0.1, step=4))
    recording = subject.recorded(4)
    monkeypatch.setattr(step, "RANKS", 1)
    if limit == "few ranks are read":
        monkeypatch.setattr(step_read, "WHOLE", 1)
        monkeypatch.setattr(step_read, "PART", len(subject.book.sheets[0].key))
    page = look(serve(tmp_path).run_url("a"))

    def length(rank: int) -> Any:
        script = """rank => {
          const rows = Stretto.timeline.view.model.measured.rows(rank);
          return rows && [...rows.length];
        }"""
        return page.evaluate(script, rank)

    for rank in (3, 2, 1, 0):
        page.evaluate("rank => Stretto.timeline.view.toggle(rank, true)", rank)
        page.wait_for_function("rank => Stretto.timeline.view.model.measured.rows(rank)", arg=rank)
    for rank in (0, 2, 3):  # rank 1 is read with the page, and may be without those it waits for
        stages = step.one_rank(subject, recording.timeline, rank)["measured"]["stages"]
        (found,) = (unpacked(stage["length"])[0] for stage in stages if stage["players"])
        assert length(rank)[: len(found)] == pytest.approx(found.tolist(), nan_ok=True)
