"""Constants are found again from steps that were simulated with them."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.calibrate.cases import cores, off, program, step, steps

from stretto.calibrate import Calibration, Evidence, calibrate, changed, evidence
from stretto.calibrate.constant import stated
from stretto.cluster import Cluster, Part, find
from stretto.errors import ClusterError, InputError

PLANS: tuple[dict[str, Any], ...] = (
    {}, {"micro_batches": 4}, {"dp": 2, "zero": 1}, {"tp": 2}, {"pp": 2, "micro_batches": 4},
)  # fmt: skip


def ranks(words: dict[str, Any]) -> int:
    return int(words.get("dp", 1) * words.get("tp", 1) * words.get("pp", 1))


def fitted(runs: list[Evidence], begin: Cluster) -> Calibration:
    return calibrate(runs, begin, source="calibrated on a day")


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(PLANS), st.integers(0, 2**32))
def test_constants_that_were_off_are_found_again(words: dict[str, Any], seed: int) -> None:
    """Recorded with 2 % of noise, from constants that are off by a third as a rule.

    The step is within 1 %; and each constant is as near as its standard error says.
    """
    draw = random.Random(seed)
    begin, what = cores(ranks(words)), program(**words)
    truth = off(begin, draw, by=0.3)
    found = fitted([evidence(what, list(steps(what, truth, draw, noise=0.02)))], begin)
    (one,) = found.steps
    assert one.after_s == pytest.approx(one.measured_s, rel=0.01)
    assert one.after_s == pytest.approx(step(what, found.cluster).step_s)
    true = stated(truth)
    for change in found.changes:
        miss = abs(math.log(change.after / true[change.name]))
        assert miss < 4.5 * max(change.error, 0.03), change.name


@settings(max_examples=6, deadline=None)
@given(st.sampled_from(PLANS[:4]), st.integers(0, 2**32))
def test_a_cluster_that_predicts_a_run_already_stays_as_it_is(
    words: dict[str, Any], seed: int
) -> None:
    begin = off(cores(ranks(words)), random.Random(seed), by=0.3)
    what = program(**words)
    found = fitted([evidence(what, [step(what, begin)])], begin)
    before, after = stated(begin), stated(found.cluster)
    for name, value in after.items():
        assert value == pytest.approx(before[name], rel=0.03), name


@settings(max_examples=4, deadline=None)
@given(st.sampled_from(PLANS[:4]), st.integers(0, 2**32))
def test_a_run_that_is_calibrated_again_changes_nothing(words: dict[str, Any], seed: int) -> None:
    """From constants that are off by a half as a rule, products faster than their peak among them.

    However often: what a run told already it does not tell once more.
    """
    draw = random.Random(seed)
    begin, what = cores(ranks(words)), program(**words)
    truth = changed(off(begin, draw, by=0.5), {"efficiency.float32": draw.uniform(0.4, 3)})
    runs = [evidence(what, list(steps(what, truth, draw, noise=0.05)))]
    once = fitted(runs, begin)
    twice = fitted(runs, once.cluster)
    before, after = stated(once.cluster), stated(twice.cluster)
    for name, value in after.items():
        assert value == pytest.approx(before[name], rel=0.02), name
    assert dict(twice.cluster.prior) == dict(once.cluster.prior) | dict(twice.cluster.prior)
    known = stated(begin)
    assert all(value == known[name] for name, value in twice.cluster.prior)


# ── single constants ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "truth"),
    [
        ({}, {"efficiency.float32": 0.4}),
        ({"micro_batches": 8, "seq": 64}, {"software.step_s": 0.02}),
        ({"seq": 1024}, {"software.attention": 0.3}),
        ({"tp": 2}, {"node.efficiency": 0.1}),
        ({"tp": 2, "seq": 32}, {"software.collective_s": 1e-3}),
        ({"dp": 2, "zero": 1, "seq": 32}, {"node.efficiency": 0.05}),
    ],
    ids=str,
)
def test_the_one_constant_that_is_off_is_the_one_that_changes_most(
    words: dict[str, Any], truth: dict[str, float]
) -> None:
    begin, what = cores(ranks(words)), program(**words)
    found = fitted([evidence(what, [step(what, changed(begin, truth))])], begin)
    ((name, value),) = truth.items()
    most = max(found.changes, key=lambda one: abs(math.log(one.after / one.before)))
    assert most.name == name
    assert most.after == pytest.approx(value, rel=0.25)


def test_what_a_run_does_not_tell_of_stays() -> None:
    begin, what = cores(2), program(tp=2)
    truth = changed(begin, {"efficiency.float32": 0.4})
    single = program()
    found = fitted([evidence(single, [step(single, truth)])], begin)
    assert found.cluster.levels == begin.levels
    assert dict(found.cluster.device.efficiency)["bfloat16"] == 0.5
    assert {"node.efficiency", "node.latency", "software.collective_s"}.isdisjoint(
        one.name for one in found.changes
    )
    both = fitted([evidence(what, [step(what, truth)])], begin)
    assert both.cluster.levels != begin.levels or "node" not in str(both.changes)


def test_products_faster_than_the_stated_peak_raise_it() -> None:
    begin, what = cores(1), program()
    truth = changed(begin, {"efficiency.float32": 1.6})
    found = fitted([evidence(what, [step(what, truth)])], begin)
    changes = {one.name: one.after for one in found.changes}
    assert changes["efficiency.float32"] == 1
    assert changes["peak.float32"] == pytest.approx(160e9, rel=0.1)


def test_one_spoilt_kind_of_work_does_not_bend_the_rest() -> None:
    begin, what = cores(1), program(micro_batches=4)
    told = evidence(what, [step(what, begin)])
    spoilt = replace(
        told,
        samples=tuple(
            replace(one, seconds=6 * one.seconds) if "embedding" in one.name else one
            for one in told.samples
        ),
    )
    for one in fitted([spoilt], begin).residuals:
        if "embedding" not in one.sample.name:
            assert one.after_s == pytest.approx(one.sample.seconds, rel=0.1), one.sample.name


def test_runs_of_several_shapes_tell_more_than_one() -> None:
    """Where launching is all of one run and nothing of the other, both tell it from products."""
    begin = cores(1)
    truth = changed(begin, {"launch": 8e-6, "efficiency.float32": 0.5})
    large, small = program(), program("tiny", seq=32)
    runs = [evidence(what, [step(what, truth)]) for what in (large, small)]
    changes = {one.name: one.after for one in fitted(runs, begin).changes}
    assert changes["launch"] == pytest.approx(8e-6, rel=0.1)
    assert changes["efficiency.float32"] == pytest.approx(0.5, rel=0.1)


def test_a_calibration_says_how_far_off_every_kind_of_work_was_and_is() -> None:
    begin, what = cores(1), program()
    truth = changed(begin, {"efficiency.float32": 0.4})
    found = fitted([evidence(what, [step(what, truth)] * 3)], begin)
    assert sum(one.share for one in found.residuals) == pytest.approx(1)
    first = found.residuals[0]
    assert first.before_s < 0.7 * first.sample.seconds
    assert first.after_s == pytest.approx(first.sample.seconds, rel=0.05)
    (one,) = found.steps
    assert (one.count, one.spread) == (3, 0)
    assert one.before_s < 0.8 * one.measured_s


# ── refused ──────────────────────────────────────────────────────────────────────────────────────


def test_a_cluster_of_several_kinds_of_device_is_refused() -> None:
    one, what = cores(2), program(dp=2)
    part = replace(one.parts[0], levels=one.levels)
    other = Part(find("h100x2").device, 2, one.levels)
    mixed = Cluster("mixed", (part, other), (*one.levels, find("h100x16").levels[-1].__class__(
        "spine", 4, 1e9, 1e-5)))  # fmt: skip
    with pytest.raises(ClusterError, match="calibrate each part by itself"):
        fitted([evidence(what, [step(what, one)])], mixed)


def test_a_cluster_smaller_than_the_run_is_refused() -> None:
    what = program(dp=2)
    with pytest.raises(InputError, match="has 1 devices for 2 ranks"):
        fitted([evidence(what, [step(what, cores(2))])], cores(1))
