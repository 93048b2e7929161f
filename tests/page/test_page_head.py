"""The verdict says what was predicted and what was measured, and nothing else."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import PLAN, a_run, append, record

from stretto.cli.shown import Where, of_plan, of_run
from stretto.cluster import find
from stretto.cost import stack
from stretto.page.head import answer, data, finding, typical, verdict
from stretto.page.subject import Subject
from stretto.plan import Batch, Plan
from stretto.presets import preset


def figures(subject: Subject) -> dict[str, tuple[str, str, str]]:
    return {f["label"]: (f["value"], f["note"], f["tone"]) for f in data(subject)["figures"]}


def a_subject(tmp_path: Path, **options: int) -> Subject:
    subject = of_run(a_run(tmp_path / "run", **options))
    assert subject.metrics is not None
    subject.metrics.read()
    return replace(subject, predicted=None)  # then the closed form foretells the step


def test_a_run_is_compared_with_what_was_foretold(tmp_path: Path) -> None:
    subject = a_subject(tmp_path, steps=20)
    told_s = subject.predicted_s
    assert subject.metrics is not None
    run = subject.metrics.path.parent
    append(run, *(record(s, step_s=told_s * 1.1) for s in range(21, 400)))
    subject.metrics.read()
    assert verdict(subject).endswith("(+10.0 %).")
    assert figures(subject)["Measured step"][1:] == ("+10.0 %", "warn")
    assert verdict(subject, "slow rank 5 costs 2 ms").endswith("(+10.0 %): slow rank 5 costs 2 ms.")


@pytest.mark.parametrize(("ratio", "tone"), [(1.04, "good"), (0.9, "warn"), (1.5, "bad")])
def test_a_prediction_that_is_far_off_is_seen_to_be(
    tmp_path: Path, ratio: float, tone: str
) -> None:
    subject = a_subject(tmp_path, steps=1)
    assert subject.metrics is not None
    told_s = subject.predicted_s
    append(subject.metrics.path.parent, *(record(s, step_s=told_s * ratio) for s in range(2, 300)))
    subject.metrics.read()
    assert figures(subject)["Measured step"][2] == tone


def test_the_first_steps_and_a_rare_slow_one_do_not_count() -> None:
    assert typical(np.array([9.0, 9.0, 9.0, 1.0, 1.0, 50.0, 1.0, 1.0])) == 1.0
    assert typical(np.array([np.nan, 2.0])) == 2.0
    assert typical(np.array([np.nan])) is None


def test_a_run_is_finished_or_goes_on_or_has_stopped(tmp_path: Path) -> None:
    done = a_subject(tmp_path / "a", steps=5)
    going = a_subject(tmp_path / "b", steps=5, planned=10)
    idle = a_subject(tmp_path / "c", steps=0, planned=10)
    assert [data(s)["state"] for s in (done, going, idle)] == ["finished", "running", "not begun"]
    assert "nothing is measured yet" in verdict(idle)
    assert going.metrics is not None
    os.utime(going.metrics.path, (1e9, 1e9))
    assert data(going)["state"] == "stopped"


def test_a_title_names_the_model_unless_the_run_does(tmp_path: Path) -> None:
    tiny, same = a_subject(tmp_path, steps=5), replace(a_subject(tmp_path, steps=5), title="a-tiny")
    assert data(tiny)["title"] == "run — tiny"
    assert data(same)["title"] == "a-tiny"


def test_a_tab_says_first_what_tells_it_from_others(tmp_path: Path) -> None:
    done = a_subject(tmp_path / "a", steps=5)
    going = a_subject(tmp_path / "b", steps=399, planned=400)
    idle = a_subject(tmp_path / "c", steps=0, planned=10)
    assert data(done)["tab"] == data(idle)["tab"] == "run — tiny · Stretto"
    assert data(going)["tab"] == "99 % · run — tiny · Stretto"  # not done before it is
    assert going.metrics is not None
    os.utime(going.metrics.path, (1e9, 1e9))
    assert data(going)["tab"] == "stopped · run — tiny · Stretto"


def test_steps_that_did_not_count_are_counted(tmp_path: Path) -> None:
    subject = a_subject(tmp_path, steps=3)
    assert subject.metrics is not None
    append(subject.metrics.path.parent, record(4, loss=None, applied=False))
    subject.metrics.read()
    (note,) = data(subject)["notes"]
    assert note == {
        "tone": "warn",
        "text": "1 step did not count: loss or gradient was not finite.",
    }


def test_a_plan_that_does_not_fit_says_how_much_is_missing() -> None:
    model = preset("llama-3-70b")
    plan = Plan.of(dp=8, batch=Batch(sequences=8, micro_batch=1, seq=256))
    where = Where(find("h100x8"), stack(), "modern")
    subject = of_plan("70b", model, plan, where=where, say=lambda _: None)
    assert verdict(subject).endswith("which does not fit.")
    # Weights, gradients, two moments of 70.6 G numbers in float32: above 1 TiB.
    value, note, tone = figures(subject)["Memory of a rank"]
    assert value.endswith("TiB") and note == "of 79.1 GiB" and tone == "bad"
    assert data(subject)["notes"][0]["tone"] == "bad"


def test_tokens_a_second_follow_from_the_step() -> None:
    where = Where(find("h100x2"), stack(), "modern")
    subject = of_plan("tiny", preset("tiny"), PLAN, where=where, say=lambda _: None)
    assert subject.tokens == 512
    rate = figures(subject)["Tokens a second"][0].replace(" k", "e3")
    assert math.isclose(float(rate), 512 / subject.predicted_s, rel_tol=0.005)


def test_what_is_known_of_a_recording_is_not_looked_for_again(tmp_path: Path) -> None:
    subject = a_subject(tmp_path, steps=3)
    assert finding(subject) == ""
    assert answer(subject, {"known": "slow rank 1"})["finding"] == "slow rank 1"
