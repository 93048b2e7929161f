"""``stretto report`` and ``stretto ui`` on the command line."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stretto.cli import main
from stretto.cli.keys import Settings
from stretto.cli.rundir import RunDirectory, Start
from stretto.plan import Batch, Plan
from stretto.presets import preset
from stretto.recipe import Recipe

PLAN = Plan.of(dp=2, batch=Batch(sequences=8, micro_batch=2, seq=64))
RECORD = '{"step": %d, "steps": 3, "loss": 5.0, "step_s": 0.02, "tokens": 512}\n'


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "mine"
    start = Start(preset("tiny"), PLAN, Recipe(steps=3), Settings(), (tmp_path,))
    RunDirectory(path).write(start, command=["stretto", "train"])
    (path / "metrics.jsonl").write_text("".join(RECORD % s for s in (1, 2, 3)))
    return path


# ── report ───────────────────────────────────────────────────────────────────────────────────────


def test_the_page_of_a_run_is_in_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    said = capsys.readouterr()
    assert re.match(r"Predicted .* a step, measured 20\.0 ms \([+−].* %\)", said.out)
    assert said.out.splitlines()[-1] == f"the page is in {run / 'report.html'}"
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    assert len(said.err.splitlines()) <= 3 and "drawing the page" in said.err


def test_the_page_of_a_plan_is_called_what_the_plan_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(PLAN.to_toml(), encoding="utf-8")
    assert main(["report", "mine.toml", "tiny", "--cluster", "h100x2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "the page is in mine.html"
    assert Path("mine.html").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tiny", "dp=4", "--cluster", "h100x2"], "mesh"),
        (["tiny", "--cluster", "nothing"], "there is none called 'nothing'"),
        (["tiny", "--stack", "nothing"], "there is none called 'nothing'"),
        (["{run}", "elsewhere"], "elsewhere"),
        (["{run}", "--stack", "modern"], "a run has its own"),
        (["tiny", "--out", "nowhere/page.html"], "nowhere/page.html"),
    ],
)
def test_what_cannot_be_shown_says_why(
    run: Path,
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(run.parent)
    assert main(["report", *(word.format(run=run) for word in words)]) == 2
    assert said in capsys.readouterr().err


def test_a_run_that_there_is_not_is_told_with_those_that_there_are(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parent.parent)
    for words, said in (
        (["show", "runs"], "runs is a directory of runs: mine"),
        (["report", "runs/zz"], "there is no run runs/zz; there is mine"),
    ):
        assert main(words) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert f"{said} → name one of them: runs/mine" in told


def test_a_directory_of_runs_is_the_one_that_wrote_last_with_the_others_beside_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = run.parent
    for name, at in (("mine", 3000), ("newest", 5000), ("oldest", 1000)):
        if name != run.name:
            shutil.copytree(run, runs / name)
        for path in (runs / name).iterdir():
            os.utime(path, (at, at))
    (runs / "data").mkdir()  # tokens, which are no run
    assert main(["report", str(runs)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"the page is in {runs / 'report.html'}"
    page = (runs / "report.html").read_text()
    found = re.search(r"<title>(.*?)</title>", page)
    assert found is not None and "newest" in found[1]
    assert '"mine"' in page and '"oldest"' in page
    assert not (runs / "newest" / "report.html").exists()


def test_a_run_is_not_drawn_beside_itself(run: Path) -> None:
    assert main(["report", str(run), str(run.parent)]) == 0
    twice = (run / "report.html").read_text()
    assert main(["report", str(run)]) == 0
    alone = (run / "report.html").read_text()
    assert twice.count('"mine"') == alone.count('"mine"')


def test_keys_do_not_change_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "zero=1"]) == 2
    assert "zero  a run has a plan of its own" in capsys.readouterr().err
    assert not (run / "report.html").exists()


def test_an_empty_directory_is_said_to_be_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "is an empty directory" in capsys.readouterr().err


def test_a_runs_own_model_is_not_replaced(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(run), "gpt2"]) == 2
    assert "the run has a model of its own" in capsys.readouterr().err


def test_a_recording_that_cannot_be_read_is_left_out_and_told(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from stretto.timeline.track import files

    for step in ("step-00000002", "step-00000003"):
        place = run / "timeline" / step
        place.mkdir(parents=True)
        (place / "plan.toml").write_text(PLAN.to_toml())
        for rank in (0, 1):
            (place / f"rank-{rank:05}.safetensors").write_bytes(b"spoilt")
    assert main(["report", str(run)]) == 0
    err = capsys.readouterr().err
    assert err.count("left out") >= len(files(run, 2)) == 2


@pytest.mark.parametrize("verb", ["report", "simulate"])
def test_a_plan_too_large_for_this_machine_asks_for_a_cluster(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "llama-3-70b"]) == 2
    err = capsys.readouterr().err
    assert "--cluster" in err and "and this machine has" in err and "a device has" not in err


def test_all_that_is_wrong_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "tinny", "--cluster", "nothing", "--stack", "none"]) == 2
    assert "3 things are wrong" in capsys.readouterr().err


# ── ui ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def served(run: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server as people start it, and where it says that it is."""
    command = [sys.executable, "-m", "stretto", "ui", str(run.parent), "--no-open"]
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield process, line.split()[-1]
        process.kill()


@pytest.mark.parametrize("ended", [signal.SIGINT, signal.SIGTERM])
def test_a_server_says_where_it_is_and_ends_when_told(
    ended: signal.Signals, served: tuple[subprocess.Popen[str], str]
) -> None:
    process, url = served
    match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", url)
    assert match is not None
    connection = http.client.HTTPConnection("127.0.0.1", int(match.group(1)))
    connection.request("GET", "/")
    assert b"mine" in connection.getresponse().read()
    connection.close()
    process.send_signal(ended)
    assert process.wait(timeout=60) == 0


def test_a_server_ends_while_a_page_is_made_in_another_language(run: Path) -> None:
    script = """
import sys
import numpy as np
from safetensors.numpy import load, save
from stretto.cli import ui

def prepare(shelf):
    print("in Rust", file=sys.stderr, flush=True)
    while True:
        load(save({"array": np.zeros(300_000)}))

ui._prepare = prepare
sys.exit(ui.run([sys.argv[1], "--no-open"]))
"""
    command = [sys.executable, "-c", script, str(run.parent)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stderr.readline() == "in Rust\n"
        assert process.stdout.readline().startswith("serving ")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == "Ctrl-C ends it\n" and process.stderr.read() == "\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "is no directory"),
        (["--port", "70000"], "write a number from 0 to 65535"),
        (["--port", "x"], "write a number from 0 to 65535"),
        (["dp=2"], "this command has no keys"),
    ],
)
def test_what_cannot_be_served_says_why(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ui", *words]) == 2
    assert said in capsys.readouterr().err


def test_help_of_both_comes_without_what_is_heavy() -> None:
    script = (
        "import sys\nfrom stretto.cli import main\n"
        "for command in ('report', 'ui'):\n"
        "    try: main([command, '--help'])\n"
        "    except SystemExit: pass\n"
        "print(*{'torch', 'scipy', 'stretto.page.server'} & set(sys.modules))"
    )
    said = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert said.splitlines()[-1] == ""
