"""The published rows: how well they are predicted, and that the page says so."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest
from fidelity.page import LEFT_OUT, ROWS, page
from fidelity.plot import scatter, strips

from stretto.fidelity.predict import Prediction, predict
from stretto.fidelity.rows import read
from stretto.fidelity.score import Score, by_source, score

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def predictions() -> tuple[Prediction, ...]:
    return predict(read(ROWS))


@pytest.fixture(scope="module")
def everything(predictions: tuple[Prediction, ...]) -> Score:
    return score(predictions)


def test_the_rows_are_those_that_were_published(predictions: tuple[Prediction, ...]) -> None:
    assert Counter(p.row.status for p in predictions) == {"ok": 1052, "OOM": 264}
    assert len({p.row.source for p in predictions}) == 14
    assert len({p.row.id for p in predictions}) == 1316


def test_every_row_that_ran_has_an_error_unless_it_reports_memory_alone(
    predictions: tuple[Prediction, ...],
) -> None:
    without = [p for p in predictions if p.error is None and p.row.status == "ok"]
    assert {p.row.tree["measurement_kind"] for p in without} == {"memory_only"}


def test_throughput_is_within_5_percent_by_median_and_15_at_the_90th_percentile(
    everything: Score,
) -> None:
    assert everything.throughput.n == 1036
    assert everything.throughput.median is not None and everything.throughput.median <= 0.05
    assert everything.throughput.p90 is not None and everything.throughput.p90 <= 0.15


def test_no_source_of_ten_rows_or_more_is_biased_by_more_than_8_percent(
    predictions: tuple[Prediction, ...],
) -> None:
    biases = {k: s.throughput.bias for k, s in by_source(predictions).items()
              if s.throughput.n >= 10}  # fmt: skip
    assert len(biases) == 13
    assert {k: b for k, b in biases.items() if b is None or abs(b) > 0.08} == {}


def test_of_plans_that_ran_2_percent_at_most_are_refused_and_of_others_85_are_found(
    everything: Score,
) -> None:
    f = everything.fitting
    assert f.refused / f.ran <= 0.02
    assert f.found / f.oom >= 0.85


def test_peak_memory_is_within_8_percent_by_median(everything: Score) -> None:
    assert everything.peak.n == 72
    assert everything.peak.median is not None and everything.peak.median <= 0.08


def test_in_80_percent_of_groups_the_pick_is_the_best_or_within_2_percent(
    everything: Score,
) -> None:
    assert everything.ranking.groups >= 50
    assert everything.ranking.right / everything.ranking.groups >= 0.80


def test_the_page_says_what_the_code_gives(predictions: tuple[Prediction, ...]) -> None:
    assert (DOCS / "fidelity.md").read_text("utf-8") == page(predictions), "run make fidelity"


def test_the_page_misses_nothing_that_it_aims_at() -> None:
    assert "**missed**" not in (DOCS / "fidelity.md").read_text("utf-8")


def test_what_was_left_out_are_the_sources_of_the_rows(
    predictions: tuple[Prediction, ...],
) -> None:
    import json

    left_out = json.loads(LEFT_OUT.read_text("utf-8"))["sources"]
    timed = Counter(p.row.source for p in predictions if p.error is not None and p.row.tokens_per_s)
    assert {name: one["n"] for name, one in left_out.items()} == timed


def test_the_pictures_have_a_point_for_every_row_and_both_colour_schemes(
    predictions: tuple[Prediction, ...],
) -> None:
    tokens = sum(1 for p in predictions if p.error is not None and p.row.tokens_per_s)
    timed = sum(1 for p in predictions if p.error is not None)
    for text, points in ((scatter(predictions), tokens), (strips(predictions), timed)):
        root = ET.fromstring(text)
        circles = [e for e in root.iter() if e.tag.endswith("circle") and e.get("r") != "5"]
        assert len(circles) == points
        assert "prefers-color-scheme: dark" in text
    for name in ("fidelity", "fidelity-sources"):
        assert f"img/{name}.svg" in (DOCS / "fidelity.md").read_text("utf-8")
        ET.parse(DOCS / f"img/{name}.svg")
