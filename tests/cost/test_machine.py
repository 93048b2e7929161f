"""Machines: the rates and links of clusters."""

from __future__ import annotations

import numpy as np
import pytest
from tests.cost.cases import n

from stretto.cluster import Cluster, Device, Level, Part, Power, accelerator, find, names
from stretto.cost import PRECISIONS, Machine, gathered, taken

CLUSTERS = [find(name, devices=8) for name in names()]


def test_rates_are_those_of_the_device_and_of_the_nearest_wider_precision() -> None:
    a100, v100 = (Machine.of(find(f"{name}x8")) for name in ("a100-80gb", "v100-32gb"))
    assert [a100.peak(n(i)) for i in range(4)] == [19.5e12, 312e12, 312e12, 312e12]
    assert [v100.peak(n(i)) for i in range(4)] == [15.7e12, 125e12, 125e12, 125e12]
    h100 = accelerator("h100")
    for i, name in enumerate(PRECISIONS[:3]):
        assert Machine.of(find("h100x8")).matrix(n(i)) == h100.sustained_flops_per_s(name)


def test_an_array_of_precisions_has_the_rate_of_each() -> None:
    machine = Machine.of(find("h100x8"))
    rates = machine.matrix(np.asarray([2.0, 0.0, 1.0]))
    assert rates.tolist() == [machine.matrix(n(i)) for i in (2, 0, 1)]


@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda c: c.name)
def test_no_device_is_faster_than_its_data_sheet(cluster: Cluster) -> None:
    machine = Machine.of(cluster)
    for reached, peak in zip(machine.matrix_flops_per_s, machine.peak_flops_per_s, strict=True):
        assert 0 < reached <= peak
    assert machine.memory_bytes_per_s < cluster.device.memory_bytes_per_s


def test_clusters_of_different_trees_can_be_gathered() -> None:
    machines = [Machine.of(cluster) for cluster in CLUSTERS]
    whole = gathered(machines)
    for i, machine in enumerate(machines):
        assert taken(whole, i) == machine


def test_a_link_is_shared_and_oversubscribed_by_the_devices_behind_it() -> None:
    levels = (
        Level("node", 8, 100e9, 2e-6, efficiency=0.8),
        Level("spine", 64, 50e9, 5e-6, sharers=4, oversubscription=2),
    )
    machine = Machine.of(Cluster("made up", (Part(accelerator("h100"), 64),), levels))
    assert [float(v.devices) for v in machine.links[:2]] == [8, 64]
    assert [float(v.bytes_per_s) for v in machine.links[:2]] == pytest.approx([80e9, 6.25e9])
    assert [float(v.latency_s) for v in machine.links[:2]] == [2e-6, 5e-6]


def test_a_single_device_has_no_link_to_wait_for() -> None:
    machine = Machine.of(find("h100x1"))
    assert all(link.devices == 1 and link.latency_s == 0 for link in machine.links)


def test_an_uneven_cluster_is_as_fast_as_its_slowest_device_and_as_large_as_its_smallest() -> None:
    node = (Level("node", 8, 100e9, 2e-6),)
    both = (Part(accelerator("h100"), 8, node), Part(accelerator("a100-40gb"), 8, node))
    levels = (*node, Level("wide", 16, 1e9, 1e-3))
    machine = Machine.of(Cluster("both", both, levels))
    assert machine.peak(n(1)) == 312e12
    assert machine.memory_bytes == accelerator("a100-40gb").memory_bytes


def test_only_a_core_is_its_own_host() -> None:
    assert [float(Machine.of(find(f"{name}x2")).host) for name in ("cpu", "h100")] == [1, 0]


def test_a_device_of_one_precision_has_its_rate_in_all() -> None:
    device = Device(
        "odd", 1e9, 1e9, (("float64", 1e12),), 1, (8, 8, 8), (("float64", 0.5),),
        Power(1, 2, 3), 3600.0, 1e-6, "made up",
    )  # fmt: skip
    machine = Machine.of(Cluster("odd", (Part(device, 1),)))
    assert [machine.peak(n(i)) for i in range(4)] == [1e12] * 4
    assert [machine.matrix(n(i)) for i in range(4)] == [0.5e12] * 4
    assert machine.double_flops_per_s == 0.5e12
    assert machine.price_per_s == 1
    assert machine.idle_w == 1
