"""Constants go into a cluster and its file, and come out again."""

from __future__ import annotations

import random
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.calibrate.cases import DTYPE, cores, off

from stretto.calibrate import changed, constants
from stretto.calibrate.constant import as_file, rounded, stated
from stretto.cluster import dumps, find, read
from stretto.cost.stacks import own, stack
from stretto.errors import ClusterError, InputError


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(("cpux1", "cpux2", "h100x64", "frontier")))
def test_what_is_put_into_a_cluster_comes_out_of_it(seed: int, name: str) -> None:
    cluster, draw = find(name), random.Random(seed)
    values = {
        one.name: one.value * draw.uniform(0.5, 1.0) for one in constants(cluster, dtype="bfloat16")
    }
    found = {one.name: one.value for one in constants(changed(cluster, values), dtype="bfloat16")}
    assert found == pytest.approx(values)


def test_a_cluster_with_nothing_new_is_the_same_but_for_what_it_now_states() -> None:
    cluster = find("h100x16")
    same = changed(cluster, {one.name: one.value for one in constants(cluster, dtype="bfloat16")})
    assert (same.parts, same.levels) == (cluster.parts, cluster.levels)
    assert {n: float(getattr(own(cluster), n)) for n, _ in same.software} == dict(same.software)


def test_only_products_in_the_precision_of_the_run_are_told_of() -> None:
    names = [one.name for one in constants(cores(1), dtype="bfloat16")]
    assert [name for name in names if name.startswith("efficiency.")] == ["efficiency.bfloat16"]


def test_a_share_above_1_is_a_higher_peak() -> None:
    found = changed(cores(2), {"efficiency.float32": 1.5, "node.efficiency": 2.0})
    assert dict(found.device.flops_per_s)["float32"] == pytest.approx(150e9)
    assert dict(found.device.efficiency)["float32"] == 1
    assert (found.levels[0].bytes_per_s, found.levels[0].efficiency) == (10e9, 1)
    assert found.device.sustained_flops_per_s("float32") == pytest.approx(150e9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_a_fitted_file_gives_the_cluster_back(seed: int) -> None:
    cluster = cores(2)
    values = stated(off(cluster, random.Random(seed), by=0.5))
    named = {one.name: values[one.name] for one in constants(cluster, dtype=DTYPE)}
    fitted = as_file(cluster, named, source="calibrated on a day")
    assert read(tomllib.loads(dumps(fitted)), where="file") == fitted


def test_a_file_has_four_digits_of_what_was_fitted_and_says_where_it_is_from() -> None:
    values = {"efficiency.float32": 1.23456789, "node.latency": 1.23456789e-5}
    found = as_file(cores(2), values, source="calibrated on a day")
    text = dumps(found)
    assert 'float32 = "123.5GFLOP/s"' in text
    assert 'latency = "12.35us"' in text
    assert dict(found.device.sources)["peak"] == "calibrated on a day"
    assert "memory_bandwidth" not in dict(found.device.sources)
    assert found.levels[0].source.endswith("; calibrated on a day")


def test_a_second_calibration_replaces_what_the_first_said() -> None:
    once = as_file(cores(2), {"node.latency": 1e-5}, source="calibrated on monday")
    twice = as_file(once, {"node.latency": 2e-5}, source="calibrated on tuesday")
    assert "monday" not in twice.levels[0].source
    assert twice.levels[0].source.endswith("default, see docs/fidelity.md; calibrated on tuesday")


def test_quantities_are_rounded_as_a_file_spells_them() -> None:
    assert rounded("launch", 2.352001e-06) == 2.352 * 1e-6
    assert rounded("memory_bandwidth", 4.91234e9) == 4.912 * 1e9
    assert rounded("software.attention", 0.36657) == 0.3666


def test_our_runtime_is_as_it_was_measured_on_a_cluster_and_else_as_everywhere() -> None:
    usual, here = own(cores(2)), own(changed(cores(2), {"software.attention": 0.25}))
    assert float(here.attention) == 0.25
    assert float(here.kernels) == float(usual.kernels)
    assert usual == stack("stretto-cpu")
    assert own(find("h100x8")) == stack("stretto")


def test_software_that_there_is_not_is_refused_with_the_nearest_name() -> None:
    wrong = changed(cores(1), {"software.atention": 1.0})
    with pytest.raises(InputError, match="did you mean attention"):
        own(wrong)


def test_a_file_may_not_state_software_below_0() -> None:
    text = dumps(cores(1)) + "\n[software]\nattention = -1\n"
    with pytest.raises(ClusterError, match=r"software\.attention: is -1, below 0"):
        read(tomllib.loads(text), where="file")
