"""What a run tells of itself: lines, JSON, TensorBoard."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stretto.report.metrics import SCALARS, Board, JsonLines, as_json, read
from stretto.report.progress import Lines, LiveLine, progress
from stretto.report.words import bar, cells, events, fitted, line
from stretto.runtime.train import Record

RECORD = Record(
    step=7, steps=40, loss=3.25, norm=0.5, lr=1e-3, tokens=7000, tokens_per_s=12_345.6, mfu=0.412,
    memory_bytes=512 * 2**20, data_wait=0.001, overhead=0.01, step_s=0.5, eta_s=16.5,
)  # fmt: skip


def records(*steps: int) -> Iterator[Record]:
    yield from (replace(RECORD, step=step) for step in steps)


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_has_all_that_a_person_looks_for() -> None:
    assert line(RECORD, 3.5) == (
        "step  7/40  loss 3.250  held-out 3.500  12.3 k tok/s  ETA 16.5 s  MFU 41%  "
        "memory 512.00 MiB  data wait 0.1%  lr 1.00e-03  gradient norm 0.5"
    )


def test_a_held_out_loss_that_is_not_known_is_left_out() -> None:
    assert "held-out" not in line(RECORD, None)


def test_the_last_step_has_no_time_left() -> None:
    assert "done" in cells(replace(RECORD, step=40), None)


def test_parts_are_left_out_from_the_end_so_that_a_line_fits() -> None:
    parts = ("abc", "de", "f")
    assert [fitted(parts, width) for width in (2, 3, 6, 7, 9, 10)] == [
        "", "abc", "abc", "abc  de", "abc  de", "abc  de  f",
    ]  # fmt: skip


def test_a_bar_is_as_full_as_the_run() -> None:
    assert [bar(share, 4) for share in (-1.0, 0.0, 0.5, 0.99, 1.0, 2.0)] == [
        "────", "────", "━━──", "━━━─", "━━━━", "━━━━",
    ]  # fmt: skip


def test_a_skipped_step_and_a_checkpoint_are_events() -> None:
    assert events(RECORD) == ()
    (skipped,) = events(replace(RECORD, loss=math.nan, applied=False))
    assert skipped.startswith("step 7: loss nan")
    assert "skipped" in skipped
    assert events(replace(RECORD, saved=Path("a/step-00000007"))) == (
        "step 7: saved step-00000007",
    )


# ── lines and the live line ──────────────────────────────────────────────────────────────────────


def test_lines_come_at_the_first_step_and_then_not_before_their_time() -> None:
    now = [0.0]
    said: list[str] = []
    lines = Lines(said.append, every_s=10, clock=lambda: now[0])
    for step, second in enumerate((0, 1, 9, 10, 11, 19.9, 20), start=1):
        now[0] = second
        lines(replace(RECORD, step=step))
    assert [text[:7] for text in said] == ["step  1", "step  4", "step  7"]


def test_an_evaluation_an_event_and_the_last_step_are_told_at_once() -> None:
    told: list[str] = []
    lines = Lines(told.append, every_s=10, clock=lambda: 0.0)
    for record in (
        RECORD,
        replace(RECORD, step=8),
        replace(RECORD, step=9, valid_loss=3.0),
        replace(RECORD, step=10, saved=Path("step-00000010")),
        replace(RECORD, step=40),
    ):
        lines(record)
    said = "\n".join(told).splitlines()
    assert [text.split("  loss")[0] for text in said] == [
        "step  7/40", "step  9/40", "step 10: saved step-00000010", "step 40/40",
    ]  # fmt: skip
    assert "held-out 3.000" in said[-1]


def test_the_live_line_is_overwritten_until_something_is_to_stay() -> None:
    stream = io.StringIO()
    live = LiveLine(stream, width=100)
    live(RECORD)
    live(replace(RECORD, step=8, valid_loss=3.0))
    live(replace(RECORD, step=9))
    text = stream.getvalue()
    parts = text.replace("\n", "\r").split("\r")
    assert [part[:7] for part in parts] == ["step  7", "step  8", "step  9", ""]
    assert text.count("\n") == 1
    assert text.endswith("\r")


@pytest.mark.parametrize("width", [1, 10, 20, 40, 60, 80, 100, 120, 200])
def test_the_live_line_never_wraps(width: int) -> None:
    stream = io.StringIO()
    live = LiveLine(stream, width=width)
    live(replace(RECORD, valid_loss=3.0, saved=Path("step-00000007")))
    live(RECORD)
    for text in stream.getvalue().replace("\r", "\n").split("\n"):
        assert len(text) <= max(1, width - 1)


def test_the_live_line_has_colour_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def coloured() -> bool:
        stream = io.StringIO()
        LiveLine(stream, width=140)(RECORD)
        return "\x1b[36m" in stream.getvalue()

    assert coloured()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured()


def test_where_there_is_no_terminal_there_are_lines() -> None:
    assert isinstance(progress(io.StringIO()), Lines)


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────


def test_every_record_is_a_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write = JsonLines(path)
    for record in records(1, 2, 3):
        write(record)
    found = [json.loads(text) for text in path.read_text().splitlines()]
    assert [r["step"] for r in found] == [1, 2, 3]
    assert found[0]["loss"] == 3.25
    assert "valid_loss" not in found[0]


def test_steps_that_are_done_again_replace_those_before(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write = JsonLines(path)
    for record in records(1, 2, 3, 4):
        write(record)
    with path.open("a") as file:
        file.write('{"step": 5, "lo')  # a crash
    write = JsonLines(path)
    for record in records(3, 4, 5):
        write(replace(record, loss=1.0))
    assert [(r["step"], r["loss"]) for r in read(path)] == [
        (1, 3.25), (2, 3.25), (3, 1.0), (4, 1.0), (5, 1.0),
    ]  # fmt: skip


def test_what_is_not_finite_is_null_in_json() -> None:
    found = as_json(replace(RECORD, loss=math.nan, norm=math.inf, saved=Path("a/step-00000007")))
    assert (found["loss"], found["norm"], found["saved"]) == (None, None, "step-00000007")
    json.dumps(found, allow_nan=False)


def test_no_file_has_no_records(tmp_path: Path) -> None:
    assert read(tmp_path / "none.jsonl") == []


def test_tensorboard_gets_every_scalar_of_every_step(tmp_path: Path) -> None:
    with Board(tmp_path) as board:
        for record in records(1, 2):
            board(replace(record, valid_loss=3.0, predicted_s=0.4))
    (file,) = tmp_path.glob("events.out.tfevents.*")
    payload = b"".join(frames(file.read_bytes()))
    for tag in SCALARS.values():
        assert payload.count(tag.encode()) == 2


def frames(data: bytes) -> Iterator[bytes]:
    """Give the records of a TFRecord file: length, its checksum, bytes, their checksum."""
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield data[12 : 12 + length]
        data = data[16 + length :]
