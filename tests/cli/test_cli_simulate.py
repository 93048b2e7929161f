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
             "rank 0, and 1 more", "memory ", "critical path")  # fmt: skip
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


def test_what_goes_into_a_file_has_lines_of_a_hundred_characters_and_not_of_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    _, told = asked(capsys, *HERE, "--energy").split("\nenergy\n")
    head, names, *rows = told.splitlines()[:4]
    assert 80 < len(head) <= 100 and head.endswith(" longer")
    assert names.split() == ["step", "energy", "r0", "r2"]
    assert all(row.endswith("%") and "Wh" in row for row in rows)


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
    assert "dp 2" in page and "stretto software" in page
    assert page == asked(capsys, "simulate", "gpt2", str(plan), "--cluster", "h100")


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


def test_only_the_ranks_that_are_asked_for_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    page = asked(capsys, *HERE, "--slow-rank", "3x2", "--ranks", "1,3")
    assert "\nrank 1  busy" in page and "\nrank 3  busy" in page
    assert "\nrank 0  busy" not in page and "\nrank 2  busy" not in page


def test_who_is_to_blame_for_a_step_that_does_not_end_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for how in ("--crash", "--hang"):
        page = asked(capsys, *HERE, how, "2@30%")
        assert "\nrank 2 is to blame: it halted, and waits for nobody\n" in page
    tree = as_json(capsys, *HERE, "--crash", "2", "--hang", "3")
    assert tree["blame"] == "ranks 2, 3 are to blame: they halted, and wait for nobody"


def test_chance_is_told_beside_the_step_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    chance = ("--jitter", "0.1", "--steps", "4", "--seed", "3")
    page = asked(capsys, *HERE, *chance)
    assert " lost to tasks that take 10% more or less (" in page
    assert " in nine of ten of 4 steps)" in " ".join(page.split())
    tree = as_json(capsys, *HERE, *chance)
    jitter = tree["jitter"]
    assert len(jitter["steps_s"]) == 4 and jitter["calm_s"] == pytest.approx(tree["played_s"])
    mean = sum(jitter["steps_s"]) / 4
    assert jitter["lost"] == pytest.approx(mean / jitter["calm_s"] - 1)
    assert tree["step_s"] == pytest.approx(tree["played_s"] * (1 + jitter["lost"]))


def test_some_micro_batches_stand_for_all_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    many = ("simulate", "gpt2", "pp=2", "dp=2", "batch.sequences=160", "batch.micro_batch=2",
            "batch.seq=256", "--cluster", "h100x4")  # fmt: skip
    whole = as_json(capsys, *many)
    some = as_json(capsys, *many, "--micro-batches", "12")
    assert (whole["micro_batches"], whole["played_micro_batches"]) == (40, 40)
    assert (some["micro_batches"], some["played_micro_batches"]) == (40, 12)
    for name in ("step_s", "tokens_per_s", "mfu"):
        assert some[name] == pytest.approx(whole[name], rel=1e-3)
    for mine, theirs in zip(some["ranks"], whole["ranks"], strict=True):
        assert mine["busy_s"] == pytest.approx(theirs["busy_s"], rel=1e-3)
    page = asked(capsys, *many, "--micro-batches", "12")
    assert "of 40 micro-batches 12 were played: each further one adds " in page


def test_energy_and_picture_of_a_step_of_which_some_was_played_are_of_the_whole_or_say_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    many = ("simulate", "gpt2", "pp=2", "dp=2", "batch.sequences=96", "batch.micro_batch=2",
            "batch.seq=256", "--cluster", "h100x4", "--energy")  # fmt: skip
    whole = as_json(capsys, *many)["energy"]
    some = as_json(capsys, *many, "--micro-batches", "12")["energy"]
    for name in ("step_s", "energy_j"):
        assert some["full"][name] == pytest.approx(whole["full"][name], rel=1e-3)
        assert some["points"][-1][name] == pytest.approx(whole["points"][-1][name], rel=0.05)
    file = tmp_path / "step.svg"
    asked(capsys, *many[:-1], "--micro-batches", "12", "--svg", str(file))
    assert "gpt2, 12 of 24 micro-batches of a step of " in file.read_text(encoding="utf-8")


