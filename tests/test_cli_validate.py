"""``stretto validate``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fidelity.cases import changed

from stretto.cli import main

Stretto = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stretto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Stretto:
    """Run it beside a file of three good rows and two bad ones; status, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    rows: list[Any] = [
        changed(id="a-1", peak_mem_gb=20),
        changed(id="a-2", tp=4, dp=4, config_key="c2", step_time_s=1.4, dp_sharding=None),
        changed(id="b-1", source_key="b", status="OOM", hidden=16384, ffn=65536),
        changed(id="b-2", layers=None),
        changed(id="b-3", hardware="abacus"),
    ]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def run(*words: str) -> tuple[int, str, str]:
        status = main(("validate", *words))
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_every_row_is_printed_with_what_it_assumes_then_sources_and_all(stretto: Stretto) -> None:
    status, out, err = stretto("rows.jsonl")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["a-1", "a-2", "assumed:", "b-1"]
    assert "    assumed: dp_sharding = zero1" in lines
    assert lines[1].split()[2] == "8,192" and lines[1].split()[-2:] == ["ok", "yes"]
    assert lines[4].split()[-2:] == ["OOM", "no"]
    assert any(line.startswith("a ") and line.split()[1] == "2" for line in lines)
    assert "throughput   2 rows: median error" in out
    assert "peak memory  1 row: median error" in out
    assert "out of it    1 of 1 found; 0 of 2 that ran are predicted not to" in out
    assert "1 groups that differ only in plan" in out


def test_no_line_is_wider_than_100(stretto: Stretto) -> None:
    long = changed(
        id="a-row-of-a-table-with-a-name-that-is-long", year=None, precision=None, vocab=None,
        tied_embeddings=None, recompute=None, dp_sharding=None, tp=None, pp=None, dp=None, cp=None,
    )  # fmt: skip
    Path("long.jsonl").write_text(json.dumps(long))
    _, out, _ = stretto("long.jsonl")
    assert max(map(len, out.splitlines())) <= 100
    assert out.count("assumed:") == 1 and "\n      " in out  # what is assumed goes on indented
    assert long["id"] in out.splitlines()


def test_rows_that_cannot_be_used_are_listed_with_the_reason_and_the_rest_is_validated(
    stretto: Stretto,
) -> None:
    status, out, _ = stretto("rows.jsonl")
    assert status == 0
    assert "2 things are wrong with rows that were left out:" in out
    assert "rows.jsonl:4: layers" in out and "is None" in out
    assert "rows.jsonl:5: hardware" in out and "'abacus' is no accelerator" in out


def test_json_is_one_object_with_rows_sources_summary_and_what_was_rejected(
    stretto: Stretto,
) -> None:
    status, out, err = stretto("rows.jsonl", "--json")
    assert (status, err) == (0, "")
    made = json.loads(out)
    assert list(made) == ["rows", "sources", "summary", "rejected"]
    assert [r["id"] for r in made["rows"]] == ["a-1", "a-2", "b-1"]
    first, _, oom = made["rows"]
    assert first["error"] == pytest.approx(first["predicted"] / first["measured"] - 1)
    assert first["peak_bytes_measured"] == 20e9
    assert (oom["status"], oom["measured"], oom["error"], oom["fits"]) == ("OOM", None, None, False)
    assert list(made["sources"]) == ["a", "b"]
    assert {"n", "bias", "median", "p90", "peak", "fitting", "ranking"} <= set(made["summary"])
    assert (made["summary"]["n"], made["summary"]["rejected"]) == (2, 2)


def test_one_source_alone(stretto: Stretto) -> None:
    _, out, _ = stretto("rows.jsonl", "--source", "b", "--json")
    made = json.loads(out)
    assert ([r["id"] for r in made["rows"]], list(made["sources"])) == (["b-1"], ["b"])


def test_the_worst_rows_come_first_and_the_rest_still_counts(stretto: Stretto) -> None:
    _, out, _ = stretto("rows.jsonl", "--worst", "1")
    _, whole, _ = stretto("rows.jsonl", "--json")
    worst = max(json.loads(whole)["rows"], key=lambda r: abs(r["error"] or 0))
    rows = [line.split()[0] for line in out.splitlines() if line.startswith(("a-", "b-"))]
    assert rows == [worst["id"]]
    assert "throughput   2 rows" in out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), ("ROWS", "takes one file, not 0")),
        (("rows.jsonl", "more.jsonl"), ("takes one file, not 2",)),
        (("none.jsonl",), ("none.jsonl", "cannot be read: No such file or directory")),
        ((".",), ("cannot be read: Is a directory",)),
        (("rows.jsonl", "--worst", "0"), ("--worst", "is 0, below 1")),
        (("rows.jsonl", "--worst", "few"), ("invalid int value: 'few'",)),
        (("rows.jsonl", "--source", "c"), ("--source c", "choose from a, b")),
        (("rows.jsonl", "--jsn"), ("did you mean --json?",)),
        (("rows.jsonl", "seed=1"), ("seed=1", "is no key of this command")),
    ],
)
def test_what_cannot_be_is_told(
    stretto: Stretto, words: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    status, out, err = stretto(*words)
    assert (status, out) == (2, "")
    assert [part for part in wanted if part not in err] == [], err


def test_a_file_of_which_no_row_can_be_used_is_told_with_all_reasons(stretto: Stretto) -> None:
    Path("bad.jsonl").write_text('{}\n{"layers": 1\n')
    status, out, err = stretto("bad.jsonl")
    assert (status, out) == (2, "")
    assert err.startswith("stretto: 6 things are wrong")
    assert "bad.jsonl:1: hardware" in err and "bad.jsonl:2" in err
