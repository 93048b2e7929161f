"""Runs of the real command: training, going on, stopping, ranks that die, ranks others start."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from stretto.cli import main
from stretto.cli.rundir import RunDirectory
from stretto.huggingface import read_config
from stretto.page.incidents import incidents
from stretto.page.metrics import Metrics
from stretto.plan import Plan

Write = Callable[..., str]

STEPS = 6
RUN = ("train", "tiny", "--data", "text.txt", f"steps={STEPS}", "lr=1e-2", "vocab=300",
       "valid_fraction=0.1", "numerics.dtype=float64", "batch.sequences=8", "batch.seq=32",
       "checkpoint_every=3", "evaluate_every=3")  # fmt: skip
LONG = (*RUN, "steps=1000000", "checkpoint_every=0", "evaluate_every=0")


def text() -> str:
    """Give documents of words that follow each other by chance, the same every time."""
    draw = random.Random(0)
    nouns, verbs = ("king", "river", "stone", "house", "light"), ("saw", "made", "left", "kept")
    return "\n\n\n".join(
        " ".join(
            f"The {draw.choice(nouns)} {draw.choice(verbs)} the {draw.choice(nouns)}."
            for _ in range(20)
        )
        for _ in range(60)
    )


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "100", "GLOO_SOCKET_IFNAME": "lo", **more}


def start(*words: str, home: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stretto", *words], cwd=home, env=environment(**variables),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def until(process: subprocess.Popen[str], what: str) -> None:
    """Read what a process prints until a line begins with `what`."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(what):
            return
    pytest.fail(f"{what!r} was never printed: {finish(process)}")


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [r["loss"] for r in records(run)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with some text."""
    path = tmp_path_factory.mktemp("runs")
    (path / "text.txt").write_text(text())
    return path


@pytest.fixture(scope="module")
def trained(home: Path) -> tuple[Path, str]:
    """A run over two ranks, and what it printed."""
    status, out, err = finish(start(*RUN, "--nproc", "2", "--run", "whole", home=home))
    assert (status, err) == (0, "")
    return home / "whole", out


def test_a_run_learns_and_says_how_well_beside_a_unigram_model(trained: tuple[Path, str]) -> None:
    run, out = trained
    found = records(run)
    assert [r["step"] for r in found] == list(range(1, STEPS + 1))
    assert found[-1]["loss"] < found[0]["loss"] - 0.5
    assert (
        f"held-out loss {found[-1]['valid_loss']:.3f} nats per token; a unigram model's is " in out
    )
    assert [r["step"] for r in found if "valid_loss" in r] == [3, 6]
    assert out.count("▸") == 3  # what it wrote


def test_a_run_keeps_the_name_of_its_model(trained: tuple[Path, str]) -> None:
    assert RunDirectory(trained[0]).read().model.name == "tiny"


def test_a_run_keeps_all_that_decided_it(trained: tuple[Path, str]) -> None:
    run, out = trained
    assert {p.name for p in run.iterdir() if not p.name.startswith("events.")} == {
        "plan.toml", "recipe.toml", "config.json", "tokenizer.json", "tokenizer_config.json",
        "environment.json", "metrics.jsonl", "loss.svg", "log.txt", "checkpoints", "model",
        "timeline", "cluster.toml",
    }  # fmt: skip
    assert len(list(run.glob("events.out.tfevents.*"))) == 1
    plan = Plan.from_toml((run / "plan.toml").read_text())
    assert (plan.mesh.extent("dp"), plan.batch.seq, plan.numerics.dtype) == (2, 32, "float64")
    assert read_config(run).vocab == 300
    (begun,) = json.loads((run / "environment.json").read_text())
    assert begun["command"][1:] == [*RUN, "--nproc", "2", "--run", "whole"]
    assert {"stretto", "python", "torch"} <= set(begun["versions"])
    log = (run / "log.txt").read_text()
    assert [line for line in out.splitlines() if line not in log] == [
        line for line in out.splitlines() if line.startswith(("reading", "learning", "tokenising"))
    ]


@pytest.fixture(
    scope="module",
    params=[("dp=1", "tp=2"), ("pp=2", "dp=2", "zero=3", "memory.recompute=full")],
    ids="-".join,
)
def resumed(
    trained: tuple[Path, str], home: Path, request: pytest.FixtureRequest
) -> tuple[Path, str]:
    """The run from its first checkpoint on under another plan, and what it printed."""
    run = half(trained[0], home / "-".join(request.param).replace("=", ""))
    words = ("train", "--resume", run.name, *request.param, "--trace")
    status, out, err = finish(start(*words, home=home))
    assert (status, err) == (0, "")
    return run, out


def test_a_run_that_goes_on_under_another_plan_has_the_losses_of_one_that_never_stopped(
    resumed: tuple[Path, str], trained: tuple[Path, str]
) -> None:
    run, out = resumed
    # The third step after each start was recorded, each under its own plan.
    assert f"2 recorded steps for https://ui.perfetto.dev in {run.name}/trace.json" in out
    traced = json.loads((run / "trace.json").read_text())["traceEvents"]
    drawn = {(e["name"], e["pid"]) for e in traced if e.get("cat") == "step"}
    assert {name for name, _ in drawn} == {"step 3", "step 6"}
    ranks = Plan.from_toml((run / "plan.toml").read_text()).mesh.size
    assert len(drawn) == 2 + ranks
    assert losses(run)[:3] == losses(trained[0])[:3]
    assert losses(run) == pytest.approx(losses(trained[0]), rel=1e-9)
    assert records(run)[-1]["valid_loss"] == pytest.approx(records(trained[0])[-1]["valid_loss"])
    assert "held-out loss" in out


def test_a_restart_is_marked_at_the_step_of_its_checkpoint_with_what_changed_of_the_plan(
    resumed: tuple[Path, str],
) -> None:
    run, _ = resumed
    starts = [i for i in happened(run) if i["kind"] in ("start", "restart")]
    assert [(i["kind"], i["step"]) for i in starts] == [("start", 0), ("restart", 3)]
    mesh = Plan.from_toml((run / "plan.toml").read_text()).mesh
    first, again = (i["text"] for i in starts)
    assert first.startswith("began with 2 ranks on ")
    assert again.startswith(f"went on with {mesh.size} ranks on ")
    _, changed = again.split("; plan: ")
    for axis, extent in (("dp", 2), ("tp", 1), ("pp", 1)):
        now = mesh.extent(axis)
        assert (f"mesh.{axis} {extent} → {now}" in changed) == (now != extent)
    assert "batch.seq " not in changed


def happened(run: Path) -> list[dict[str, Any]]:
    return incidents(run, Metrics(run / "metrics.jsonl").read())


def half(run: Path, to: Path) -> Path:
    """Copy a run as it was at its first checkpoint, with the metrics of all its steps."""
    shutil.copytree(run, to)
    shutil.rmtree(to / "model")
    shutil.rmtree(to / "checkpoints" / f"step-{STEPS:08}")
    return to


def test_a_damaged_checkpoint_is_passed_over_for_an_older_one_and_that_is_said(
    trained: tuple[Path, str], home: Path
) -> None:
    run = home / "damaged"
    shutil.copytree(trained[0], run)
    file = run / "checkpoints" / f"step-{STEPS:08}" / "rank-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    status, _, err = finish(start("train", "--resume", "damaged", "steps=7", home=home))
    assert status == 0
    assert f"step-{STEPS:08}: rank-00001.safetensors" in err
    assert [r["step"] for r in records(run)] == list(range(1, 8))
    assert [i["step"] for i in happened(run) if i["kind"] == "restart"] == [STEPS // 2]


def test_ctrl_c_saves_and_says_how_to_go_on_and_so_does_sigterm(home: Path) -> None:
    process = start(*LONG, "--nproc", "2", "--run", "stopped", home=home)
    until(process, "step ")
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (130, "")
    last = records(home / "stopped")[-1]
    assert last["saved"] == f"step-{last['step']:08}"
    assert f"stopped by SIGINT after saving {last['saved']}" in out
    assert "stretto train --resume stopped" in out

    process = start("train", "--resume", "stopped", "--nproc", "1", home=home)
    until(process, "step ")
    process.send_signal(signal.SIGTERM)
    status, out, _ = finish(process)
    assert status == 143
    again = records(home / "stopped")
    assert [r["step"] for r in again] == list(range(1, len(again) + 1))
    assert len(again) > last["step"]
    assert f"stopped by SIGTERM after saving {again[-1]['saved']}" in out


def test_a_rank_that_is_killed_is_named_and_the_others_end(home: Path) -> None:
    process = start(*LONG, "--nproc", "3", "batch.sequences=9", "--run", "killed", home=home)
    until(process, "step ")
    ranks = children(process.pid)
    os.kill(ranks[1], signal.SIGKILL)
    status, out, err = finish(process)
    assert status == 3
    assert "rank 1" in err
    assert "was ended by SIGKILL" in err
    assert "Traceback" not in err
    assert "was ended by SIGKILL" in (home / "killed" / "log.txt").read_text()
    assert "ended by an error before there was a checkpoint" in out
    assert not [pid for pid in ranks if Path(f"/proc/{pid}").exists()]


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_ranks_that_others_start_make_one_run_of_which_one_tells(
    trained: tuple[Path, str], home: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ranks = [
        start(*RUN, "--run", f"by-others-{rank}", home=home, **launched(rank, port))
        for rank in range(2)
    ]
    (status, out, err), other = (finish(process) for process in ranks)
    assert (status, err) == (0, "")
    assert other == (0, "", "")
    assert "held-out loss" in out
    assert losses(home / "by-others-0") == pytest.approx(losses(trained[0]), rel=1e-9)
    assert not (home / "by-others-1").exists()


def launched(rank: int, port: int) -> Mapping[str, str]:
    return {
        "RANK": f"{rank}", "WORLD_SIZE": "2", "LOCAL_RANK": f"{rank}", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}",
    }  # fmt: skip


def test_a_run_starts_from_the_weights_of_another(trained: tuple[Path, str], home: Path) -> None:
    words = ("train", "--from", "whole", "--data", "text.txt", "steps=1", "batch.seq=32", "dp=1")
    status, out, err = finish(start(*words, "lr=1e-9", "--run", "tuned", home=home))
    assert (status, err) == (0, "")
    assert f"from {Path('whole') / 'model'}" in out
    tuned, before = records(home / "tuned")[-1], records(trained[0])[-1]
    assert tuned["valid_loss"] == pytest.approx(before["valid_loss"], abs=0.05)
    assert tuned["loss"] < records(trained[0])[0]["loss"] - 0.5


# ── what is done with a run ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def written(trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> Write:
    def write(*words: str, path: Path = trained[0]) -> str:
        assert main(["generate", str(path), "--prompt", "The king", "--tokens", "40", *words]) == 0
        return capsys.readouterr().out

    return write


def test_the_same_seed_writes_the_same_and_another_one_does_not(written: Write) -> None:
    one = written("--seed", "1", "--temperature", "1")
    assert one.startswith("The king")
    assert one == written("--seed", "1", "--temperature", "1")
    assert one != written("--seed", "2", "--temperature", "1")


def test_the_model_of_a_checkpoint_writes_what_the_exported_one_does(
    written: Write, trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    shutil.rmtree(run / "model")
    assert main(["export", str(run), str(tmp_path / "out"), "--dtype", "float32"]) == 0
    capsys.readouterr()
    wanted = written("--temperature", "0")
    assert written("--temperature", "0", path=run) == wanted
    assert written("--temperature", "0", path=tmp_path / "out") == wanted


def test_what_is_wrong_with_going_on_is_told_together(
    trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = ("gpt2", "seed=1", "batch.seq=16", "--from", "x", "--run", "y", "vocab=300", "steps=3")
    status = main(["train", "--resume", str(trained[0]), *words])
    err = capsys.readouterr().err
    assert status == 2
    for part in (
        "seed was 0, is 1", "batch.seq was 32, is 16", "--from", "--run", "vocab",
        "model.embed is 32 in the checkpoint, but 768 here", f"has done {STEPS} of its 3",
    ):  # fmt: skip
        assert part in " ".join(err.split()), part
