"""The command as a whole: help, what is wrong, and commands that need no ranks."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stretto.cli import COMMANDS, main
from stretto.cli.say import complain, table
from stretto.errors import InputError, Problem
from stretto.huggingface import write_config
from stretto.plan import Plan
from stretto.presets import PRESETS

Stretto = Callable[..., tuple[int, str, str]]

TEXT = "\n\n\n".join(f"Chapter {i}\n\nAnd it was so, and so it was, {i} times." for i in range(40))


@pytest.fixture
def stretto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Stretto:
    """Run a command in an empty directory with some text in it; status, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("text.txt").write_text(TEXT)

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


# ── help and errors ──────────────────────────────────────────────────────────────────────────────


def test_help_names_every_command(stretto: Stretto) -> None:
    for words in ((), ("--help",), ("-h",), ("help",)):
        status, out, _ = stretto(*words)
        assert status == 0
        assert all(f"\n  {name}" in out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_says_what_it_does_with_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    out = capsys.readouterr().out
    assert out.startswith(f"usage: stretto {command} ")
    assert f"examples:\n  stretto {command}" in out or "\nexamples:\n" in out
    assert max(map(len, out.splitlines())) <= 100


def test_the_version_is_printed(stretto: Stretto) -> None:
    status, out, _ = stretto("--version")
    assert (status, out.split()[0]) == (0, "stretto")
    assert out.split()[1][0].isdigit()


def test_an_unknown_command_is_told_with_the_nearest_one(stretto: Stretto) -> None:
    status, _, err = stretto("trian")
    assert status == 2
    assert "did you mean train?" in err


def test_the_module_runs_as_the_command_does() -> None:
    out = subprocess.check_output([sys.executable, "-m", "stretto", "--version"], text=True)
    assert out.startswith("stretto ")


def test_problems_are_aligned_and_long_fields_have_their_own_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    long = "a" * 40
    problems = [Problem("lr", "is bad", "mend it"), Problem(long, "is worse", "drop it")]
    assert list(table(problems)) == [
        "  lr  is bad",
        "      → mend it",
        f"  {long}",
        "      is worse",
        "      → drop it",
    ]


def test_a_rank_beside_others_that_say_the_same_says_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = InputError([Problem("lr", "is bad", "mend it"), Problem("dp", "is worse", "drop it")])
    complain(error, rank=3)
    assert capsys.readouterr().err == ("stretto, local rank 3: lr: is bad; mend it (and 1 more)\n")


# ── bad input: every case is told, without torch, a traceback or anything left behind ────────────


def bad_config(**changes: object) -> str:
    config = write_config(PRESETS["tiny"]) | changes
    Path("config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
    return "config.json"


def written(name: str, content: bytes | str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return name


# A command in words, or what makes it, and what standard error has to say.
BAD: dict[str, tuple[Callable[[], list[str]], list[str]]] = {
    "an unknown option": (lambda: ["train", "--dat", "x"], ["--dat", "did you mean --data?"]),
    "an unknown key": (lambda: ["train", "lrate=1"], ["lrate", "there is no such key"]),
    "an option without its value": (lambda: ["train", "--nproc"], ["expected one argument"]),
    "ranks that are no number": (lambda: ["train", "--nproc", "0"], ["--nproc", "0"]),
    "more ranks than there is memory for": (
        lambda: ["train", "--nproc", "9999999"], ["9,999,999 ranks take", "use at most"],
    ),
    "two models": (lambda: ["train", "tiny", "gpt2"], ["gpt2", "a second model"]),
    "a cluster for a model": (
        lambda: ["simulate", "h100x8"], ["is a cluster, and no model", "write --cluster h100x8"],
    ),
    "a cluster for a second model": (
        lambda: ["plan", "gpt2", "h100x8"], ["is a cluster, and no model"],
    ),
    "a file whose name is nearly right": (
        lambda: ["show", written("plan.toml", "")[:-2] + "m"], ["did you mean plan.toml?"],
    ),
    "an unknown preset": (lambda: ["train", "gpt3"], ["gpt3", "did you mean gpt2"]),
    "a model that is not there": (lambda: ["train", "no/config.json"], ["no/config.json"]),
    "a config that is no JSON": (
        lambda: ["train", written("c/config.json", "{")], ["c/config.json", "is not JSON"],
    ),
    "a config without sizes": (
        lambda: ["train", bad_config(hidden_size=..., vocab_size="many")],
        ["config.json: hidden_size", "is missing", "config.json: vocab_size", "'many'"],
    ),
    "a config of another kind": (
        lambda: ["train", bad_config(model_type="mamba")], ["model_type", "mamba"],
    ),
    "heads that do not divide": (
        lambda: ["train", bad_config(num_attention_heads=5, head_dim=None)], ["config.json"],
    ),
    "a plan that is not there": (
        lambda: ["train", "--plan", "p.toml"], ["p.toml", "cannot be read"],
    ),
    "a plan that is no TOML": (
        lambda: ["train", "--plan", written("p.toml", "dp = = 2")], ["p.toml", "is not TOML"],
    ),
    "a plan with unknown keys": (
        lambda: ["train", "--plan", written("p.toml", "[batch]\nsqe = 1\n[memry]\n")],
        ["batch.sqe", "did you mean batch.seq?", "memry", "did you mean memory?"],
    ),
    "a mesh for other ranks": (
        lambda: ["train", "--plan", written("p.toml", Plan.of(dp=2).to_toml()), "--nproc", "3"],
        ["dp 2", "= 2 ranks, but there are 3"],
    ),
    "more stages than blocks": (
        lambda: ["train", "tiny", "pp=9", "batch.sequences=18"], ["9 stages", "6 blocks"],
    ),
    "a batch that does not divide": (
        lambda: ["train", "dp=2", "batch.sequences=7"], ["batch.sequences", "7 % (2 × "],
    ),
    "a sequence that tp does not divide": (
        lambda: ["train", "tp=2", "batch.seq=33"], ["batch.seq", "33 % 2 = 1"],
    ),
    "shards that do not divide": (lambda: ["train", "dp=4", "zero=1", "shard=3"], ["shard", "dp"]),
    "a value of the wrong type": (
        lambda: ["train", "batch.seq=long", "numerics.dtype=float8", "lr=fast"],
        ["batch.seq", "'long'", "numerics.dtype", "'float8'", "lr", "'fast'"],
    ),
    "learned positions that are too few": (
        lambda: ["train", "gpt2", "batch.seq=4096"], ["4096 positions", "1024"],
    ),
    "a model that does not fit": (
        lambda: ["train", "llama-3-70b", "--nproc", "1"], ["on a rank, but a device has"],
    ),
    "text that is not there": (lambda: ["train", "--data", "no.txt"], ["no.txt", "no such file"]),
    "text that is empty": (lambda: ["train", "--data", written("e.txt", "")], ["an empty file"]),
    "text of white space": (
        lambda: ["train", "--data", written("w.txt", " \n\n")], ["nothing but white space"],
    ),
    "text that is binary": (
        lambda: ["train", "--data", written("b.txt", b"\x7fELF\0\0")], ["b.txt:1", "a NUL byte"],
    ),
    "text that is not UTF-8": (
        lambda: ["train", "--data", written("l.txt", b"caf\xe9")], ["l.txt:1", "0xe9", "UTF-8"],
    ),
    "JSON lines without the field": (
        lambda: ["train", "--data", written("a.jsonl", '{"body": "x"}\n')], ["no field 'text'"],
    ),
    "a directory without text": (
        lambda: ["train", "--data", str(Path(written("d/x.py", "x")).parent)], ["no text in it"],
    ),
    "a damaged archive": (
        lambda: ["train", "--data", written("t.txt.gz", b"PK")], ["t.txt.gz", "damaged"],
    ),
    "text of no known kind": (lambda: ["train", "--data", written("t.pdf", "x")], [".pdf"]),
    "a tokenizer that is none": (
        lambda: ["train", "--tokenizer", written("tokenizer.json", "{}")], ["no tokenizer"],
    ),
    "a run that exists": (
        lambda: ["train", "--run", str(Path(written("r/log.txt", "x")).parent)],
        ["exists already", "--resume r"],
    ),
    "a run inside a file": (lambda: ["train", "--run", "text.txt/r"], ["text.txt", "written"]),
    "a run that is a file": (lambda: ["train", "--run", "text.txt"], ["text.txt", "is a file"]),
    "no run to go on with": (lambda: ["train", "--resume", "none"], ["none", "is no run"]),
    "weights that are not there": (lambda: ["train", "--from", "none"], ["none"]),
    "a vocabulary without all bytes": (lambda: ["train", "vocab=100"], ["vocab", "257"]),
    "no prompt": (lambda: ["generate", "r"], ["--prompt", "is missing", "neither a run"]),
    "a temperature below zero": (
        lambda: ["generate", "r", "--prompt", "x", "--temperature", "-1", "--top-p", "0"],
        ["--temperature", "-1", "--top-p"],
    ),
    "too many ranks to verify": (lambda: ["verify", "dp=32", "batch.sequences=32"], ["at most 16"]),
    "no plans to verify": (lambda: ["verify", "--random", "0"], ["--random", "is 0"]),
    "no such stage": (lambda: ["show", "tiny", "--stage", "4"], ["no stage 4", "leave it out"]),
    "no such key": (lambda: ["show", "tiny", "zzz=1"], ["use one of pp, dp,", "docs/plans.md"]),
    "a trace in no directory": (
        lambda: ["train", "--trace", "nosuch/x.json"], ["there is no directory nosuch"],
    ),
    "nothing to export": (lambda: ["export"], ["RUN", "DIR", "is missing"]),
    "an export over something": (
        lambda: ["export", "none", str(Path(written("x/y", "")).parent)], ["exists already"],
    ),
    "nothing to prepare": (lambda: ["prepare"], ["--data", "is missing"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_told_and_leaves_nothing_behind(case: str, stretto: Stretto) -> None:
    make, wanted = BAD[case]
    words = make()
    before = sorted(Path().rglob("*"))
    status, out, err = stretto(*words)
    assert status == 2
    assert [part for part in wanted if part not in err] == [], err
    assert err.startswith("stretto: ")
    assert "Traceback" not in err
    assert out == ""
    assert sorted(Path().rglob("*")) == before


def test_everything_that_is_wrong_is_told_together(stretto: Stretto) -> None:
    plan = written(
        "p.toml", "[mesh]\ndp = 2\n[batch]\nsequences = 7\n[rules.compute]\nbatch = 'dp'\n"
    )
    status, _, err = stretto(
        "train", "tiny", "--plan", plan, "--data", "no.txt", written("b.txt", b"\0"), "--run",
        "text.txt", "--fast", "lrr=1", "steps=0",
    )  # fmt: skip
    assert status == 2
    assert err.startswith("stretto: 7 things are wrong")
    for part in ("--fast", "lrr", "steps", "batch.sequences", "no.txt", "b.txt:1", "text.txt"):
        assert f"\n  {part}" in err


def test_what_cannot_be_is_told_without_importing_torch(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"\0")
    program = (
        "import sys\nfrom stretto.cli import main\n"
        "status = main(['train', 'tiny', 'tp=3', '--data', 'b.txt', 'lrr=1'])\n"
        "sys.exit(status if 'torch' not in sys.modules else 99)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("stretto: 3 things are wrong")


def test_a_disk_without_room_for_checkpoints_is_told_with_the_numbers(
    stretto: Stretto, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 2**20

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    status, _, err = stretto("train", "gpt2")
    assert status == 2
    assert "1.00 MiB are free, but three checkpoints take 4.17 GiB" in err  # 124.44 M × 12 × 3


def test_a_port_in_use_is_told(stretto: Stretto, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for name, value in {
            "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        status, _, err = stretto("train", "tiny", "--data", "text.txt")
    assert status == 2
    assert f"port {port} on 127.0.0.1 is in use" in err
    assert "set MASTER_PORT to another" in err


def test_launch_variables_that_are_no_numbers_are_told_together(
    stretto: Stretto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "one")
    monkeypatch.setenv("WORLD_SIZE", "")
    status, _, err = stretto("train", "tiny", "--data", "text.txt")
    assert status == 2
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        assert f"\n  {name}" in err


def test_ctrl_c_before_there_are_ranks_leaves_with_its_status(
    stretto: Stretto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stretto.cli.train.request", interrupt)
    status, _, err = stretto("train")
    assert (status, err) == (130, "\ninterrupted\n")


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "stretto", "show", "gpt2", "--program"], cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() in (0, 141)


# ── commands that need no ranks ──────────────────────────────────────────────────────────────────


def test_a_dry_run_prints_a_plan_that_reads_back_and_makes_nothing(stretto: Stretto) -> None:
    before = sorted(Path().rglob("*"))
    status, out, _ = stretto(
        "train", "gpt2", "dp=2", "tp=2", "zero=3", "batch.seq=64", "--dry-run", "--data", "text.txt"
    )
    assert status == 0
    assert "dp 2 × tp 2; parameters, gradients, optimizer state sharded" in out
    assert "124 M parameters" in out
    plan = Plan.from_toml(out[out.index("[mesh]") : out.index("\nnothing was started")])
    assert (plan.mesh.extent("dp"), plan.mesh.extent("tp"), plan.batch.seq) == (2, 2, 64)
    assert sorted(Path().rglob("*")) == before


def test_show_draws_the_schedule_the_stages_and_the_program(stretto: Stretto) -> None:
    status, out, _ = stretto("show", "tiny", "pp=2", "batch.sequences=8", "batch.micro_batch=2")
    assert status == 0
    assert "rank 0  F0 F1  ·  · B0 ── F2" in out
    bubble = (2 - 1) / (4 + 2 - 1)  # (p - 1)/(m + p - 1) of 1F1B
    assert f"bubble {bubble:.1%}" in out
    shares = [float(line.split()[2].rstrip("%")) for line in out.splitlines()
              if line.strip()[:2] in ("0 ", "1 ")]  # fmt: skip
    assert math.isclose(sum(shares), 100, abs_tol=0.2)
    status, more, _ = stretto("show", "tiny", "pp=2", "--stage", "1", "--program")
    assert "stage 1 of 2" in more
    assert "stage 0 of 2" not in more
    assert " vote " in more and " update " in more


def test_show_writes_a_plan_that_it_reads(stretto: Stretto) -> None:
    status, text, _ = stretto("show", "tiny", "dp=2", "zero=3", "--toml")
    assert status == 0
    plan = written("p.toml", text)
    status, again, _ = stretto("show", plan, "tiny", "--toml")
    assert (status, again) == (0, text)
    status, changed, _ = stretto("show", plan, "tiny", "memory.recompute=full", "--toml")
    assert 'recompute = "full"' in changed


def test_prepared_text_is_found_again_by_its_bytes_and_by_its_name(stretto: Stretto) -> None:
    status, out, _ = stretto("prepare", "--data", "text.txt", "vocab=300", "--out", "tokens")
    assert status == 0
    home = Path(out.splitlines()[-1])
    assert home.parent == Path("tokens")
    made = (home / "prepared.json").stat().st_mtime_ns
    _, again, _ = stretto("prepare", "--data", "text.txt", "vocab=300", "--out", "tokens")
    assert Path(again.splitlines()[-1]) == home
    assert (home / "prepared.json").stat().st_mtime_ns == made
    status, out, _ = stretto("train", "tiny", "--data", str(home), "--dry-run")
    assert status == 0
    assert str(home) in out


def test_every_shipped_command_line_example_is_understood(stretto: Stretto) -> None:
    for words in (
        ("train", "tiny", "steps=50", "lr=3e-3", "--dry-run"),
        ("show", "gpt2", "pp=4", "dp=2", "zero=1", "batch.sequences=64", "batch.micro_batch=4"),
        ("show", "gpt2", "dp=8", "zero=3", "--toml"),
        ("show", "gpt2", "tp=2", "--program", "--stage", "0"),
    ):
        status, _, err = stretto(*words)
        assert (status, err) == (0, "")


def test_no_variable_of_a_launcher_reaches_the_tests() -> None:
    assert not {"RANK", "WORLD_SIZE", "SLURM_PROCID"} & set(os.environ)
