"""What happened to a run, and what of it may be written on a page."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

from runs import a_run, append, record

from stretto.page.incidents import MOST, incidents, plain
from stretto.page.metrics import Metrics


def of(run: Path) -> list[dict[str, object]]:
    return incidents(run, Metrics(run / "metrics.jsonl").read())


def test_starts_checkpoints_and_steps_that_did_not_count_are_told(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", steps=3)
    append(run, record(4, applied=False), record(5, saved="step-00000005"))
    a_run(run, steps=0)  # another start
    found = [(i["kind"], i["step"], str(i["text"]).split()[0]) for i in of(run)]
    assert found == [
        ("start", 0, "began"),
        ("restart", 0, "went"),
        ("skipped", 4, "loss"),
        ("checkpoint", 5, "step-00000005"),
    ]


def started(run: Path, *starts: dict[str, object]) -> list[dict[str, object]]:
    (run / "environment.json").write_text(json.dumps(starts), encoding="utf-8")
    return of(run)


def test_a_start_says_on_how_many_ranks_and_which_keys_of_the_plan_are_others(
    tmp_path: Path,
) -> None:
    run = a_run(tmp_path / "run", steps=3)
    when, versions = "2026-05-01T12:00:00", {"torch": "2.13.0"}
    plan = "[mesh]\ndp = 4\ntp = 1\n[batch]\nseq = 64\n[rules.optimizer]\nembed = 'dp'\nff = 'dp'\n"
    other = "[mesh]\ndp = 2\ntp = 1\n[batch]\nseq = 64\n"
    one = {"step": 0, "ranks": 4, "cluster": "h100x4", "plan": plan, "versions": versions}
    two = {"step": 2, "started": when, "ranks": 2, "machine": {"name": "desk"}, "plan": other}
    found = started(run, one, two, two | {"ranks": 1})
    assert [(i["kind"], i["step"], i["when"], i["text"]) for i in found] == [
        ("start", 0, "", "began with 4 ranks on h100x4, torch 2.13.0"),
        ("restart", 2, when, "went on with 2 ranks on desk; "
         "plan: mesh.dp 4 → 2, rules.optimizer"),
        ("restart", 2, when, "went on with 1 rank on desk"),
    ]  # fmt: skip


def test_starts_of_which_less_is_known_say_less(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", steps=3)
    found = started(run, {}, {"plan": "mesh = ["}, {"plan": 3, "ranks": "4", "step": "x"})
    assert [(i["step"], i["text"]) for i in found] == [
        (None, "began"), (None, "went on"), (None, "went on"),
    ]  # fmt: skip


def test_what_happened_is_told_in_the_order_of_time(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", steps=0)
    append(run, *(record(s, step_s=60.0, applied=s != 3) for s in range(1, 4)))
    append(run, record(4, step_s=60.0, saved="step-00000004"))
    append(run, record(5, step_s=60.0, saved="step-00000005"))
    kept = run / "checkpoints" / "step-00000005"
    kept.mkdir(parents=True)
    written = datetime.fromisoformat("2026-05-01T15:00:00+00:00").timestamp()
    os.utime(kept, (written, written))
    crash = {"step": 4, "when": "2026-05-01T13:30:00+00:00", "kind": "crash"}
    (run / "incidents.jsonl").write_text(json.dumps(crash) + "\n", encoding="utf-8")
    starts = [
        {"step": 0, "started": "2026-05-01T12:00:00+00:00"},
        {"step": 2, "started": "2026-05-01T14:00:00+00:00"},  # it lost two steps
    ]
    found = [(i["kind"], i["step"], i["when"]) for i in started(run, *starts)]
    assert found == [
        ("start", 0, "2026-05-01T12:00:00+00:00"),
        ("incident", 4, "2026-05-01T13:30:00+00:00"),
        ("restart", 2, "2026-05-01T14:00:00+00:00"),
        ("skipped", 3, "about 2026-05-01T14:58:00+00:00"),
        ("checkpoint", 4, "about 2026-05-01T14:59:00+00:00"),
        ("checkpoint", 5, "2026-05-01T15:00:00+00:00"),
    ]


def written_at(path: Path, when: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    at = datetime.fromisoformat(f"2026-05-01T{when}+00:00").timestamp()
    os.utime(path, (at, at))


def test_what_a_run_took_to_begin_and_to_save_is_in_the_times_about_which_things_happened(
    tmp_path: Path,
) -> None:
    run = a_run(tmp_path / "run", steps=0)
    append(run, *(record(s, step_s=10.0, saved=f"step-{s:08d}") for s in range(1, 11)))
    # Two minutes to begin, then steps of ten seconds; after the fourth, five more to save each.
    written_at(run / "checkpoints" / "step-00000004", "12:02:40")
    written_at(run / "checkpoints" / "step-00000008", "12:03:40")
    at = datetime.fromisoformat("2026-05-01T12:04:10+00:00").timestamp()
    os.utime(run / "metrics.jsonl", (at, at))
    found = started(run, {"step": 0, "started": "2026-05-01T12:00:00+00:00"})
    times = {i["step"]: str(i["when"]).removesuffix("+00:00")[-8:] for i in found}
    assert times == {
        0: "12:00:00",
        1: "12:02:10", 2: "12:02:20", 3: "12:02:30", 4: "12:02:40",  # counted back
        5: "12:02:55", 6: "12:03:10", 7: "12:03:25", 8: "12:03:40",  # shared out
        9: "12:03:55", 10: "12:04:10",
    }  # fmt: skip


def test_files_of_another_start_say_nothing_of_when_steps_ended(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", steps=0)
    append(run, *(record(s, step_s=10.0, applied=s != 3) for s in range(1, 5)))
    append(run, record(5, step_s=10.0, saved="step-00000005"))
    written_at(run / "checkpoints" / "step-00000005", "12:30:00")  # before it went on from step 2
    os.utime(run / "metrics.jsonl", (1e9, 1e9))
    found = started(
        run,
        {"step": 0, "started": "2026-05-01T12:00:00+00:00"},
        {"step": 2, "started": "2026-05-01T14:00:00+00:00"},
    )
    (skipped,) = (i for i in found if i["kind"] == "skipped")
    assert skipped["when"] == "about 2026-05-01T14:00:10+00:00"


def test_incidents_that_were_written_down_are_told_in_their_words(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", steps=1)
    lines = [{"step": 7, "when": "2026-05-01T12:00:00", "kind": "crash", "rank": 3}, [1], "x"]
    text = "\n".join(map(json.dumps, lines)) + '\n{"step": 8, "ki'
    (run / "incidents.jsonl").write_text(text, encoding="utf-8")
    (found,) = (i for i in of(run) if i["kind"] == "incident")
    assert found == {
        "kind": "incident",
        "step": 7,
        "when": "2026-05-01T12:00:00",
        "text": "kind crash, rank 3",
    }


def test_files_that_are_broken_or_missing_tell_nothing(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", steps=1)
    (run / "environment.json").write_text('{"started":', encoding="utf-8")
    (run / "incidents.jsonl").write_bytes(b"\xff\xfe")
    assert of(run) == []
    (run / "environment.json").write_text("3", encoding="utf-8")
    assert of(run) == []


def test_no_more_are_listed_than_a_page_can_bear(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", steps=1)
    append(run, *(record(s, saved=f"step-{s}") for s in range(2, 2002)))
    saved = [i["step"] for i in of(run) if i["kind"] == "checkpoint"]
    assert len(saved) == MOST
    assert (saved[0], saved[-1]) == (2, 2001)


def test_text_from_elsewhere_has_no_control_characters_and_an_end() -> None:
    assert plain("\x1b[31mred\r\nline\u202e") == " [31mred  line "
    assert plain("x" * 1000) == "x" * 300 + "…"
