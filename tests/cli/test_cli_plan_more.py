"""``stretto plan`` where layers, devices or links differ, and when devices fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stretto.cli import main
from stretto.plan import Plan
from stretto.presets import PRESETS

SMALL = ("plan", "llama-3-8b", "--seq", "4096", "--batch-tokens", "256Ki")
SHORT = (*SMALL, "--cluster", "rtx4090x8", "schedule=1f1b")

MIXED = """\
name = "Mixed"

[[part]]
accelerator = "A100-80GB"
devices = 8

[[part]]
accelerator = "{second}"
devices = 8

[[level]]
name = "spine"
one_way_bandwidth = "100Gbit/s"
per = "device"
latency = "5us"
"""

LINKED = """\
accelerator = "A100-80GB"
devices = 24

[links]
unit = "GB/s"
rows = [[0, 2, 20], [2, 0, 20], [20, 20, 0]]
"""


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    status = main(arguments)
    captured = capsys.readouterr()
    assert (status, captured.err) == (0, "")
    return captured.out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(asked(capsys, *arguments, "--json"))
    return tree


def file(directory: Path, text: str) -> str:
    path = directory / "cluster.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_layers_that_differ_are_told_stage_by_stage(capsys: pytest.CaptureFixture[str]) -> None:
    page = asked(capsys, *SHORT, "--layerwise")
    told = page.split("layers that differ\n")[1]
    assert "a step  −" in told and "% than alike" in told
    assert "run again" in told and "of 23.64 GiB" in told
    tree = as_json(capsys, *SHORT, "--layerwise")["layerwise"]
    assert tree["speedup"] > 1
    assert sum(rank["layers"] for rank in tree["best"]["ranks"]) == 32
    assert tree["best"]["step_s"] < tree["uniform"]["step_s"]
    assert Plan.from_toml(tree["best"]["toml"]).check(PRESETS["llama-3-8b"]) == ()


def test_where_no_layer_gains_by_another_choice_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = asked(capsys, *SMALL, "--cluster", "h100x1", "recompute=none", "--layerwise")
    assert "none is faster than the plan above" in page


def test_the_fastest_plan_that_is_told_is_saved(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved = tmp_path / "plan.toml"
    page = asked(capsys, *SHORT, "--layerwise", "--save", str(saved))
    assert page.endswith("plan.toml, the fastest of these plans\n")
    tree = as_json(capsys, *SHORT, "--layerwise")
    plans = (saved.read_text("utf-8"), tree["layerwise"]["best"]["toml"], tree["best"]["toml"])
    mine, layerwise, uniform = map(Plan.from_toml, plans)
    assert mine == layerwise != uniform


def test_the_best_plans_that_run_are_played_and_the_fastest_of_them_is_saved(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = (*SMALL, "--cluster", "h100x8", "runs=true", "--confirm", "4")
    saved = tmp_path / "plan.toml"
    page = asked(capsys, *arguments, "--save", str(saved))
    told = page.split("confirmed by simulation: the best plans that run today\n")[1]
    assert "simulated" in told.splitlines()[0]
    tree = as_json(capsys, *arguments)
    played = tree["confirmed"]
    steps = [one["simulated_step_s"] for one in played]
    assert len(played) == 4 and steps == sorted(steps)
    assert len({Plan.from_toml(one["plan"]["toml"]).mesh for one in played}) == 4
    assert saved.read_text("utf-8") == played[0]["plan"]["toml"]
    for one in played:
        assert one["plan"]["step_s"] == pytest.approx(one["simulated_step_s"], rel=0.1)
    overtaken = played[0]["plan"]["toml"] != tree["best"]["toml"]
    beside = page.split("runs today\n")[1].split("\n\n")[0]
    assert ("simulated, another is faster" in beside) == overtaken


def test_a_plan_that_does_not_run_yet_is_not_replaced_by_one_that_was_played(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved = tmp_path / "plan.toml"
    arguments = ("plan", "llama-3-70b", "--cluster", "h100x64", "--batch-tokens", "512Ki")
    arguments = (*arguments, "--confirm", "1")
    asked(capsys, *arguments, "--save", str(saved))
    tree = as_json(capsys, *arguments)
    assert len(tree["confirmed"]) == 1
    assert saved.read_text("utf-8") == tree["best"]["toml"] != tree["confirmed"][0]["plan"]["toml"]


def test_no_plan_at_all_cannot_be_confirmed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--cluster", "h100x8", "--confirm", "0"]) == 2
    assert "--confirm  is 0\n" in capsys.readouterr().err


def test_what_survivors_do_is_a_line_for_each_number_of_nodes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (*SMALL, "--cluster", "h100x32", "--survivors")
    page = asked(capsys, *arguments).split("when devices fail\n")[1]
    first = [line.split()[:3] for line in page.splitlines() if line[4:6].strip().isdigit()]
    assert first == [["32", "32", "0"], ["24", "24", "0"], ["16", "16", "0"]]
    tree = as_json(capsys, *arguments)["survivors"]
    assert [row["devices"] for row in tree] == [32, 24, 16]
    assert all(row["plan"]["sequences"] == 64 for row in tree)
    more = as_json(capsys, *arguments, "8")["survivors"]
    assert [row["devices"] for row in more] == [32, 24, 16, 8]


@pytest.mark.parametrize("least", ["33", "-1"])
def test_survivors_are_as_many_as_there_are_devices_at_most(
    capsys: pytest.CaptureFixture[str], least: str
) -> None:
    assert main((*SMALL, "--cluster", "h100x32", f"--survivors={least}")) == 2
    assert f"is {least}, but there are 32 devices" in capsys.readouterr().err


def test_over_unlike_devices_stages_are_sized_without_being_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cluster = file(tmp_path, MIXED.format(second="V100-32GB"))
    page = asked(capsys, *SMALL, "--cluster", cluster)
    told = page.split("stages sized to the devices of each part\n")[1]
    for words in ("A100-80GB", "V100-32GB", "8 × A100-80GB alone", "as if they were the slowest"):
        assert words in told
    tree = as_json(capsys, *SMALL, "--cluster", cluster)["across_parts"]
    assert {rank["part"] for rank in tree["plan"]["ranks"]} == {0, 1}
    assert tree["plan"]["step_s"] < tree["as_if_all_were_the_slowest"]["step_s"]
    assert [part["devices"] for part in tree["alone"]] == [8, 8]


def test_a_plan_is_found_where_none_fits_the_smallest_device(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cluster = file(tmp_path, MIXED.format(second="V100-16GB"))
    words = ("plan", "llama-2-13b", "--seq", "4096", "--batch-tokens", "256Ki", "tp=2",
             "zero=0", "pp=8")  # fmt: skip
    saved = tmp_path / "plan.toml"
    page = asked(capsys, *words, "--cluster", cluster, "--save", str(saved))
    assert "stages sized to the devices of each part" in page
    plan = Plan.from_toml(saved.read_text("utf-8"))
    assert plan.words.pp == 8 and plan.pipeline.cut


def test_over_measured_links_nodes_are_put_in_order(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = (*SMALL[:2], "--seq", "4096", "--batch-tokens", "768Ki", "--cluster",
                 file(tmp_path, LINKED), "pp=3", "tp=8")  # fmt: skip
    assert "start ranks on nodes 0, 2, 1" in asked(capsys, *arguments)
    tree = as_json(capsys, *arguments)["over_links"]
    assert tree["order"] == [0, 2, 1]
    assert tree["plan"]["step_s"] < tree["step_s_as_numbered"]
    assert tree["all_orders_tried"]
