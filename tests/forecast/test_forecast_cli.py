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
    assert status == 2 and "holds no survivors' plans" in err


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
