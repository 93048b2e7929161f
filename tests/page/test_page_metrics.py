"""Metrics as columns, however they are written and read."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stretto.page import metrics as module
from stretto.page.metrics import Metrics

VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.integers(-(2**40), 2**40),
    st.booleans(),
    st.none(),
    st.text(max_size=3).filter(lambda t: not _number(t)),
)
RECORDS = st.lists(st.dictionaries(st.sampled_from("abcd"), VALUES), min_size=1, max_size=40).map(
    lambda found: [{"step": i + 1} | r for i, r in enumerate(found)]
)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def lines(records: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(r) + "\n" for r in records).encode()


def numbers(records: list[dict[str, object]], name: str) -> list[float]:
    """What a column must hold."""
    found = [r.get(name) for r in records]
    return [float(v) if isinstance(v, int | float) else math.nan for v in found]


@given(RECORDS, st.lists(st.integers(0, 4000), max_size=6), st.integers(1, 300))
def test_columns_are_what_was_written_wherever_reading_and_writing_paused(
    records: list[dict[str, object]], pauses: list[int], chunk: int
) -> None:
    # A column of words in one piece and numbers in another is not asked for.
    for name in "abcd":
        if any(isinstance(r.get(name), str) for r in records):
            records = [{k: v for k, v in r.items() if k != name} for r in records]
    text = lines(records)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "metrics.jsonl"
        metrics, usual = Metrics(path), module.CHUNK_BYTES
        module.CHUNK_BYTES = chunk
        try:
            for stop in sorted({min(p, len(text)) for p in pauses} | {len(text)}):
                path.write_bytes(text[:stop])
                table = metrics.read()
        finally:
            module.CHUNK_BYTES = usual
    assert table.rows == len(records)
    assert table.last == records[-1]
    assert table.share == 1.0
    for name in ("step", *"abcd"):
        np.testing.assert_array_equal(table[name], numbers(records, name))


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 5.0}\n{"step": 2, "lo\n{"step": 3, "loss": 3.0}\n{"st')
    table = Metrics(path).read()
    assert table["step"].tolist() == [1, 3]
    assert table["loss"].tolist() == [5, 3]


def test_a_run_that_goes_on_from_a_checkpoint_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path)
    path.write_bytes(lines([{"step": s, "loss": 1.0} for s in range(1, 101)]))
    assert metrics.read().rows == 100
    # The steps after 50 are done again, and by now there are as many bytes, or more, as before.
    again = [{"step": s, "loss": 1.0 if s <= 50 else 2.0} for s in range(1, 121)]
    path.write_bytes(lines(again))
    table = metrics.read()
    assert table["step"].tolist() == list(range(1, 121))
    assert table["loss"].tolist() == [1.0] * 50 + [2.0] * 70


def test_a_run_without_metrics_has_no_rows_until_it_has(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path)
    assert metrics.read().rows == 0
    path.write_bytes(lines([{"step": 1}]))
    assert metrics.read().rows == 1
    path.unlink()
    assert metrics.read().rows == 0


def test_lines_that_are_no_records_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('[1]\n"x"\nnull\n{"loss": 1}\n{"step": true}\n{"step": "1"}\n\n{"step": 4}\n')
    assert Metrics(path).read()["step"].tolist() == [4]


def test_a_table_does_not_change_when_more_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path)
    path.write_bytes(lines([{"step": 1, "loss": 1.0}]))
    before = metrics.read()
    with path.open("ab") as file:
        file.write(lines([{"step": 2, "loss": 2.0, "saved": "step-00000002"}]))
    after = metrics.read()
    assert (before.rows, before["loss"].tolist()) == (1, [1.0])
    assert (after.rows, after.saved) == (2, ((2, "step-00000002"),))


def test_reading_stops_when_there_is_no_time_and_goes_on_later(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines([{"step": s, "what": "x" * 1000} for s in range(1, 3001)]))
    metrics = Metrics(path)
    begun = metrics.read(within_s=0.0)
    assert 0 < begun.rows < 3000 and 0 < begun.share < 1
    assert metrics.read().rows == 3000
