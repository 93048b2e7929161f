"""Whether a run goes on is seen by its process where that is possible."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import a_run, silent

from stretto.cluster import local
from stretto.page.standing import begun, starts, state


def started(run: Path, *, host: str, known: object) -> Path:
    """Give a run that was begun by a process on a machine, a minute ago."""
    start = {"machine": {"name": host}, "process": known, "step": 0}
    (run / "environment.json").write_text(json.dumps([start]), encoding="utf-8")
    return silent(run, since=time.time() - 60)


def told(run: Path) -> str:
    return state(run, step=5, steps=9, step_s=0.1)


SCRIPT = """
import json, sys
from stretto.page.standing import process
print(json.dumps(process()), flush=True)
sys.stdin.read()
"""


def test_a_silent_run_goes_on_while_its_process_does_and_stops_with_it(tmp_path: Path) -> None:
    run, host = a_run(tmp_path / "run", steps=5, planned=9), local().name
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        known = json.loads(process.stdout.readline())
        started(run, host=host, known=known)
        assert told(run) == "running"
        silent(run)  # for years
        assert told(run) == "running"
        started(run, host=host, known=known | {"ticks": known["ticks"] - 1})
        assert told(run) == "stopped"  # another has the number now
        process.kill()
    started(run, host=host, known=known)
    assert told(run) == "stopped"


def test_a_run_on_another_machine_is_taken_to_go_on_until_it_is_silent_for_long(
    tmp_path: Path,
) -> None:
    run = a_run(tmp_path / "run", steps=5, planned=9)
    started(run, host="another", known={"pid": 1, "ticks": 1})
    assert told(run) == "running"
    silent(run, since=time.time() - 200)  # longer than two minutes
    assert told(run) == "stopped"
    assert state(run, step=5, steps=9, step_s=60.0) == "running"  # of which a step takes one


@pytest.mark.parametrize("text", ["", "{", "3", "[3]", '[{"step": "x"}]'])
def test_a_start_that_cannot_be_read_is_one_from_the_beginning(tmp_path: Path, text: str) -> None:
    (tmp_path / "environment.json").write_text(text, encoding="utf-8")
    assert begun(tmp_path) == 0
    assert all(isinstance(start, dict) for start in starts(tmp_path))