def test_what_cannot_be_asked_of_a_step_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (("--micro-batches", "5"), "use 12 or more, or all"),
        (("--micro-batches", "few"), "use 12 or more, or all"),
        (("--micro-batches", "12", "--crash", "1"), "of a step that halts all are played"),
        (("--ranks", "4"), "there is no rank 4 of 4"),
        (("--ranks", "all"), "write ranks, as 0,3,8-15"),
        (("--jitter", "0.1", "--hang", "1"), "a step that halts has no length"),
        (("--steps", "5"), "are for --jitter"),
        (("--jitter", "7"), "is 7, not above 0 and at most 1"),
        (("--jitter", "0.1", "--steps", "0"), "--steps 0  is 0, below 1"),
        (("--jitter", "0.1", "--seed", "-5"), "--seed  is -5, below 0"),
        (("--network", "hash", "--seed", "-3"), "--seed  is -3, below 0"),
        (("--micro-batches", "1000"), "is 1,000, but a step of this plan has 8"),
        (("--slow-rank", "9x2"), "--slow-rank 9x2  there is no rank 9 of 4"),
        (("--network", "hash:flows=0"), "--network hash:flows=0  is 0, below 1"),
    ):
        assert told in refused(capsys, *HERE, *words)


def test_the_bubble_stands_beside_that_of_the_closed_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("simulate", "llama-3-8b", "pp=2", "dp=1", "batch.sequences=8", "batch.micro_batch=1",
             "numerics.dtype=bfloat16", "--cluster", "h100x2")  # fmt: skip
    tree = as_json(capsys, *words)
    # Two stages, eight micro-batches: 1/9 of a step, if stages are alike (Narayanan et al., 2021).
    assert tree["bubble"] == pytest.approx(1 / 9, abs=0.03)
    assert f"bubble {tree['bubble']:.1%}, in closed form " in asked(capsys, *words)
    assert sum(tree["critical_s"].values()) == pytest.approx(tree["played_s"])


def test_a_step_is_drawn_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "step.svg"
    page = asked(capsys, *HERE, "--svg", str(out))
    assert page.endswith(f"\ndrawn in {out}\n")
    assert "gpt2, a step of " in out.read_text(encoding="utf-8")
    assert "there is no directory" in refused(capsys, *HERE, "--svg", "nowhere/step.svg")


def test_a_step_that_does_not_fit_says_so_before_anything_else_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    large = ("simulate", "gpt2", "dp=1", "batch.sequences=256", "batch.micro_batch=256",
             "batch.seq=1024", "--cluster", "h100x1")  # fmt: skip
    page, tree = asked(capsys, *large), as_json(capsys, *large)
    assert page.index("\ndoes not fit: rank 0 needs ") < page.index(" a step: ")
    assert "of context and libraries" in page
    need = tree["fullest"]
    assert not tree["fits"] and need["total_bytes"] > need["memory_bytes"] > 79e9
    assert need["held_bytes"] == tree["ranks"][0]["peak_bytes"]
    assert as_json(capsys, *HERE)["fits"] and "does not fit" not in asked(capsys, *HERE)


def test_a_step_with_a_fault_is_not_said_to_be_off_the_closed_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (line,) = (x for x in asked(capsys, *HERE).splitlines() if "closed form says" in x)
    assert line.endswith(" %)")
    page = " ".join(asked(capsys, *HERE, "--slow-rank", "3x2").split())
    assert "ms, without the fault " in page


def test_where_and_when_a_rank_stopped_is_told_drawn_and_traced(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    svg, trace = tmp_path / "step.svg", tmp_path / "step.json"
    words = (*HERE, "--crash", "2@30%")
    page = asked(capsys, *words, "--svg", str(svg), "--trace", str(trace))
    tree = as_json(capsys, *words)
    (stop,) = tree["stopped"]
    assert (stop["rank"], stop["how"]) == (2, "crash") and stop["name"] != "free"
    assert 0 <= stop["instruction"] - stop["count"] * 3 // 10 < 5
    assert f"before {stop['name']}, its instruction " in " ".join(page.split())
    assert "rank 2 dies after " in page and all(wait["name"] for wait in tree["waits"])
    drawn = svg.read_text(encoding="utf-8")
    assert 'class="stop"' in drawn and "a step that does not end: rank 2 dies after" in drawn
    marks = [e for e in json.loads(trace.read_text())["traceEvents"] if e["ph"] == "i"]
    assert [(e["pid"], e["ts"]) for e in marks] == [
        (1_000_002, pytest.approx(stop["at_s"] * 1e6, abs=1e-3))
    ]


def test_no_line_is_longer_than_a_hundred_characters_and_no_memory_is_told_twice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    page = asked(capsys, *HERE, "--slow-rank", "0x1.1")
    assert max(map(len, page.splitlines())) <= 100
    assert page.count("memory ") == 2  # of each stage


def test_ranks_are_asked_for_with_commas_or_with_spaces(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pages = [asked(capsys, *HERE, "--ranks", *w.split()) for w in ("0,3", "0 3", "0, 3")]
    assert pages[0] == pages[1] == pages[2]
