"""``stretto forecast``: what it says, draws and refuses."""

from __future__ import annotations

import datetime
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stretto.cli import main
from stretto.units import show_seconds

Stretto = Callable[..., tuple[int, str, str]]

SMALL = ("--devices", "1024", "--step", "5s", "--steps", "100000", "--seeds", "40")
MAY = ("--start", "2026-05-01")


@pytest.fixture
def stretto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Stretto:
    """Run it in an empty directory; status, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> tuple[int, str, str]:
        status = main(("forecast", *words))
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def tree(stretto: Stretto, *words: str) -> Any:
    status, out, err = stretto(*words, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_the_verdict_comes_first_then_time_interruptions_checkpoints_and_spares(
    stretto: Stretto,
) -> None:
    status, out, err = stretto(*SMALL, *MAY, "--spares", "2")
    assert (status, err) == (0, "")
    marks = (
        "1,024 devices", "done on", "goodput", "interruptions (", "where the time goes",
        "GPU, NVLink", "how often to save", "is best", "Daly, 2006", "\nspare nodes\n",
    )  # fmt: skip
    places = [out.index(mark) for mark in marks]
    assert places == sorted(places)
    assert "failures of Llama 3 405B, 54 days on 16,384 H100: Grattafiori et al., 2024" in out
    assert "assumed: nodes of 8 devices (--cluster); 603.50 MiB of checkpoint a device" in out
    assert max(map(len, out.splitlines())) <= 100


def test_as_many_spares_as_suffice_are_taken_unless_their_number_is_said(
    stretto: Stretto,
) -> None:
    _, out, _ = stretto(*SMALL, *MAY)
    assert "spare nodes, enough 99 % of the time (--spares)" in " ".join(out.split())
    some = tree(stretto, *SMALL, *MAY)["goodput"]["p50"]
    assert some > tree(stretto, *SMALL, *MAY, "--spares", "0")["goodput"]["p50"] + 0.05


def test_json_has_all_of_it_and_its_parts_agree(stretto: Stretto) -> None:
    found = tree(stretto, *SMALL, *MAY, "--spares", "1")
    assert found["runs"] == 40 and found["given_up"] == 0
    assert sum(found["time"].values()) == pytest.approx(1)
    days = found["finish_s"]["p50"] / 86400
    end = datetime.date(2026, 5, 1) + datetime.timedelta(days=days)
    assert found["finish"]["p50"] == end.isoformat()
    goodput = found["goodput"]
    assert 0.9 < goodput["p10"] <= goodput["p50"] <= goodput["p90"] < 1
    steps_s = 100_000 * 5
    assert found["finish_s"]["p90"] * goodput["p10"] == pytest.approx(steps_s, rel=0.02)
    assert [one["nodes"] for one in found["spares"]] == [0, 1, 2, 4, 8]
    total = sum(one["mean"] for one in found["components"])
    assert total == pytest.approx(found["interruptions"]["p50"], rel=0.1)
    saved = found["checkpoints"]
    assert saved["every_s"] == saved["best_s"]
    assert saved["as_good_s"][0] <= saved["daly_s"] <= saved["as_good_s"][1]


def test_an_interval_that_is_stated_is_kept_in_steps_or_time(stretto: Stretto) -> None:
    for text, seconds in (("30min", 1800), ("500steps", 2500)):
        found = tree(stretto, *SMALL, "--checkpoint-every", text)
        assert found["checkpoints"]["every_s"] == seconds
        assert found["checkpoints"]["best_s"] != seconds


def test_nothing_fails_where_nothing_is_said_to(stretto: Stretto) -> None:
    found = tree(stretto, *SMALL, "--failures", "none", "--checkpoint-every", "1000steps")
    assert found["finish_s"]["p10"] == found["finish_s"]["p90"]
    assert found["spares"] == [] and found["failures"]["mtbf_s"] is None
    status, out, _ = stretto(*SMALL, "--failures", "none", *MAY)
    assert status == 0 and "nothing fails" in out and "interruptions" not in out


def test_a_plan_is_priced_and_its_training_forecast(stretto: Stretto) -> None:
    plan = ("llama-3-8b", "dp=16", "tp=4", "zero=1", "batch.sequences=512", "batch.micro_batch=1")
    words = (*plan, "batch.seq=8192", "--cluster", "h100x64", "--tokens", "100G", "--seeds", "20")
    found = tree(stretto, *words, "--spares", "1")
    job = found["setup"]["job"]
    assert job["steps"] == 23_842  # 100 G over 512 · 8,192 tokens a step
    assert (job["devices"], job["per_node"]) == (64, 8)
    assert found["finish_s"]["p50"] > job["steps"] * job["step_s"]
    # 72 devices, spares included, at 6.88 USD an hour
    hours = found["finish_s"]["p50"] / 3600
    assert found["money"] == pytest.approx(72 * 6.88 * hours, rel=0.02)
    assert found["energy_j"] > 0
    _, out, _ = stretto(*words)
    assert out.startswith("llama-3-8b, 8.03 G parameters, 100 G tokens, on 64 × H100-SXM\n")
    assert "USD" in out and "Wh, spare nodes included" in out
    assert "spare nodes included" not in stretto(*words, "--spares", "0")[1]


def test_replicas_that_leave_are_better_than_waiting(stretto: Stretto) -> None:
    words = ("--devices", "16384", "--step", "10s", "--steps", "50000", "--seeds", "5")
    words = (*words, "--spares", "0")
    stiff = tree(stretto, *words)
    elastic = tree(stretto, *words, "--elastic", "--replicas", "64")
    assert elastic["goodput"]["p50"] > stiff["goodput"]["p50"] + 0.3
    assert elastic["setup"]["elastic"]["unit_nodes"] == 32


def test_speeds_of_survivors_are_read_from_what_plan_prints(stretto: Stretto) -> None:
    rows = [
        {"devices": 1024 - 64 * i, "plan": {"tokens_per_s": 1000.0 - 100 * i}} for i in range(4)
    ]
    Path("plans.json").write_text(json.dumps({"survivors": rows}))
    found = tree(stretto, *SMALL, "--elastic", "plans.json")
    assert found["setup"]["elastic"]["unit_nodes"] == 8
    assert found["setup"]["elastic"]["speeds"] == pytest.approx([1, 0.9, 0.8, 0.7])
    Path("other.json").write_text(json.dumps({"survivors": rows[1:]}))
    status, _, err = stretto(*SMALL, "--elastic", "other.json")
    assert status == 2 and "begins with 960 devices, but 1024 train" in err
    status, _, err = stretto(*SMALL, "--elastic", "none.json")
    assert status == 2 and "none.json  there is no such file" in err


def test_snapshots_in_memory_lose_less_work(stretto: Stretto) -> None:
    words = (*SMALL, "--failures", "b200-504", "--spares", "4", "--checkpoint-every", "2h")
    disk, memory = tree(stretto, *words), tree(stretto, *words, "--memory-every", "10steps")
    assert memory["time"]["lost work"] < 0.1 * disk["time"]["lost work"]
    _, out, _ = stretto(*words, "--memory-every", "10steps")
    assert "Daly" not in out  # who knows of one kind of checkpoint


def test_runs_that_never_end_are_said_to(stretto: Stretto) -> None:
    words = ("--devices", "98304", "--step", "10s", "--steps", "20000", "--seeds", "4")
    words = (*words, "--spares", "0")
    status, out, _ = stretto(*words)
    assert status == 0
    assert "4 of 4 runs are not done in 10 times what they take without failures" in out
    found = tree(stretto, *words)
    assert found["given_up"] == 4 and found["finish"]["p50"] is None


def test_what_never_ends_is_told_soon_and_nothing_else_is_tried(stretto: Stretto) -> None:
    words = ("--devices", "100000", "--step", "10s", "--steps", "5000000", "--spares", "0")
    status, out, _ = stretto(*words, "--failures", "b200-504")
    assert status == 0
    assert "No run is done, so other intervals" in out
    assert "how often to save" not in out and "nodes are reset" not in out
    found = tree(stretto, *words, "--failures", "b200-504")
    # a run is given up after 1,000 failures, and not after ten times 579 days of them
    assert found["interruptions"]["p90"] == 1000
    assert len(found["checkpoints"]["curve"]) == 1 and found["spares"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--devices", "0"), "--devices is 0, below 1 → use 1 to 10,000,000"),
        (("--steps", "-3"), "--steps is -3, below 1"),
        (("--steps", "1" + "0" * 30), "above 1,000,000,000,000"),
        (("--seeds", "100000000"), "--seeds is 100,000,000, above 100,000"),
        (("--warm-spares", "-1"), "--warm-spares is -1, below 0"),
        (("--spares", "1000000000"), "--spares is 1,000,000,000, above 100,000"),
        (("--step", "nans"), "--step 'nans' is not a number with a unit of s → write 7.5s"),
        (("--step", "7.5"), "--step '7.5' is not a number with a unit of s → write 7.5s"),
        (("--step", "1e300s"), "--step is 1e300s, which is too much → use 1e-09s to 1e+07s"),
        (("--storage", "0B/s"), "--storage is 0B/s, which is too little"),
        (("--checkpoint-bytes", "1e300B"), "which is too much"),
        (("--checkpoint-every", "foo"), "→ write 30min or 500steps"),
        (("--checkpoint-every", "1e300h"), "use a time above 0s and up to 1e9s"),
        (("--memory-every", "nan"), "→ write 30min or 500steps"),
        (("--replicas", "7"), "--replicas 7 must divide 1,024 devices, but 1024 % 7 = 2 → use 8,"),
        (("--replicas", "100000"), "--replicas 100,000 must divide 1,024 devices"),
        (("--elastic", "nosuch.json"), "nosuch.json there is no such file"),
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_is_refused_once_with_what_could(
    words: tuple[str, ...], said: str, stretto: Stretto
) -> None:
    status, _, err = stretto(*SMALL, *words)
    assert status == 2 and err.count("→") == 1
    assert said in " ".join(err.split())


def test_what_a_plan_says_already_is_refused_beside_it(stretto: Stretto) -> None:
    status, _, err = stretto("gpt2", "dp=8", "--cluster", "h100x8", "--devices", "12")
    assert status == 2 and "--devices  follows from the plan" in err


def test_what_nobody_said_of_a_plan_is_assumed_in_words(stretto: Stretto) -> None:
    plan = ("dp=8", "zero=1", "batch.sequences=64", "--cluster", "h100x8", "--seeds", "2")
    _, out, _ = stretto("gpt2", *plan)
    said = " ".join(out.split())
    assert "assumed: 256 positions a sequence (batch.seq); " in said
    assert "; float32 (numerics.dtype);" in said
    assert "(MODEL)" not in said and "(batch.sequences)" not in said
    _, out, _ = stretto(*plan, "batch.seq=128")
    assert "assumed: stretto-1m (MODEL); " in " ".join(out.split())


def test_a_model_on_many_devices_needs_a_plan_first(stretto: Stretto) -> None:
    status, _, err = stretto("llama-3-70b", "--cluster", "h100x512")
    assert status == 2
    said = " ".join(err.split())
    assert "make a plan first: stretto plan llama-3-70b --cluster h100x512 --save plan.toml" in said


def test_a_single_run_has_no_spread_and_long_times_are_days(stretto: Stretto) -> None:
    few = ("--devices", "8", "--step", "1s", "--steps", "2000000", "--seeds", "1")
    _, out, _ = stretto(*few, "--start", "9999-12-30", "--checkpoint-bytes", "100TB")
    assert "10–90 % of 1 runs" not in out and "1 interruptions" not in out
    assert "one failure every 237 days" in out  # 54 days · 16,384 / 8 / 466
    assert "done 2" in out and " days later" in out
    assert "is stored 27 h 47 min later" in out  # 100 TB at 1 GB/s of one node
    _, out, _ = stretto("--devices", "8", "--step", "1us", "--steps", "1", "--failures", "none")
    assert "1 step of 1 us" in out
    _, out, _ = stretto("--devices", "8", "--step", "1s", "--steps", "7200", "--failures", "none")
    assert "done 2 h 00 min later" in out  # on which day says nothing


def test_closed_forms_say_between_which_failures(stretto: Stretto) -> None:
    """Of 466 in 54 days on 16,384 H100 47 are planned maintenance: they lose no work."""
    _, out, _ = stretto(*SMALL, "--spares", "1")
    said = " ".join(out.split())
    assert "one failure every 44 h 30 min" in said
    assert "failures that are not planned" in said


def test_the_picture_has_the_curve_and_the_days(stretto: Stretto) -> None:
    status, out, _ = stretto(*SMALL, *MAY, "--spares", "1", "--svg", "forecast.svg")
    assert status == 0 and out.endswith("drawn in forecast.svg\n")
    text = Path("forecast.svg").read_text()
    root = ET.fromstring(text)
    svg = "{http://www.w3.org/2000/svg}"
    found = tree(stretto, *SMALL, *MAY, "--spares", "1")
    (line,) = (p for p in root.iter(f"{svg}path") if p.get("class") == "line")
    assert line.get("d", "").count("L") == len(found["checkpoints"]["curve"]) - 1
    bars = [r for r in root.iter(f"{svg}rect") if r.get("class") == "bar"]
    heights = [float(b.get("height", "0")) for b in bars]
    highest = round(40 * max(heights) / sum(heights))  # runs in the highest bar
    assert sum(heights) == pytest.approx(40 * max(heights) / highest, abs=1)
    best = show_seconds(found["checkpoints"]["best_s"])
    assert f"best: {best}" in text and "Daly" in text and " days</text>" in text


def test_all_that_is_wrong_is_said_at_once(stretto: Stretto) -> None:
    status, _, err = stretto(
        "--devices", "64", "--steps", "10", "--failures", "llama4", "--spares", "-1",
        "--seeds", "0", "--storage", "5", "--start", "1.5.2026", "--svg", "none/x.svg",
        "--tokens", "1T",
    )  # fmt: skip
    assert status == 2
    for field in ("--spares", "--seeds", "--svg", "--storage", "failures", "--start", "--tokens"):
        assert field in err
    assert "--step " in err and "8 things are wrong" in err


def test_a_plan_and_stated_steps_contradict_each_other(stretto: Stretto) -> None:
    status, _, err = stretto("gpt2", "dp=8", "--cluster", "h100x8", "--step", "1s", "--steps", "5")
    assert status == 2
    assert err.count("follows from the plan") == 2


def test_a_plan_needs_a_cluster_that_holds_it(stretto: Stretto) -> None:
    status, _, err = stretto("gpt2", "dp=8")
    assert status == 2 and "--cluster" in err
    status, _, err = stretto("gpt2", "dp=16", "--cluster", "h100x8")
    assert status == 2 and "8" in err and "16" in err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--checkpoint-every", "1s"), ("--checkpoint-every", "0steps"),
        ("--checkpoint-every", "-5min"), ("--memory-every", "often"), ("--step", "0s"),
        ("--checkpoint-bytes", "5"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused_with_what_could(
    option: str, words: str, stretto: Stretto
) -> None:
    status, _, err = stretto(*SMALL, option, words)
    assert status == 2 and option in err and "→" in err


def test_a_picture_that_cannot_be_written_is_the_machines_fault(stretto: Stretto) -> None:
    Path("taken").mkdir()
    status, _, err = stretto(*SMALL, "--svg", "taken")
    assert status == 2 and "cannot be written" in err
