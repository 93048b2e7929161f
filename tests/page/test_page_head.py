"""The verdict says what was predicted and what was measured, and nothing else."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from runs import PLAN, a_run, append, record, restart, silent

from stretto.cli.shown import Where, of_plan, of_run
from stretto.cluster import find
from stretto.cost import stack
from stretto.diagnose.finding import Cause, Finding
from stretto.page import head
from stretto.page.head import answer, data, finding, still, typical, verdict
from stretto.page.memory import predicted_peaks
from stretto.page.origin import predicted_bytes
from stretto.page.subject import Subject
from stretto.plan import Batch, Plan
from stretto.presets import preset
from stretto.quantities import seconds, share, size


def a_finding(cause: Cause, where: str, extra_s: float) -> Finding:
    return Finding(cause, where, (), 1.0, extra_s, 0.1, "", np.ones(1))


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
    told = "+10.0 %, median of the last 200 steps"
    assert figures(subject)["Measured step"][1:] == (told, "warn")
    assert verdict(subject, "In step 9: rank 5 is slow.").endswith(
        "(+10.0 %). In step 9: rank 5 is slow."
    )


def test_a_measured_step_says_of_how_many_steps_it_is_the_median(tmp_path: Path) -> None:
    few = figures(a_subject(tmp_path, steps=10))["Measured step"]
    assert few[1].endswith(", median of the last 7 steps")  # the first three warm up


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
    assert [data(s)["state"] for s in (done, going, idle)] == ["finished", "running", "starting"]
    assert "nothing is measured yet" in verdict(idle)
    assert going.run is not None
    silent(going.run)
    assert data(going)["state"] == "stopped"


def test_a_run_that_went_on_is_judged_by_the_steps_since(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", steps=0)
    append(run, *(record(s, step_s=9.0, tokens_per_s=1.0, mfu=0.5) for s in range(1, 61)))
    restart(run, step=60)
    subject = replace(of_run(run), predicted=None)
    assert subject.metrics is not None
    subject.metrics.read()
    assert verdict(subject).endswith("nothing is measured yet since step 60.")
    append(run, *(record(s, steps=600) for s in range(61, 91)))  # 20 ms, 25,000 tokens a second
    subject.metrics.read()
    assert "measured 20.0 ms since step 60" in verdict(subject)
    found = figures(subject)
    assert found["Tokens a second"][0] == "25.0 k" and found["MFU"][0] == "1.0 %"


def test_only_a_run_that_is_seen_to_go_on_has_time_to_go(tmp_path: Path) -> None:
    subject = a_subject(tmp_path, steps=5, planned=10)
    assert figures(subject)["Step"][1] == "of 10, 100 ms to go"  # 5 steps of 20 ms
    file = still(subject, str)
    (told,) = (f["note"] for f in file["figures"] if f["label"] == "Step")
    assert told == "of 10"
    day = r"\d{4}-\d\d-\d\d \d\d:\d\d \S+"
    assert re.fullmatch(f"not finished when this was written, {day}", file["badge"])
    assert subject.run is not None
    silent(subject.run)
    assert figures(subject)["Step"][1] == "of 10"
    assert data(subject)["badge"] == "stopped"


def test_a_file_of_a_run_that_is_finished_does_not_doubt_it(tmp_path: Path) -> None:
    assert still(a_subject(tmp_path, steps=5), str)["badge"] == "finished"


def facts(subject: Subject) -> dict[str, str]:
    return dict(data(subject)["facts"])


def test_every_predicted_number_is_said_to_be_expected_played_or_closed(tmp_path: Path) -> None:
    plan = Plan.of(dp=512, batch=Batch(sequences=1024, micro_batch=1, seq=256))
    where = Where(find("h100x512"), stack(), "modern")
    subject = of_plan("gpt2", preset("gpt2"), plan, where=where, say=lambda _: None)
    line = subject.predicted
    assert line is not None and line.straggle > 0
    told = facts(subject)["a step"]
    expected, played, closed = (
        seconds(s) for s in (subject.predicted_s, line.step_s, float(subject.estimate.time.total_s))
    )
    assert f"A step takes {expected}:" in verdict(subject)
    assert told.startswith(f"{expected} expected: {played} played and ")
    assert f" and {share(line.straggle)} lost " in told
    assert told.endswith(f"in closed form {closed}")


def test_the_predicted_memory_is_what_is_played_and_a_named_rest(tmp_path: Path) -> None:
    where = Where(find("h100x2"), stack(), "modern")
    subject = of_plan("tiny", preset("tiny"), PLAN, where=where, say=lambda _: None)
    use = subject.estimate.memory
    rest = float(use.reserve_bytes + use.fragment_bytes)
    peak = float(predicted_peaks(subject).max())
    assert predicted_bytes(subject) == pytest.approx(peak + rest)
    assert figures(subject)["Memory of a rank"][0] == size(peak + rest)
    assert facts(subject)["memory"].startswith(f"{size(peak + rest)} on the fullest rank: ")


def test_a_title_names_the_model_unless_the_run_does(tmp_path: Path) -> None:
    tiny, same = a_subject(tmp_path, steps=5), replace(a_subject(tmp_path, steps=5), title="a-tiny")
    assert data(tiny)["title"] == "run — tiny"
    assert data(same)["title"] == "a-tiny"


def test_a_tab_says_first_what_tells_it_from_others(tmp_path: Path) -> None:
    done = a_subject(tmp_path / "a", steps=5)
    going = a_subject(tmp_path / "b", steps=399, planned=400)
    idle = a_subject(tmp_path / "c", steps=0, planned=10)
    assert data(done)["tab"] == "run — tiny · Stretto"
    assert data(idle)["tab"] == "starting · run — tiny · Stretto"
    assert data(going)["tab"] == "99 % · run — tiny · Stretto"  # not done before it is
    assert going.run is not None
    silent(going.run)
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


def test_a_finding_names_the_step_that_it_is_of_and_the_largest_cause_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path / "run", steps=60)
    subject = of_run(run)
    assert subject.predicted is not None
    recording = SimpleNamespace(timeline=SimpleNamespace(finished=True, step_s=0.0447))
    vars(subject)["recorded"] = lambda step: recording
    causes = (
        a_finding(Cause.HOST, "all ranks", 0.017),
        a_finding(Cause.WRONG_CONSTANT, "memory_bandwidth", -0.5),
        a_finding(Cause.UNEXPLAINED, "vote", 0.020),
    )
    monkeypatch.setattr(head, "recorded_steps", lambda run: (30, 60))
    monkeypatch.setattr(head, "compare", lambda *_, **__: None)
    monkeypatch.setattr(head, "diagnose", lambda *_, **__: causes)
    assert finding(subject) == (
        "In step 60 (44.7 ms): 20.0 ms unexplained, most of it in vote; "
        "the hosts of all ranks keep devices waiting, which costs 17.0 ms."
    )
    recording.timeline.step_s = 1.01 * subject.predicted.step_s
    assert finding(subject).endswith(
        ": memory_bandwidth is wrong, which saves 500 ms; 20.0 ms unexplained, most of it in vote."
    )


def test_what_is_known_of_a_recording_is_not_looked_for_again(tmp_path: Path) -> None:
    subject = a_subject(tmp_path, steps=3)
    assert finding(subject) == ""
    assert answer(subject, {"known": "slow rank 1"})["finding"] == "slow rank 1"
