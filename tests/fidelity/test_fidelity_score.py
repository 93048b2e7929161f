"""Scores of small cases that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
from tests.fidelity.cases import prediction

from stretto.errors import Problem
from stretto.fidelity.ranking import ranking, spearman
from stretto.fidelity.score import by_source, quantile, score, tree, weights


def test_an_error_is_predicted_over_measured_less_one() -> None:
    assert prediction(110, 100).error == pytest.approx(0.1)
    assert prediction(80, 100).error == pytest.approx(-0.2)


def test_a_row_that_ran_out_of_memory_has_no_error_of_throughput() -> None:
    assert prediction(110, None).error is None


def test_bias_keeps_the_sign_that_median_and_mean_drop() -> None:
    one = score([prediction(p, 100) for p in (70, 90, 98, 104, 120)]).throughput
    assert one.n == 5
    assert one.bias == pytest.approx(-0.02)  # of −30, −10, −2, 4, 20 %
    assert one.median == pytest.approx(0.10)  # of 2, 4, 10, 20, 30 %
    assert one.mean == pytest.approx(0.132)  # 66 % / 5


def test_a_quantile_of_equal_weights_interpolates_between_middles() -> None:
    # four values stand at 1/8, 3/8, 5/8 and 7/8
    assert quantile([4, 1, 3, 2], 0.5, [1, 1, 1, 1]) == pytest.approx(2.5)
    assert quantile([4, 1, 3, 2], 0.875, [1, 1, 1, 1]) == pytest.approx(4)
    assert quantile([4, 1, 3, 2], 0.99, [1, 1, 1, 1]) == pytest.approx(4)


def test_a_heavy_value_is_the_median() -> None:
    assert quantile([1, 2, 100], 0.5, [1, 1, 98]) == pytest.approx(100, rel=0.02)


def test_each_source_each_table_in_it_and_each_configuration_in_that_weighs_the_same() -> None:
    rows = [
        prediction(1, 1, source="a", group="a/t", plan="c1"),
        prediction(1, 1, source="a", group="a/t", plan="c1"),
        prediction(1, 1, source="a", group="a/t", plan="c2"),
        prediction(1, 1, source="a", group="a/u", plan="c3"),
        prediction(1, 1, source="b", group="b", plan="c4"),
    ]
    assert weights(rows) == pytest.approx([1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2])
    assert sum(weights(rows)) == pytest.approx(1)


def test_out_of_memory_is_counted_both_ways() -> None:
    f = score(
        [
            prediction(1, 1),
            prediction(1, 1, fits=False),
            prediction(1, 1),
            prediction(1, None, fits=False),
            prediction(1, None, fits=True),
        ]
    ).fitting
    assert (f.ran, f.refused, f.oom, f.found) == (3, 1, 2, 1)


def test_peak_memory_is_scored_where_it_is_reported() -> None:
    peaks = [prediction(1, 1, peak=p, peak_bytes=10e9) for p in (9e9, 10e9, 12e9)]
    one = score([*peaks, prediction(1, 1, peak=5e9)]).peak
    assert (one.n, one.median) == (3, pytest.approx(0.1))


def test_sources_are_scored_apart() -> None:
    both = by_source([prediction(110, 100, source="a"), prediction(80, 100, source="b")])
    assert {k: round(v.throughput.bias or 0, 3) for k, v in both.items()} == {"a": 0.1, "b": -0.2}


# ── ranking ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 − 6·4/(5·24)
        ([1, 2, 2, 3], [1, 2, 3, 4], 4.5 / math.sqrt(4.5 * 5)),  # ties share a rank
        ([1, 1, 1], [1, 2, 3], 0.0),
    ],
)
def test_rank_correlation(a: list[float], b: list[float], wanted: float) -> None:
    assert spearman(a, b) == pytest.approx(wanted)


def test_a_pick_within_two_percent_of_the_best_is_right() -> None:
    right = [prediction(10, 99, plan="c1"), prediction(9, 100, plan="c2")]
    wrong = [prediction(10, 90, plan="c1", source="b", tree={"n_gpus": 32}),
             prediction(9, 100, plan="c2", source="b", tree={"n_gpus": 32})]  # fmt: skip
    r = ranking([*right, *wrong])
    assert (r.groups, r.right) == (2, 1)
    assert r.loss == pytest.approx((0.01 + 0.10) / 2)


def test_rows_that_differ_in_more_than_the_plan_are_not_ranked() -> None:
    for name, value in (
        ("precision", "fp8"), ("hardware", "H100-80GB"), ("gbs", 128), ("hidden", 4096),
        ("software_version", "2"), ("attention_kernel", "flash"), ("n_experts", 8),
        ("model_extra", "MLA"), ("framework", "torchtitan"), ("n_gpus", 8),
        ("config_extra", {"torch_compile": True}),
    ):  # fmt: skip
        rows = [prediction(1, 1, plan="c1"), prediction(2, 2, plan="c2", tree={name: value})]
        assert ranking(rows).groups == 0, name


def test_rows_that_differ_in_plan_only_are_ranked() -> None:
    for name, value in (
        ("tp", 4), ("recompute", "full"), ("mbs", 4), ("dp_sharding", "zero3"),
        ("schedule", "zb-v"), ("config_extra", {"async_tp": True}),
    ):  # fmt: skip
        rows = [prediction(1, 1, plan="c1"), prediction(2, 2, plan="c2", tree={name: value})]
        assert (ranking(rows).groups, ranking(rows).right) == (1, 1), name


def test_repeats_of_one_plan_are_no_choice() -> None:
    assert ranking([prediction(1, 1, plan="c1"), prediction(2, 2, plan="c1")]).groups == 0


def test_plans_that_are_predicted_alike_share_what_they_measured() -> None:
    rows = [prediction(5, 100, plan="c1"), prediction(5, 90, plan="c2")]
    assert ranking(rows).loss == pytest.approx(0.05)


def test_a_pick_that_runs_out_of_memory_is_wrong_and_one_that_is_foreseen_is_not_picked() -> None:
    ran = [prediction(5, 100, plan="c1"), prediction(4, 90, plan="c2")]
    missed = prediction(9, None, plan="c3", fits=True)
    foreseen = prediction(9, None, plan="c3", fits=False)
    assert (ranking([*ran, missed]).right, ranking([*ran, missed]).safe) == (1, 0)
    assert (ranking([*ran, foreseen]).right, ranking([*ran, foreseen]).safe) == (1, 1)


def test_groups_of_three_or_more_are_counted_apart_and_give_the_rank_correlation() -> None:
    two = [prediction(1, 1, plan="c1"), prediction(2, 2, plan="c2")]
    assert ranking(two).spearman is None
    three = [prediction(p, m, plan=f"c{p}", tree={"gbs": 8}) for p, m in ((1, 1), (2, 3), (3, 2))]
    r = ranking([*two, *three])
    assert (r.groups, r.large, r.large_right) == (2, 1, 0)
    assert r.spearman == pytest.approx(0.5)


# ── as JSON ──────────────────────────────────────────────────────────────────────────────────────


def test_the_object_names_what_is_wrong_with_rows_that_were_left_out() -> None:
    made = tree([prediction(110, 100)], [Problem("f:2", "is not JSON", "mend that line")])
    assert made["summary"]["rejected"] == 1
    assert made["rejected"] == [{"field": "f:2", "rule": "is not JSON", "remedy": "mend that line"}]
    assert made["sources"]["a"]["n"] == made["summary"]["n"] == 1


def test_a_row_of_the_object_has_all_that_was_asked_for() -> None:
    made = tree([prediction(110, 100, fits=False, peak=7.0)])["rows"][0]
    assert made == {
        "id": "a-1", "source_key": "a", "group": "a/t", "predicted": 110, "measured": 100,
        "error": pytest.approx(0.1), "unit": "tokens/s", "status": "ok", "fits": False,
        "peak_bytes_predicted": 7.0, "peak_bytes_measured": None, "assumed": [],
        "stack": "megatron-core-2024",
    }  # fmt: skip
