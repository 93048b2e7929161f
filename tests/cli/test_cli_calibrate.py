"""``stretto calibrate`` on real runs of one rank and of two: then foretold is what was measured.

The fit and the measure are of the same recordings, so that a loaded machine does not matter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stretto.cli import main
from stretto.cli.foretold import cluster_of_run, foretold
from stretto.cli.rundir import RunDirectory
from stretto.cluster import load

TRAIN = ("train", "tiny", "steps=24", "record_every=2", "vocab=300", "valid_fraction=0.1",
         "checkpoint_every=0", "evaluate_every=0", "batch.sequences=8", "batch.seq=32",
         "--data", "text.txt")  # fmt: skip
PLANS = {
    "one": ("--nproc", "1"),
    "data": ("--nproc", "2", "dp=2", "zero=1"),
    "shards": ("--nproc", "2", "dp=2", "zero=3"),
    "tensor": ("--nproc", "2", "tp=2"),
    "stages": ("--nproc", "2", "pp=2", "batch.micro_batch=2"),
}
WITHIN = 0.05


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with some text."""
    path = tmp_path_factory.mktemp("home")
    lines = "\n\n\n".join(f"The king of {i} saw the river {i * i}. " * 12 for i in range(80))
    (path / "text.txt").write_text(lines)
    return path


def trained(home: Path, name: str, *words: str) -> Path:
    """Give a run of the real command."""
    run = home / name
    if not run.exists():
        command = [sys.executable, "-m", "stretto", *TRAIN, *words, "--run", str(run)]
        env = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
        subprocess.run(command, check=True, cwd=home, env=env, capture_output=True)
    return run


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["calibrate", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["calibrate", *words]) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", PLANS)
def test_after_calibrating_a_run_its_step_is_foretold_within_5_percent(
    name: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(home, name, *PLANS[name])
    found = told(capsys, str(run), "--write")
    (step,) = found["steps"]
    assert step["after_s"] == pytest.approx(step["measured_s"], rel=WITHIN)
    assert step["count"] >= 8
    assert (run / "cluster.toml").read_text() == found["toml"]
    there = RunDirectory(run)
    start = there.read()
    again = foretold(start, cluster_of_run(there, start.plan)).timeline.step_s
    assert again == pytest.approx(step["measured_s"], rel=WITHIN)


def test_a_run_says_what_was_predicted_beside_what_it_measured(home: Path) -> None:
    run = trained(home, "one", *PLANS["one"])
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (predicted_s,) = {record["predicted_s"] for record in records}
    log = (run / "log.txt").read_text()
    assert f"foretold {predicted_s * 1e3:.2f} ms a step" in log
    assert f", predicted {predicted_s * 1e3:.2f} ms" in log


def test_a_run_on_a_named_cluster_keeps_it_and_is_predicted_by_it(home: Path) -> None:
    file = home / "slow.toml"
    run = trained(home, "one", *PLANS["one"])
    fast = load(run / "cluster.toml")
    slow = (run / "cluster.toml").read_text()
    file.write_text(slow.replace("name = ", 'name = "slow"  # ', 1).replace("GFLOP/s", "MFLOP/s"))
    other = trained(home, "slow", *PLANS["one"], "--cluster", "slow.toml", "steps=3")
    assert load(other / "cluster.toml").name == "slow"
    records = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    start = RunDirectory(other).read()
    told = foretold(start, load(file)).timeline.step_s
    assert records[0]["predicted_s"] == pytest.approx(told, rel=1e-6)
    assert told > 1.1 * foretold(start, fast).timeline.step_s


def test_what_changed_is_printed_and_no_file_is_replaced_unless_that_is_said(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(home, "data", *PLANS["data"])
    kept = (run / "cluster.toml").read_text()
    assert main(["calibrate", str(run), "--cluster", "cpu"]) == 0
    text = capsys.readouterr().out
    assert (run / "cluster.toml").read_text() == kept
    assert "predicted before" in text and "told by" in text
    assert "forward feed_forward[norm·transform·add]" in text
    assert f"nothing was written: --write replaces {run / 'cluster.toml'}" in text
    out = home / "fitted.toml"
    assert main(["calibrate", str(run), "--out", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    assert load(out).devices == 2
    assert "exists already → say --write to replace it" in complaint(
        capsys, str(run), "--out", str(out)
    )
    assert main(["calibrate", str(run), "--out", str(out), "--write"]) == 0


def test_two_runs_are_fitted_together(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(trained(home, name, *PLANS[name])) for name in ("data", "tensor")]
    found = told(capsys, *runs)
    for step in found["steps"]:
        assert step["after_s"] == pytest.approx(step["measured_s"], rel=WITHIN)


def test_all_that_is_wrong_is_said_at_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, str(home), "steps=3", "--cluster", "nowhere", "--out", "no/file")
    for part in (
        "is no run: it has no recipe.toml",
        "there are no keys here",
        "there is no directory no",
    ):
        assert part in said
    assert "RUN is missing" in complaint(capsys)


def test_a_run_that_is_named_twice_counts_once(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(home, "one", *PLANS["one"])
    once, twice = told(capsys, str(run)), told(capsys, str(run), f"{run}/../one")
    assert len(twice["steps"]) == 1
    assert twice["constants"] == once["constants"]


def test_steps_that_are_far_apart_are_calibrated_with_a_warning(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(home, "one", *PLANS["one"])
    monkeypatch.setattr("stretto.cli.calibrate.RESTLESS", -1.0)
    out = home / "restless.toml"
    assert main(["calibrate", str(run), "--out", str(out), "--write"]) == 0
    assert "let the machine rest" in capsys.readouterr().err
    assert out.exists()


def test_a_run_that_is_none_is_told_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "nosuch")
    assert said.count("→") == 1 and "nosuch is no run" in said


def test_a_run_without_recordings_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(home, "unrecorded", *PLANS["one"], "record_every=0", "steps=2")
    assert "has no recorded steps → train on, for 3 steps or more" in complaint(capsys, str(run))


def test_runs_of_one_and_of_two_ranks_are_calibrated_apart(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(trained(home, name, *PLANS[name])) for name in ("one", "data")]
    assert "calibrate them apart" in complaint(capsys, *runs)


def test_a_cluster_that_is_none_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(home, "one", *PLANS["one"])
    assert "there is none called 'nowhere'" in complaint(capsys, str(run), "--cluster", "nowhere")
