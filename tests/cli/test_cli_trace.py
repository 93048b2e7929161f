"""``stretto trace``: recorded steps in words and for Perfetto."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.simulate.toy import model, plan
from tests.timeline.seconds import at, listed, track

from stretto.cli import main
from stretto.cli.keys import Settings
from stretto.cli.rundir import RunDirectory, Start
from stretto.cli.trace import written
from stretto.program.instruction import Compute, Vote
from stretto.program.lower import lower
from stretto.recipe import Recipe
from stretto.timeline.recorded import write
from stretto.timeline.track import spans

MODEL = replace(model(layers=1), name="toy")
PLAN = plan(dp=2, micro_batches=1)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run of two ranks, of which the steps 3 and 50 were recorded."""
    home = RunDirectory(tmp_path / "run")
    home.write(Start(MODEL, PLAN, Recipe(), Settings(), (tmp_path,)), command=["stretto"])
    program = lower(MODEL, PLAN)
    (stage,) = program.stages
    told = {at(stage, Compute): (0.0, 1.5), at(stage, Vote): (1.5, 2.0)}
    for step in (3, 50):
        for rank in range(2):
            rows = listed(stage, told)
            write(home.path, track(rows, rank=rank, step=step, world=2, plan=PLAN.to_toml()))
    return home


def events(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return found


def test_the_newest_step_is_told_in_words_and_all_are_drawn(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", str(run.path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("step 50, as it was recorded:\nstep 2.00 s, 2 ranks\n")
    assert "rank 0  busy 75.0%  bubble 0.0%  exposed vote 25.0%" in out
    assert out.endswith(f"2 recorded steps for https://ui.perfetto.dev in {run.trace}\n")
    steps = Counter((e["name"], e["pid"]) for e in events(run.trace) if e.get("cat") == "step")
    assert steps == {(f"step {n}", rank): 1 for n in (3, 50) for rank in (0, 1)}


def test_one_step_can_be_drawn_below_what_was_foretold(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "three.json"
    words = ["--step", "3", "--predicted", "--ranks", "1", "--out", str(out)]
    assert main(["trace", str(run.path), *words]) == 0
    assert f"step 3 for https://ui.perfetto.dev in {out}" in capsys.readouterr().out
    names = {e["args"]["name"] for e in events(out) if e["name"] == "process_name"}
    assert names == {"measured rank 1", "predicted rank 0 (2 alike)"}
    pieces = {
        what: {
            e["name"]
            for e in events(out)
            if e["ph"] == "X" and e["cat"] == "device" and (e["pid"] == 1) is (what == "measured")
        }
        for what in ("measured", "predicted")
    }
    assert pieces["measured"] == pieces["predicted"]


def test_what_cannot_be_drawn_is_said(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", str(run.path), "--step", "7"]) == 2
    assert "step 7 was not recorded" in capsys.readouterr().err
    assert main(["trace", str(run.path), "--ranks", "5"]) == 2
    assert "no recording by rank 5" in capsys.readouterr().err
    assert main(["trace", str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err
    assert main(["trace", str(run.path), "--out", str(tmp_path / "no" / "such" / "place")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["trace", str(run.path), "steps=3"]) == 2
    assert "there are no keys here" in capsys.readouterr().err
    assert main(["trace", str(run.path), "--ranks", "x"]) == 2
    assert "write ranks, as 0,3,8-15" in capsys.readouterr().err


def test_a_run_of_which_nothing_was_recorded_says_how_that_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = RunDirectory(tmp_path / "run")
    start = Start(MODEL, PLAN, Recipe(), Settings(), (tmp_path,))
    home.write(start, command=["stretto"])
    assert main(["trace", str(home.path)]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "no step was recorded: the third is the first, then every record_every-th" in err
    assert written(home, start, home.trace) == "no step was recorded, so there is no trace"
    assert not home.trace.exists()


def test_a_rank_that_is_shown_alone_has_waited_for_the_others(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = lower(MODEL, PLAN)
    (stage,) = program.stages
    for rank, busy_s in enumerate((0.5, 1.5)):
        told = {at(stage, Compute): (0.0, busy_s), at(stage, Vote): (busy_s, 2.0)}
        seen = track(listed(stage, told), rank=rank, step=100, world=2, plan=PLAN.to_toml())
        write(run.path, seen)
    out = tmp_path / "one.json"
    pages = []
    for words in ("", "--ranks 0", "--ranks 0,1", "--ranks 0-1", "--ranks 0 1"):
        asked = ["--step", "100", "--out", str(out), *words.split()]
        assert main(["trace", str(run.path), *asked]) == 0
        pages.append(capsys.readouterr().out)
    assert len({*pages[2:], pages[0]}) == 1
    mine = [line for line in pages[0].splitlines() if line.startswith("rank 0 ")]
    assert "bubble 50.0%" in mine[0] and mine[0] in pages[1]
    assert "\nrank 1 " not in pages[1]
    assert pages[1].split("critical path")[1] == pages[0].split("critical path")[1]


def test_all_recorded_steps_are_offered_those_at_even_distances_together() -> None:
    assert spans((3, 50, 100, 150, 200, 400, 401)) == "3, 50 to 200 by 50, 400, 401"
    assert (spans(()), spans((7,)), spans((1, 2, 3, 4))) == ("", "7", "1 to 4")
