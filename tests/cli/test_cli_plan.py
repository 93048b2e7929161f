"""``stretto plan``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from stretto.cli import main
from stretto.cluster import find
from stretto.cost import cost, stack
from stretto.huggingface import write_config
from stretto.plan import Plan
from stretto.presets import PRESETS

SMALL = ("plan", "llama-3-8b", "--cluster", "h100x16", "--batch-tokens", "512Ki")


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    status, out, err = asked(capsys, *arguments, "--json")
    assert (status, err) == (0, "")
    tree: dict[str, Any] = json.loads(out)
    return tree


def test_the_page_tells_the_plan_and_all_that_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = asked(capsys, *SMALL)
    assert (status, err) == (0, "")
    for part in (
        "llama-3-8b  8.03 G parameters", "16 × H100-SXM", "64 sequences × 8,192 = 524 k tokens",
        "assumed: 8,192 positions a sequence (--seq), 20 tokens a parameter (--tokens), modern",
        "batch.sequences=64", "± 5", "tokens/s a device", "MFU, HFU", "of 79.11 GiB",
        "161 G tokens in 306,", "USD", "Wh", "where the step goes", "matrix products",
        "what fills the fullest rank", "activations kept", "runs today", "other kinds of plan",
        "less memory", "fewer devices", "what if", "2 × bandwidth between nodes", "2 × devices",
        "2 × device memory", "2 × batch", "plans tried in", "needs more memory than a device has",
    ):  # fmt: skip
        assert part in out, part


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_no_line_is_wider_than_the_terminal_or_100(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = asked(capsys, *SMALL)
    assert max(map(len, out.splitlines())) <= min(columns, 100)
    assert "…" not in out  # nothing is cut
    assert all(line == line.rstrip() for line in out.splitlines())


def test_the_words_of_the_plan_make_the_same_plan(capsys: pytest.CaptureFixture[str]) -> None:
    tree = as_json(capsys, *SMALL, "--constraint", "order=pp-dp-cp-tp")
    _, out, _ = asked(capsys, *SMALL, "--constraint", "order=pp-dp-cp-tp")
    lines = out.split("\nplan\n")[1].split("\n\n")[0].split()
    status, shown, _ = asked(capsys, "show", "llama-3-8b", *lines, "--toml")
    assert status == 0
    assert Plan.from_toml(shown) == Plan.from_toml(tree["best"]["toml"])


def test_a_saved_plan_takes_what_was_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "plan.toml"
    tree = as_json(capsys, *SMALL, "--save", str(file))
    plan = Plan.from_toml(file.read_text())
    assert plan.to_toml(model="llama-3-8b") == tree["best"]["toml"]
    model = PRESETS["llama-3-8b"]
    assert plan.check(model) == ()
    found = cost(model, plan, cluster=find("h100x16"), stack=stack())
    assert float(found.time.total_s) == pytest.approx(tree["best"]["step_s"], rel=1e-12)
    assert float(found.memory.total_bytes) == pytest.approx(tree["best"]["memory_bytes"], rel=1e-12)


def test_json_tells_parts_that_sum_to_their_totals(capsys: pytest.CaptureFixture[str]) -> None:
    tree = as_json(capsys, *SMALL)
    assert tree["assumed"] == [
        "8,192 positions a sequence (--seq)", "20 tokens a parameter (--tokens)",
        "modern software (--stack)",
    ]  # fmt: skip
    best = tree["best"]
    assert sum(best["step_parts_s"].values()) == pytest.approx(best["step_s"])
    assert sum(best["memory_parts_bytes"].values()) == pytest.approx(best["memory_bytes"])
    assert sum(best["energy_parts_j"].values()) == pytest.approx(best["energy_j"])
    assert tree["search"]["tried"] == tree["search"]["can_be"] + sum(
        rejected["count"] for rejected in tree["search"]["rejected"]
    )
    for other in (*tree["kinds"], *tree["measure"]):
        assert sum(other["more_than_best_s"].values()) == pytest.approx(
            other["step_s"] - best["step_s"], abs=1e-9
        )
    assert tree["runs_today"]["not_run_yet"] == []
    assert [each["devices"] for each in tree["devices_front"]][:2] == [16, 8]


def test_demands_hold_of_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    tree = as_json(capsys, *SMALL, "tp=2", "--constraint", "memory<=40GB", "schedule=1f1b")
    assert tree["best"]["words"]["tp"] == "2"
    assert tree["best"]["memory_bytes"] <= 40e9
    assert tree["constraints"] == ["memory<=40GB", "tp=2", "schedule=1f1b"]


def test_another_precision_is_in_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    tree = as_json(capsys, *SMALL, "--precision", "float8")
    assert Plan.from_toml(tree["best"]["toml"]).numerics.matrix == "float8"


def test_fewer_devices_may_be_cheaper(capsys: pytest.CaptureFixture[str]) -> None:
    fast, cheap = (as_json(capsys, *SMALL, "--objective", o)["best"] for o in ("time", "cost"))
    assert cheap["training"]["money"] <= fast["training"]["money"]


def test_a_device_without_a_price_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "free.toml"
    preset = files("stretto").joinpath("clusters/cpu.toml").read_text("utf-8")
    file.write_text(re.sub(r"price_usd_per_hour = .*", "price_usd_per_hour = 0", preset, count=1))
    status, out, _ = asked(
        capsys, "plan", "tiny", "--cluster", str(file), "--devices", "2", "--batch-tokens", "4Ki"
    )
    assert status == 0
    assert "price unknown" in out


def test_why_not_compares_part_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = asked(capsys, *SMALL, "--why-not", "tp=8", "zero=0")
    assert status == 0
    assert "asked" in out and "best" in out and "difference" in out
    assert "tensor-parallel moves" in out
    tree = as_json(capsys, *SMALL, "--why-not", "tp=8", "zero=0")
    gap = tree["plan"]["step_s"] - tree["best"]["step_s"]
    assert gap > 0
    assert sum(tree["more_than_best_s"].values()) == pytest.approx(gap)


def seconds(text: str) -> float:
    """Give what a time on the page is."""
    value, unit = text.lstrip("+").replace("−", "-").split()
    return float(value.replace(",", "")) * (1e-3 if unit == "ms" else 1.0)


def test_the_columns_of_a_comparison_sum_to_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = asked(capsys, *SMALL, "--why-not", "tp=8", "zero=0")
    table = out.split("difference\n")[1].split("memory  ")[0]
    rows = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]
    step, *others = [[seconds(cell) for cell in row[1:4]] for row in rows if len(row) == 4]
    for i in range(3):
        shown = sum(row[i] for row in others)
        assert shown == pytest.approx(step[i], abs=0.006 * (len(others) + 1))


@pytest.mark.parametrize("runs", [("runs=true",), ("--constraint", "runs=true")])
def test_why_not_compares_what_runs_where_that_is_demanded(
    runs: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    best = as_json(capsys, *SMALL, *runs)["best"]
    tree = as_json(capsys, *SMALL, *runs, "--why-not", "tp=8", "zero=0")
    assert tree["best"]["step_s"] == best["step_s"]
    assert tree["plan"]["not_run_yet"] == tree["best"]["not_run_yet"] == []


def test_why_not_tells_a_rule_with_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = asked(capsys, *SMALL, "--why-not", "tp=3")
    assert status == 0
    assert "no plan can be so" in out
    assert "tp 3 does not divide 16 devices" in out


def test_why_not_tells_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = asked(
        capsys, "plan", "llama-3-70b", "--cluster", "h100x64", "--why-not", "tp=1", "pp=1", "zero=0"
    )
    assert status == 0
    assert "no plan that is so fits" in out
    assert "too little" in out


REFUSED = {
    "no model": ((), ["MODEL", "is missing"]),
    "no such model": (("lama-3-8b", "--cluster", "h100x8"), ["did you mean llama-3-8b"]),
    "two models": (("gpt2", "llama-3-8b", "--cluster", "h100x8"), ["a second model"]),
    "no cluster": (("gpt2",), ["--cluster", "is missing"]),
    "an empty cluster": (("gpt2", "--cluster", ""), ["there is none called ''"]),
    "a directory": (("gpt2", "--cluster", "some/where"), ["some/where is no cluster's file"]),
    "no such cluster": (("gpt2", "--cluster", "h10x8"), ["there is none called 'h10'"]),
    "no devices": (("gpt2", "--cluster", "h100x0"), ["has 0 devices"]),
    "devices unsaid": (("gpt2", "--cluster", "h100"), ["say how many"]),
    "two numbers": (("gpt2", "--cluster", "h100x8", "--gpus", "9"), ["has 8 devices, not 9"]),
    "part of a sequence": (
        ("gpt2", "--cluster", "h100x8", "--batch-tokens", "1000"),
        ["1,000 % 1,024 = 1,000", "use 1024 (1 sequence)"],
    ),
    "no sequence": (("gpt2", "--cluster", "h100x8", "--seq", "0"), ["--seq", "below 1"]),
    "long sequences": (("gpt2", "--cluster", "h100x8", "--seq", "2048"), ["has learned 1024"]),
    "contradiction": (
        ("gpt2", "--cluster", "h100x8", "--constraint", "tp<=2", "--constraint", "tp>=4"),
        ["no value meets tp<=2 and tp>=4"],
    ),
    "a limit without its option": (
        ("gpt2", "--cluster", "h100x8", "memory<=70GB"),
        ["is no model", "write --constraint 'memory<=70GB'"],
    ),
    "part of a ZeRO stage": (("gpt2", "--cluster", "h100x8", "zero=1.5"), ["a whole number"]),
    "more tokens than there are": (
        ("gpt2", "--cluster", "h100x8", "--tokens", "1e999"),
        ["--tokens", "no whole number of tokens"],
    ),
    "positions in thousands": (("gpt2", "--cluster", "h100x8", "--seq", "8k"), ["--seq", "'8k'"]),
    "a model that a trainer does not know": (
        ("mixtral-8x7b", "--cluster", "h100x16", "--emit", "nanotron"),
        ["model.experts", "nanotron has no option"],
    ),
    "together nothing": (
        ("gpt2", "--cluster", "h100x8", "--constraint", "tp>=4", "--constraint", "pp>=4"),
        ["no plan meets all of them"],
    ),
    "no such decision": (("gpt2", "--cluster", "h100x8", "speed=1"), ["no plan has a 'speed'"]),
    "no such stack": (
        ("gpt2", "--cluster", "h100x8", "--stack", "old"),
        ["'old'", "choose from modern"],
    ),
    "no such precision": (
        ("gpt2", "--cluster", "a100x8", "--precision", "float8"),
        ["multiplies no matrices in float8"],
    ),
    "why not what": (("gpt2", "--cluster", "h100x8", "--why-not"), ["asks about no plan"]),
    "no such option": (("gpt2", "--cluster", "h100x8", "--quick"), ["there is no such option"]),
    "nothing to show": (("gpt2", "--cluster", "h100x8", "--top", "-1"), ["below 0"]),
    "nowhere": (
        ("gpt2", "--cluster", "h100x8", "--save", "no/such/plan.toml"),
        ["there is no directory"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_told(capsys: pytest.CaptureFixture[str], name: str) -> None:
    words, expected = REFUSED[name]
    status, out, err = asked(capsys, "plan", *words)
    assert (status, out) == (2, "")
    text = " ".join(err.split())
    for part in expected:
        assert part in text


def test_all_that_is_wrong_is_told_together(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = asked(
        capsys, "plan", "lama", "--cluster", "h10x8", "--top", "-1", "--tokens", "x", "speed=1"
    )
    assert err.startswith("stretto: 5 things are wrong")


def test_a_model_that_does_not_fit_is_told_by_how_much_and_what_would_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("plan", "llama-3-70b", "--cluster", "h100x2", "--batch-tokens", "512Ki")
    status, out, err = asked(capsys, *words)
    assert (status, out) == (2, "")
    text = " ".join(err.split())
    assert "too little" in text
    assert "but a device has 79.11 GiB" in text
    assert "devices (" in text and "a step)" in text
    status, out, _ = asked(capsys, *words, "--json")
    tree = json.loads(out)
    assert status == 2
    assert tree["least_memory"]["fits"] is False
    assert tree["least_memory"]["memory_bytes"] > tree["task"]["device_memory_bytes"]
    assert any("devices" in would["what"] for would in tree["would_fit"])


def test_host_memory_is_used_where_nothing_fits_without(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = asked(
        capsys, "plan", "llama-3-70b", "--cluster", "h100x8", "--batch-tokens", "512Ki"
    )
    assert "nothing fits without the host's memory" in out
    assert "offload=" in out


def test_a_file_is_not_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text("mine")
    status, _, err = asked(capsys, *SMALL, "--save", str(file))
    assert status == 2
    assert "exists already" in err
    assert file.read_text() == "mine"


@pytest.mark.parametrize("trainer", ["megatron", "torchtitan", "deepspeed", "nanotron"])
def test_the_best_plan_that_a_trainer_can_be_told_is_emitted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, trainer: str
) -> None:
    file = tmp_path / "plan.toml"
    tree = as_json(capsys, *SMALL, "--emit", trainer, "--save", str(file))
    assert tree["emitted"]
    for name, text in tree["emitted"].items():
        assert (tmp_path / name).read_text() == text
    assert file.read_text() == tree["best"]["toml"]


def test_what_is_emitted_is_printed_where_nothing_is_saved(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = asked(capsys, *SMALL, "--emit", "megatron")
    assert "# megatron.sh\n#!/usr/bin/env bash" in out
    assert "pretrain_gpt.py" in out


def test_what_is_emitted_replaces_no_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "megatron.sh").write_text("mine")
    file = tmp_path / "plan.toml"
    status, _, err = asked(capsys, *SMALL, "--emit", "megatron", "--save", str(file))
    assert status == 2
    assert "megatron.sh" in err and "exists already" in err
    assert (tmp_path / "megatron.sh").read_text() == "mine"
    assert not file.exists()


def test_a_plan_that_can_be_emitted_is_not_told_as_another_than_the_best(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("dp=8", "tp=2", "zero=1", "schedule=1f1b", "tensor_overlap=true")
    _, out, _ = asked(capsys, *SMALL, *words, "--emit", "megatron")
    assert "the best of those that can be emitted" not in out
    status, out, err = asked(capsys, *SMALL, *words, "--emit", "deepspeed")
    assert (status, out) == (2, "")
    assert "tensor_overlap" in err


def test_the_best_plan_that_runs_can_be_saved_and_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "plan.toml"
    best = as_json(capsys, *SMALL)
    tree = as_json(capsys, *SMALL, "runs=true", "--save", str(file))
    assert tree["best"]["toml"] == best["runs_today"]["toml"]
    assert tree["not_run_yet"] == []
    status, out, _ = asked(capsys, "show", str(file), "llama-3-8b")
    assert (status, "llama-3-8b" in out) == (0, True)


def test_plans_that_are_to_run_today_are_priced_with_the_software_that_runs_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = as_json(capsys, *SMALL, "runs=true", "--stack", "stretto")["best"]
    assert as_json(capsys, *SMALL, "runs=true")["best"] == ours
    assert as_json(capsys, *SMALL, "runs=true", "--stack", "modern")["best"] != ours
    _, out, _ = asked(capsys, *SMALL, "runs=true")
    assert "stretto software (--stack)" in " ".join(out.split())


def test_a_plan_that_fits_with_other_software_and_not_with_ours_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("plan", "llama-3-8b", "--cluster", "h100x8", "tp=8", "runs=true")
    _, out, _ = asked(capsys, *words, "--stack", "modern")
    assert "with our own software it needs 84." in out and "of 79.11 GiB; runs=true without" in out
    _, out, _ = asked(capsys, *words)
    assert "with our own software it needs" not in out


def test_parts_of_a_system_are_told_by_their_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--batch-tokens", "512Ki", "--seq", "4096", "--top", "0")
    _, out, _ = asked(capsys, "plan", "llama-3-8b", "--cluster", "two-sites", *words)
    assert "Two-Sites: 64 × H100-SXM + 64 × A100-80GB" in out
    assert "64 of the devices by themselves are faster" in out
    _, out, _ = asked(capsys, "plan", "llama-3-8b", "--cluster", "frontierx16", *words)
    assert "Frontier: 16 × MI250X" in out
    assert "by themselves" not in out


def test_why_not_the_best_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    words = as_json(capsys, *SMALL)["best"]["words"]
    own = [f"{key}={value}" for key, value in words.items()]
    _, out, _ = asked(capsys, *SMALL, "--why-not", *own)
    assert "the best plan is so" in out


def test_why_not_what_is_not_tried_unasked_may_be_faster(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = asked(capsys, *SMALL, "--why-not", "codec=bfloat16")
    assert "faster than the best" in out


def test_why_not_compares_with_plans_that_use_the_hosts_memory(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("plan", "llama-3-70b", "--cluster", "h100x8", "--batch-tokens", "512Ki")
    status, out, _ = asked(capsys, *words, "--why-not", "tp=4")
    assert status == 0
    assert "best   " in out and "offload=" in out


def test_a_configs_file_names_the_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(write_config(PRESETS["tiny"])))
    _, out, _ = asked(capsys, "plan", str(file), "--cluster", "cpux1", "--top", "0")
    assert out.startswith("mine  36 k parameters")


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys; from stretto.cli import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; assert 'scipy' not in sys.modules; sys.exit(status)"
    )
    words = ("plan", "gpt2", "--cluster", "h100x8", "--batch-tokens", "64Ki")
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_host_memory_that_is_demanded_is_not_told_as_needed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = asked(capsys, *SMALL, "offload=0.5")
    assert "offload=0.5" in out
    assert "nothing fits" not in out
