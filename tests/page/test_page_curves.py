"""Curves that were thinned still say what happened."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from runs import a_run, append, record, restart

from stretto.cli.shown import of_run
from stretto.errors import InputError
from stretto.page.curves import BINS, answer, data, summary, thinned
from stretto.page.metrics import Metrics, Table

NOWHERE = Metrics(Path("/nowhere/metrics.jsonl"))


def unpacked(tree: dict[str, Any]) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(tree["base64"]), dtype=tree["dtype"])


def a_table(values: NDArray[np.float64], *, first: int = 1) -> Table:
    step = np.arange(first, first + len(values), dtype=np.float64)
    return Table(
        len(values),
        {"step": step, "tokens": 10 * step, "step_s": np.ones(len(values)), "loss": values},
    )


def curve(found: dict[str, Any], part: str) -> NDArray[np.float64]:
    return unpacked(found["columns"]["loss"][part]).astype(np.float64)


@given(st.integers(1, 20_000), st.integers(0, 2**32 - 1))
def test_a_thinned_curve_has_the_lowest_the_highest_and_the_mean_of_every_bin(
    rows: int, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=rows).astype(np.float32).astype(np.float64)
    values[np.random.default_rng(seed).random(rows) < 0.01] = np.nan
    found = thinned("run", NOWHERE, a_table(values))
    size = found["size"]
    assert 3 * -(-rows // size) <= 4000
    assert size == 1 or rows / (size / 2) > BINS - 1  # no coarser than it must be
    if np.isfinite(values).sum() * 2 <= rows:
        return
    for i in range(-(-rows // size)):
        part = values[i * size : (i + 1) * size]
        part = part[np.isfinite(part)]
        mean = curve(found, "mean")[i]
        if not len(part):
            assert np.isnan(mean)
        elif size > 1:
            assert curve(found, "low")[i] == part.min()
            assert curve(found, "high")[i] == part.max()
            np.testing.assert_allclose(mean, part.mean(), rtol=1e-4, atol=1e-6)
        else:
            assert mean == part[0]


def test_one_wild_step_among_a_million_is_seen() -> None:
    values = np.ones(1_000_000)
    values[765_432] = 1000.0
    found = thinned("run", NOWHERE, a_table(values))
    high = curve(found, "high")
    assert found["size"] == 1024  # 1,000,000 / 1,024 = 976.6 bins; half of that would be 1,954
    assert high.max() == 1000.0
    assert high.argmax() == 765_432 // 1024


@given(st.integers(1400, 3000), st.integers(1, 500))
def test_bins_stay_what_they_are_while_a_run_goes_on(rows: int, more: int) -> None:
    values = np.sin(np.arange(rows + more))
    before = thinned("run", NOWHERE, a_table(values[:rows]))
    after = thinned("run", NOWHERE, a_table(values))
    if before["size"] == after["size"]:
        whole = rows // before["size"]
        np.testing.assert_array_equal(curve(before, "mean")[:whole], curve(after, "mean")[:whole])


def test_a_part_of_a_long_curve_is_as_fine_as_there_is_room_for() -> None:
    values = np.arange(100_000, dtype=np.float64)
    found = thinned("run", NOWHERE, a_table(values), first=50_000, last=50_999)
    assert found["size"] == 1
    assert curve(found, "mean").tolist() == list(range(49_998, 51_000))  # and one on each side
    assert unpacked(found["x"]["tokens"])[0] == 10 * 49_999


def test_time_is_that_of_all_steps_so_far() -> None:
    found = thinned("run", NOWHERE, a_table(np.ones(10)))
    assert unpacked(found["x"]["elapsed_s"]).tolist() == list(range(1, 11))


def test_values_that_are_rare_keep_their_own_places() -> None:
    values = np.full(1000, np.nan)
    values[99::100] = np.arange(10)
    found = thinned("run", NOWHERE, a_table(values))
    rare = found["sparse"]["loss"]
    assert unpacked(rare["x"]["step"]).tolist() == list(range(100, 1001, 100))
    assert unpacked(rare["mean"]).tolist() == list(range(10))


def test_the_newest_value_is_that_of_the_last_step_however_much_is_thinned_or_left_out() -> None:
    values = np.arange(100_000, dtype=np.float64)
    assert thinned("run", NOWHERE, a_table(values))["newest"]["loss"] == 99_999
    assert thinned("run", NOWHERE, a_table(values), last=50)["newest"]["loss"] == 99_999
    values[-2:] = np.nan
    assert thinned("run", NOWHERE, a_table(values))["newest"]["loss"] == 99_997


def test_a_run_that_has_not_begun_has_curves_of_nothing() -> None:
    found = thinned("run", NOWHERE, Table())
    assert (found["rows"], found["columns"], found["x"]["step"]["shape"]) == (0, {}, [0])


# ── of a run ─────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_has_no_curves(tmp_path: Path) -> None:
    subject = of_run(a_run(tmp_path / "run", steps=3))
    assert data(replace(subject, metrics=None)) is None


def test_what_was_foretold_is_consistent(tmp_path: Path) -> None:
    subject = of_run(a_run(tmp_path / "run", steps=3))
    assert subject.metrics is not None
    subject.metrics.read()
    found = data(subject)
    assert found is not None
    (step,), (tokens,) = (found["runs"][0]["foretold"][k] for k in ("step_s", "tokens_per_s"))
    assert step[:2] == tokens[:2] == [1, 3]
    # 8 sequences of 64 positions are 512 tokens a step.
    assert step[2] * tokens[2] == pytest.approx(512)
    assert [chart["id"] for chart in found["charts"]][:2] == ["loss", "norm"]


def test_each_part_of_a_run_has_the_prediction_of_its_own_plan(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", steps=0)
    append(run, *(record(s, predicted_s=0.01) for s in range(1, 41)))
    append(run, *(record(s, predicted_s=0.005) for s in range(41, 61)))
    restart(run, step=60)
    append(run, *(record(s, predicted_s=0.5) for s in range(61, 71)))
    subject = of_run(run)
    found = answer(subject, {})["foretold"]
    # The page foretells the plan of the last part by itself.
    assert found["step_s"] == [[1, 40, 0.01], [41, 60, 0.005], [61, 70, subject.predicted_s]]
    # 25,000 tokens a second in steps of 20 ms are 500 tokens; 1 % MFU of 20 ms is 2 % of 10 ms.
    speeds = [value for _, _, value in found["tokens_per_s"]]
    assert speeds[:2] == pytest.approx([500 / 0.01, 500 / 0.005])
    assert [value for _, _, value in found["mfu"]][:2] == pytest.approx([0.02, 0.04])
    assert [piece[:2] for piece in found["memory_bytes"]] == [[61, 70]]


def test_a_run_beside_is_foretold_by_what_it_wrote_down(tmp_path: Path) -> None:
    for name, told in (("a", {}), ("b", {"predicted_s": 0.01})):
        append(
            a_run(tmp_path / name, steps=0, planned=9), *(record(s, **told) for s in range(1, 5))
        )
    subject = of_run(tmp_path / "a", others=[("b", Metrics(tmp_path / "b" / "metrics.jsonl"))])
    assert answer(subject, {"of": "b"})["foretold"]["step_s"] == [[1, 4, 0.01]]
    nobody = replace(subject, title="c", others=(("a", Metrics(tmp_path / "a" / "metrics.jsonl")),))
    assert answer(nobody, {"of": "a"})["foretold"] == {}


def test_a_run_beside_that_was_priced_has_every_prediction_that_the_run_itself_has(
    tmp_path: Path,
) -> None:
    one, other = (of_run(a_run(tmp_path / name, steps=3)) for name in "ab")
    assert other.metrics is not None
    both = replace(one, others=(("b", other.metrics),), beside=("b",), rivals=(other,))
    own = answer(other, {})["foretold"]
    assert "memory_bytes" in own
    assert answer(both, {"of": "b"})["foretold"] == own


def test_runs_are_compared_by_their_last_losses_and_the_steps_since_their_last_start() -> None:
    values = np.full(60, np.nan)
    columns = {
        "step": np.arange(1.0, 61.0),
        "loss": np.linspace(6, 5, 60),
        "valid_loss": np.where(np.arange(60) == 23, 5.106, values),
        "step_s": np.where(np.arange(60) < 40, 9.0, 0.04),
        "tokens_per_s": np.where(np.arange(60) < 40, 1.0, 100.0),
    }
    assert summary(Table(60, columns), since=40) == {
        "loss": 5.0, "loss_step": 60.0, "valid_loss": 5.106, "valid_loss_step": 24.0,
        "step_s": 0.04, "tokens_per_s": 100.0, "step": 60.0,
    }  # fmt: skip
    assert set(summary(Table(), since=0).values()) == {None}


def test_a_column_that_nobody_foresaw_has_a_chart_of_its_own(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", steps=3)
    text = (run / "metrics.jsonl").read_text().replace('"norm"', '"surprise": 1.0, "norm"')
    (run / "metrics.jsonl").write_text(text)
    subject = of_run(run)
    found = answer(subject, {})
    assert found["charts"][-1] == {
        "id": "surprise",
        "title": "surprise",
        "unit": "number",
        "curves": [{"column": "surprise", "label": "surprise"}],
    }


def test_a_run_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    subject = of_run(a_run(tmp_path / "run", steps=3))
    with pytest.raises(KeyError):
        answer(subject, {"of": "../run"})


@pytest.mark.parametrize("name", ["from", "to"])
def test_a_step_that_is_no_number_is_refused(tmp_path: Path, name: str) -> None:
    subject = of_run(a_run(tmp_path / "run", steps=3))
    with pytest.raises(InputError, match=f"{name}: is 'x', which is no number"):
        answer(subject, {name: "x"})
