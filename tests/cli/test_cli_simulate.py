"""``stretto simulate``: what it prints and writes, and what it says when it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stretto.cli import main

SMALL = ("simulate", "gpt2", "pp=2", "dp=2", "batch.sequences=16", "batch.seq=256")
HERE = (*SMALL, "--cluster", "h100x4")


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    status = main(arguments)
    captured = capsys.readouterr()
    assert (status, captured.err) == (0, "")
    return captured.out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(asked(capsys, *arguments, "--json"))
    return tree


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_a_step_is_told_beside_the_closed_form_with_where_the_time_of_ranks_goes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = asked(capsys, *HERE)
    marks = ("gpt2 on H100-SXM", "a step: ", "closed form", "tokens/s a device",
             "rank 0 and 1 alike", "memory ", "critical path", "instructions played")  # fmt: skip
    places = [page.index(mark) for mark in marks]
    assert places == sorted(places)
    tree = as_json(capsys, *HERE)
    assert tree["finished"] and tree["waits"] == []
    assert [one["alike"] for one in tree["ranks"]] == [[0, 1], [2, 3]]
    for one in tree["ranks"]:
        parts = one["busy_s"] + sum(one["exposed_s"].values()) + one["bubble_s"]
        assert parts == pytest.approx(tree["played_s"])
        assert sum(one["held_bytes"].values()) == one["peak_bytes"]
        assert 0 <= one["peak_s"] <= tree["played_s"]


def test_a_slow_rank_and_a_slow_link_make_the_step_longer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = as_json(capsys, *HERE)["played_s"]
    slow = as_json(capsys, *HERE, "--slow-rank", "3x2")
    assert slow["played_s"] > 1.3 * whole
    assert [3] in [one["alike"] for one in slow["ranks"]]
    thin = as_json(capsys, *HERE, "--slow-link", "node:0-1,3x64")["played_s"]
    assert thin > 1.05 * whole


@pytest.mark.parametrize(("how", "at"), [("--crash", "3"), ("--hang", "3@50%"), ("--hang", "3@7")])
def test_a_step_that_does_not_end_says_who_waits_for_whom(
    capsys: pytest.CaptureFixture[str], how: str, at: str
) -> None:
    page = asked(capsys, *HERE, how, at)
    assert "the step does not end" in page and "in closed form" not in page
    tree = as_json(capsys, *HERE, how, at)
    assert not tree["finished"] and tree["step_s"] is None
    assert {wait["rank"] for wait in tree["waits"]} == {0, 1, 2}
    assert all(3 in wait["on"] or {0, 1, 2} & {*wait["on"]} for wait in tree["waits"])


def test_the_trace_has_every_kind_of_rank_and_the_names_of_instructions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "step.json"
    page = asked(capsys, *HERE, "--trace", str(out))
    assert page.endswith(f"the step for https://ui.perfetto.dev in {out}\n")
    events = json.loads(out.read_text(encoding="utf-8"))["traceEvents"]
    names = {event["name"] for event in events if event["ph"] == "X"}
    assert any(name.startswith("forward embedding") for name in names)
    assert len({event["pid"] for event in events}) == 2


def test_slower_clocks_are_told_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = asked(capsys, *HERE, "--energy")
    assert "a step at full clocks" in page and "without a slower step" in page
    tree = as_json(capsys, *HERE, "--energy")["energy"]
    energies = [point["energy_j"] for point in tree["points"]]
    assert energies == sorted(energies, reverse=True)
    assert len(tree["points"][0]["clock"]) == len(tree["ranks"])


def test_the_network_between_switches_is_played_where_there_is_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("simulate", "gpt2", "dp=64", "batch.sequences=64", "batch.seq=64")
    err = refused(capsys, *words, "--cluster", "h100x64", "--network", "hash")
    assert "no level of switches inside another to hash over" in err


def test_a_plan_is_read_from_its_file_and_has_as_many_devices_as_it_uses(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plan = tmp_path / "plan.toml"
    assert main(["show", "gpt2", "dp=2", "--toml"]) == 0
    plan.write_text(capsys.readouterr().out, encoding="utf-8")
    page = asked(capsys, "simulate", str(plan), "gpt2", "--cluster", "h100")
    assert "dp 2" in page and "modern software" in page


def test_all_that_is_wrong_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(
        capsys, *HERE, "--slow-rank", "fast", "--slow-link", "node:a-bx2", "--crash", "3@400%",
        "--network", "rings", "--trace", "nowhere/at/all.json",
    )  # fmt: skip
    assert "5 things are wrong" in err
    for text in ("write RANKxFACTOR, as 5x1.3", "write LEVEL:RANKSxFACTOR", "RANK@SHARE%",
                 "use fair, hash, spray, planned", "there is no directory nowhere/at"):  # fmt: skip
        assert text in err


def test_what_a_step_lacks_is_told_with_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(
        capsys, *HERE, "--slow-rank", "9x2", "--slow-link", "moon:0x2", "--hang", "3@99999"
    )
    for text in ("there is no rank 9 of 4", "has no level 'moon'", "but halts at 99999"):
        assert text in err


def test_a_plan_that_does_not_run_yet_is_refused_with_what_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    err = refused(capsys, *HERE, "pipeline.schedule=zb-1p")
    assert "gpipe" in err and "1f1b" in err
