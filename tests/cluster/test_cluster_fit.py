"""Fitting finds the constants that measurements were made with, and leaves the others alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretto.cluster import Cluster, Device, Fit, Level, Part, Power, Sample, find, fit
from stretto.cluster.sample import seconds
from stretto.errors import ClusterError

DEVICE = Device(
    "D", 80e9, 2.039e12, (("float32", 19.5e12), ("bfloat16", 312e12)), 108, (128, 256, 32),
    (("float32", 0.9), ("bfloat16", 0.85)), Power(60, 280, 400), 3.0, 5e-6, "made up",
)  # fmt: skip
LEVELS = (
    Level("node", 8, 300e9, 1.9e-6, efficiency=0.8),
    Level("spine", 64, 25e9, 4e-6, efficiency=0.85),
)
GUESS = Cluster("Guess", (Part(DEVICE, 64),), LEVELS)


def truth(*, matrix: float, node: float, spine: float, slower: float) -> Cluster:
    """Give the guess with other constants."""
    device = replace(
        GUESS.device,
        efficiency=tuple((n, matrix if n == "bfloat16" else v) for n, v in GUESS.device.efficiency),
        memory_bytes_per_s=GUESS.device.memory_bytes_per_s * 0.9,
        launch_s=GUESS.device.launch_s * slower,
    )
    inner, outer = GUESS.levels
    levels = (
        replace(inner, efficiency=node, latency_s=inner.latency_s * slower),
        replace(outer, efficiency=spine, latency_s=outer.latency_s * slower),
    )
    return replace(GUESS, parts=(replace(GUESS.parts[0], device=device),), levels=levels)


def plans() -> list[Sample]:
    """Give what one would measure: every kind, small and large, within and across nodes."""
    sides = (256, 1024, 2048, 4096, 8192)
    sizes = [2.0**power for power in range(10, 31, 4)]
    found = [Sample("matrix", 1, shape=(a, b, 4096)) for a in sides for b in sides]
    found += [Sample("memory", 1, size_bytes=size) for size in sizes]
    for size in sizes:
        found += [Sample("all_reduce", 1, size_bytes=size, ranks=8)]
        found += [Sample("all_gather", 1, size_bytes=size, ranks=8, stride=8)]
        found += [Sample("reduce_scatter", 1, size_bytes=size, ranks=64)]
        found += [Sample("all_to_all", 1, size_bytes=size, ranks=16)]
        found += [Sample("send", 1, size_bytes=size, ranks=2, stride=s) for s in (1, 8)]
    return found


def measured(cluster: Cluster, noise: Callable[[], float]) -> list[Sample]:
    return [replace(s, seconds=seconds(cluster, s) * noise()) for s in plans()]


def after(found: Fit) -> dict[str, float]:
    return {change.name: change.after for change in found.changes}


@settings(max_examples=15)  # each is a fit
@given(
    matrix=st.floats(0.3, 0.99), node=st.floats(0.3, 0.99), spine=st.floats(0.3, 0.99),
    slower=st.floats(0.5, 4),
)  # fmt: skip
def test_exact_measurements_give_the_constants_back(
    matrix: float, node: float, spine: float, slower: float
) -> None:
    true = truth(matrix=matrix, node=node, spine=spine, slower=slower)
    found = fit(GUESS, measured(true, lambda: 1.0))
    assert after(found) == pytest.approx(
        {
            "efficiency.bfloat16": matrix,
            "memory_bytes_per_s": GUESS.device.memory_bytes_per_s * 0.9,
            "launch_s": GUESS.device.launch_s * slower,
            "level.node.efficiency": node,
            "level.node.latency_s": GUESS.levels[0].latency_s * slower,
            "level.spine.efficiency": spine,
            "level.spine.latency_s": GUESS.levels[1].latency_s * slower,
        },
        rel=0.01,
    )
    assert max(abs(r.error) for r in found.residuals) < 0.01


@settings(max_examples=15)
@given(st.integers(0, 2**32))
def test_noisy_measurements_give_the_constants_within_their_errors(seed: int) -> None:
    true = truth(matrix=0.7, node=0.6, spine=0.9, slower=2.0)
    source = random.Random(seed)
    found = fit(GUESS, measured(true, lambda: source.lognormvariate(0, 0.05)))
    exact = after(fit(GUESS, measured(true, lambda: 1.0)))
    for change in found.changes:
        assert change.after == pytest.approx(exact[change.name], rel=0.15)
        assert 0 < change.error < 0.1


def test_one_spoilt_measurement_bends_the_rest_little() -> None:
    true = truth(matrix=0.7, node=0.6, spine=0.9, slower=2.0)
    samples = measured(true, lambda: 1.0)
    spoilt = [replace(samples[24], seconds=samples[24].seconds * 20), *samples[1:]]
    found = fit(GUESS, spoilt)
    assert after(found)["efficiency.bfloat16"] == pytest.approx(0.7, rel=0.03)


def test_constants_that_no_sample_tells_of_stay_and_those_that_were_fitted_say_so() -> None:
    samples = [Sample("matrix", 2 * 8192**3 / 200e12, shape=(8192, 8192, 8192))]
    found = fit(GUESS, samples)
    assert {change.name for change in found.changes} == {"efficiency.bfloat16", "launch_s"}
    assert found.cluster.levels == GUESS.levels
    assert dict(found.cluster.device.sources)["efficiency"] == "fitted to 1 measurements"
    assert found.cluster.device.memory_bytes_per_s == GUESS.device.memory_bytes_per_s


def test_a_change_says_what_it_was_before() -> None:
    found = fit(GUESS, [Sample("send", 1.0, size_bytes=10e9, ranks=2, stride=8)])
    before = {change.name: change.before for change in found.changes}
    assert before == {"level.spine.efficiency": 0.85, "level.spine.latency_s": 4e-6}
    # 10 GB in a second, of 25 GB/s.
    assert after(found)["level.spine.efficiency"] == pytest.approx(0.4, rel=0.01)


def test_another_prediction_may_be_fitted() -> None:
    def slow(cluster: Cluster, sample: Sample) -> float:
        return 2 * seconds(cluster, sample)

    found = fit(GUESS, [Sample("send", 1.0, size_bytes=5e9, ranks=2, stride=8)], predict=slow)
    assert after(found)["level.spine.efficiency"] == pytest.approx(0.4, rel=0.01)


def test_a_residual_is_predicted_over_measured_less_one() -> None:
    two = [Sample("send", t, size_bytes=10e9, ranks=2, stride=8) for t in (1.0, 1.21)]
    errors = [residual.error for residual in fit(GUESS, two).residuals]
    assert errors == pytest.approx([0.1, -1 / 11], abs=0.01)


def test_all_that_cannot_be_fitted_is_listed() -> None:
    with pytest.raises(ClusterError) as caught:
        fit(GUESS, [
            Sample("send", 0.0, ranks=2, stride=8), Sample("all_reduce", 1.0, ranks=65),
            Sample("matrix", 1.0, precision="float8"), Sample("all_gather", 1.0),
        ])  # fmt: skip
    assert str(caught.value).splitlines() == [
        "samples[0].seconds: is 0, not above 0; leave out what was not measured",
        "samples[1].ranks: span 65 devices of 64; fit a cluster with as many",
        "samples[2].precision: D has no float8; use float32, bfloat16",
        "samples[3].ranks: is 1, but a message needs two; state how many took part",
    ]
    with pytest.raises(ClusterError, match="samples: there are none; measure something"):
        fit(GUESS, [])
    with pytest.raises(ClusterError, match="Two-Sites has 2 kinds of device; fit each part"):
        fit(find("two-sites"), [Sample("memory", 1.0, size_bytes=1.0)])


# ── how long a sample takes, by hand ─────────────────────────────────────────────────────────────

NODE, SPINE = (level.share_bytes_per_s for level in GUESS.levels)  # 240 GB/s, 21.25 GB/s


def test_a_ring_within_a_node_moves_all_but_a_rank_s_share_twice() -> None:
    took = seconds(GUESS, Sample("all_reduce", 1, size_bytes=8e9, ranks=8))
    assert took == pytest.approx(2 * (7 * 1.9e-6 + 7e9 / 240e9))


def test_across_nodes_only_what_a_node_has_reduced_moves() -> None:
    took = seconds(GUESS, Sample("reduce_scatter", 1, size_bytes=8e9, ranks=64))
    inside = 7 * 1.9e-6 + 7e9 / 240e9
    outside = 7 * 4e-6 + 7 / 8 * 1e9 / 21.25e9
    assert took == pytest.approx(inside + outside)


def test_ranks_a_node_apart_never_use_the_node() -> None:
    took = seconds(GUESS, Sample("all_gather", 1, size_bytes=8e9, ranks=8, stride=8))
    assert took == pytest.approx(7 * 4e-6 + 7e9 / 21.25e9)


def test_in_an_all_to_all_each_peer_s_share_takes_its_own_link() -> None:
    took = seconds(GUESS, Sample("all_to_all", 1, size_bytes=16e9, ranks=16))
    assert took == pytest.approx(7 * 1.9e-6 + 7e9 / 240e9 + 8 * 4e-6 + 8e9 / 21.25e9)


def test_a_product_takes_whole_waves_of_tiles() -> None:
    # 108 units of 128 × 256: a row of tiles more is a wave more.
    one = seconds(GUESS, Sample("matrix", 1, shape=(128 * 54, 512, 8192)))
    two = seconds(GUESS, Sample("matrix", 1, shape=(128 * 55, 512, 8192)))
    assert two - 5e-6 == pytest.approx(2 * (one - 5e-6))
    flops = 2 * 128 * 108 * 256 * 8192
    assert one == pytest.approx(5e-6 + flops / (312e12 * 0.85))


def test_a_shallow_product_is_bound_by_memory() -> None:
    took = seconds(GUESS, Sample("matrix", 1, shape=(8192, 8192, 16)))
    assert took == pytest.approx(5e-6 + 2 * (8192 * 8192 + 2 * 8192 * 16) / 2.039e12)


def test_a_copy_takes_its_bytes_over_the_bandwidth() -> None:
    took = seconds(GUESS, Sample("memory", 1, size_bytes=2.039e12))
    assert took == pytest.approx(1 + 5e-6)
