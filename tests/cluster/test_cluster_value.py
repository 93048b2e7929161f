"""Clusters are values that check themselves, and give the same system with other numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.cluster import LEVELS, Cluster, Device, Level, Part, Power, find, names
from stretto.cluster.link import common, resized
from stretto.errors import ClusterError

DEVICE = Device(
    "D", 80e9, 2e12, (("float32", 20e12), ("bfloat16", 300e12)), 100, (128, 128, 64),
    (("float32", 0.9), ("bfloat16", 0.8)), Power(50, 250, 400), 2.0, 5e-6, "made up",
)  # fmt: skip
SLOW = replace(DEVICE, name="S", flops_per_s=(("bfloat16", 100e12),), efficiency=(("bfloat16", 1),))
NODE = Level("node", 8, 300e9, 2e-6)
SPINE = Level("spine", 64, 25e9, 4e-6, sharers=8, oversubscription=2.0, efficiency=0.8)
CLUSTER = Cluster("C", (Part(DEVICE, 64),), (NODE, SPINE))
WIDE = Level("wide", 96, 1e9, 0.02, sharers=64)
NEAR = Part(DEVICE, 64, (NODE, SPINE))
FAR = Part(SLOW, 32, (replace(NODE, devices=4, bytes_per_s=30e9), replace(SPINE, devices=32)))
UNEVEN = Cluster("U", (NEAR, FAR), (*common([NEAR.levels, FAR.levels]), WIDE))


@st.composite
def trees(draw: st.DrawFn) -> tuple[Level, ...]:
    chosen = draw(st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4, unique=True))
    levels: list[Level] = []
    size = 1
    for name in sorted(chosen, key=LEVELS.index):
        size *= draw(st.integers(2, 5))
        speed = draw(st.floats(1e6, 1e12))
        latency = draw(st.floats(0, 1e-3))
        levels.append(Level(name, size, speed, latency, sharers=draw(st.integers(1, size))))  # type: ignore[arg-type]
    return tuple(levels)


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────


@given(trees(), st.integers(1, 700))
def test_a_tree_of_any_size_holds_exactly_its_devices(tree: tuple[Level, ...], size: int) -> None:
    cluster = Cluster("x", (Part(DEVICE, size),), resized(tree, size))
    assert cluster.devices == size
    assert (cluster.levels == ()) == (size == 1)


@given(trees(), st.integers(2, 700), st.data())
def test_resizing_twice_is_resizing_once(
    tree: tuple[Level, ...], size: int, data: st.DataObject
) -> None:
    smaller = data.draw(st.integers(1, size))
    assert resized(resized(tree, size), smaller) == resized(tree, smaller)


@given(st.sampled_from([CLUSTER, UNEVEN, find("frontier"), find("two-sites")]), st.data())
def test_any_number_of_devices_of_a_system_is_a_system(
    cluster: Cluster, data: st.DataObject
) -> None:
    devices = data.draw(st.integers(1, 2 * cluster.devices))
    fewer = data.draw(st.integers(1, devices))
    assert cluster.at(devices).devices == devices
    assert cluster.at(cluster.devices) == cluster
    if devices <= cluster.devices:
        assert cluster.at(devices).at(fewer) == cluster.at(fewer)


@given(st.lists(trees(), min_size=1, max_size=3))
def test_a_common_tree_promises_no_more_than_any_of_its_trees(
    several: list[tuple[Level, ...]],
) -> None:
    shared = common(several)
    for level in shared:
        for tree in several:
            (own,) = [v for v in tree if v.name == level.name]
            assert level.devices <= own.devices
            assert level.share_bytes_per_s <= own.share_bytes_per_s * (1 + 1e-9)
            assert level.latency_s >= own.latency_s
    total = 2 * max([1, *(level.devices for level in shared)])
    joined = Level("wide", total, 1.0, 0.0)
    if all(level.name != "wide" for level in shared):
        Cluster("x", (Part(DEVICE, total),), (*shared, joined))  # it is a tree


@given(trees())
def test_the_common_tree_of_one_tree_is_that_tree(tree: tuple[Level, ...]) -> None:
    assert common([tree]) == tree


# ── examples ─────────────────────────────────────────────────────────────────────────────────────


def test_a_link_that_eight_share_gives_each_an_eighth_of_what_it_reaches() -> None:
    assert SPINE.contention == "shared"
    assert SPINE.alone_bytes_per_s == 20e9
    assert SPINE.share_bytes_per_s == 20e9 / 8 / 2


def test_a_port_of_its_own_is_not_shared() -> None:
    assert NODE.contention == "switched"
    assert NODE.share_bytes_per_s == NODE.alone_bytes_per_s == 300e9


def test_a_device_sustains_its_efficiency_of_its_peak() -> None:
    assert DEVICE.peak_flops_per_s("bfloat16") == 300e12
    assert DEVICE.sustained_flops_per_s("bfloat16") == 240e12


def test_a_precision_that_a_device_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(ClusterError) as caught:
        DEVICE.sustained_flops_per_s("float8")
    assert str(caught.value) == "precision: D has no float8; use float32, bfloat16"


def test_twelve_devices_of_nodes_of_eight_are_two_nodes() -> None:
    twelve = CLUSTER.at(12)
    assert (twelve.devices, twelve.per_node, twelve.nodes) == (12, 8, 2)
    assert [level.devices for level in twelve.levels] == [8, 12]


def test_a_system_within_one_node_has_no_network() -> None:
    assert CLUSTER.at(4).levels == (replace(NODE, devices=4),)
    assert CLUSTER.at(1).levels == ()


def test_a_system_without_a_node_level_has_a_node_for_each_device() -> None:
    assert Cluster("x", (Part(DEVICE, 4),), (replace(SPINE, devices=4, sharers=1),)).nodes == 4


def test_the_device_of_an_uneven_cluster_is_the_slowest() -> None:
    assert UNEVEN.device == SLOW
    assert UNEVEN.memory_bytes == 80e9


def test_uneven_parts_share_the_smaller_node_and_the_slower_link() -> None:
    node, spine, wide = UNEVEN.levels
    assert (node.devices, node.bytes_per_s) == (4, 30e9)
    assert (spine.devices, wide.devices) == (32, 96)


def test_a_part_is_a_cluster_with_its_own_links() -> None:
    assert UNEVEN.part(0) == Cluster("U[0]", (Part(DEVICE, 64),), NEAR.levels)
    assert UNEVEN.part(1).devices == 32
    assert CLUSTER.part(0) == CLUSTER


def test_devices_are_taken_from_the_parts_in_order() -> None:
    assert [(p.device, p.devices) for p in UNEVEN.at(70).parts] == [(DEVICE, 64), (SLOW, 6)]
    assert UNEVEN.at(40).parts == (Part(DEVICE, 40),)
    assert UNEVEN.at(40).levels == CLUSTER.at(40).levels


def test_measured_links_keep_those_of_the_nodes_that_are_left() -> None:
    links = tuple(tuple(float(8 * i + j) for j in range(8)) for i in range(8))
    measured = replace(CLUSTER, links=links)
    assert measured.at(16).links == ((0.0, 1.0), (8.0, 9.0))
    assert measured.at(128).links == ()


def test_clusters_are_values() -> None:
    assert len({CLUSTER, CLUSTER.at(64), CLUSTER.at(8)}) == 2


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────


def wrongs(make: Any, **changes: Any) -> list[str]:
    with pytest.raises(ClusterError) as caught:
        replace(make, **changes)
    return str(caught.value).splitlines()


def test_all_that_is_wrong_with_a_device_is_listed_together() -> None:
    assert wrongs(
        DEVICE, memory_bytes=-1.0, units=0, launch_s=-1e-6, tile=(0, 1, 1),
        flops_per_s=(("bf16", 1e12), ("float32", 0.0)), efficiency=(("float32", 1.2),),
        power_w=Power(9, 5, 7),
    ) == [
        "memory_bytes: is -1, not above 0; write what the device has",
        "units: is 0, not above 0; write what the device has",
        "launch_s: is -1e-06, below 0; write 0 or more",
        "tile: is [0, 1, 1]; write three numbers of 1 or more",
        "flops_per_s.bf16: is no precision; use float64, float32, tensorfloat32, float16, "
        "bfloat16, float8, float4",
        "flops_per_s.float32: is 0, not above 0; write its peak",
        "efficiency.float32: is 1.2; write a fraction above 0, at most 1",
        "efficiency.bf16: needs both a peak and an efficiency; state both",
        "power_w: must rise from idle to compute_bound, but is 9, 5, 7; write W that a device "
        "draws idle, bound by memory, and bound by arithmetic",
    ]  # fmt: skip


def test_a_device_without_rates_is_refused() -> None:
    assert wrongs(DEVICE, flops_per_s=(), efficiency=()) == [
        "flops_per_s: is empty; state the rate of one precision at least"
    ]


def test_all_that_is_wrong_with_a_level_is_listed_together() -> None:
    assert wrongs(
        NODE, name="pod", bytes_per_s=0.0, latency_s=-1.0, sharers=9, oversubscription=0.5,
        efficiency=0.0,
    ) == [
        "name: 'pod' is no level; use device, package, node, rail, leaf, spine, wide",
        "bytes_per_s: is 0, not above 0; write what the device has",
        "latency_s: is -1, below 0; write 0 or more",
        "sharers: is 9; write 1 to 8, the level's devices",
        "oversubscription: is 0.5; write 1 or more: 2 for 2:1",
        "efficiency: is 0; write a fraction up to 1",
    ]  # fmt: skip


def test_a_level_that_cuts_through_nodes_is_refused() -> None:
    leaf = Level("leaf", 12, 1e9, 0)
    assert wrongs(CLUSTER, levels=(NODE, leaf, SPINE)) == [
        "levels.leaf: must hold whole nodes, but 12 % 8 = 4; use a multiple of 8"
    ]


def test_levels_in_the_wrong_order_are_refused() -> None:
    assert wrongs(CLUSTER, levels=(replace(SPINE, devices=8), replace(NODE, devices=64))) == [
        "levels.node: stands outside spine; order them as device, package, node, rail, leaf, "
        "spine, wide"
    ]


def test_a_level_no_larger_than_the_one_inside_it_is_refused() -> None:
    assert wrongs(CLUSTER, levels=(NODE, Level("rail", 8, 1e9, 0), SPINE)) == [
        "levels.rail: must hold more devices than node, but 8 ≤ 8; give each level more devices "
        "than the one inside it, or leave it out"
    ]


def test_devices_that_no_level_joins_are_refused() -> None:
    assert wrongs(CLUSTER, levels=(NODE,)) == [
        "levels.node: the outermost level must hold all 64 devices, but holds 8; leave out its "
        "devices, or make them agree"
    ]
    assert wrongs(CLUSTER, levels=()) == [
        "levels: nothing joins the devices; state at least one level"
    ]
    assert wrongs(UNEVEN, parts=(NEAR, replace(FAR, levels=()))) == [
        "parts: nothing joins the devices of one; state the levels within each"
    ]


def test_no_devices_at_all_are_refused() -> None:
    assert wrongs(NEAR, devices=0, levels=()) == ["devices: is 0, below 1; use 1 or more"]
    assert wrongs(CLUSTER, parts=()) == [
        "parts: there is none; state a kind of device and how many"
    ]
    with pytest.raises(ClusterError, match="devices: is 0, below 1"):
        CLUSTER.at(0)


def test_a_matrix_of_links_needs_a_row_and_a_column_for_each_node() -> None:
    assert wrongs(CLUSTER, links=((1.0, 2.0),)) == [
        "links: must have a row and a column for each of 8 nodes, but has 1 and 2; measure every "
        "pair, or leave it out"
    ]
    assert wrongs(CLUSTER.at(8), links=((-1.0,),)) == [
        "links: holds a value below 0; write bytes per second"
    ]


def test_every_preset_is_named_once() -> None:
    assert len(set(names())) == len(names())
