"""This machine as a cluster: its own memory and cores, at a usual core's rates."""

from __future__ import annotations

import os

import pytest

from stretto.cluster import local


def test_this_machine_has_a_device_for_each_core_that_may_be_used() -> None:
    assert local().devices == len(os.sched_getaffinity(0))


def test_devices_share_the_memory_of_this_machine_evenly() -> None:
    one, four = local(devices=1), local(devices=4)
    assert four.devices == 4
    assert four.device.memory_bytes == pytest.approx(one.device.memory_bytes / 4)


def test_this_machine_promises_no_more_memory_than_is_installed() -> None:
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < local(devices=1).device.memory_bytes <= installed


def test_this_machine_has_its_own_name_and_says_that_its_rates_are_a_guess() -> None:
    cluster = local()
    assert cluster.name
    assert cluster.device.name
    assert "default" in cluster.device.source
    assert dict(cluster.device.flops_per_s)["float32"] == 100e9


def test_ranks_on_more_machines_like_this_one_are_joined_by_a_network() -> None:
    assert [level.name for level in local(devices=2).levels] == ["node"]
    assert local(devices=2).at(3).devices == 3


def test_a_rank_of_few_has_more_of_the_cores() -> None:
    one, two = local(devices=1, threads=8).device, local(devices=1, threads=1).device
    assert (one.units, two.units) == (8, 1)
    assert dict(one.flops_per_s)["float32"] == 8 * dict(two.flops_per_s)["float32"]
    assert one.memory_bytes_per_s == 8 * two.memory_bytes_per_s
    assert one.power_w.compute_bound == 8 * two.power_w.compute_bound
    cores = len(os.sched_getaffinity(0))
    assert local(devices=1).device.units == cores
    assert local(devices=2 * cores).device.units == 1


def test_ranks_that_are_more_than_the_cores_have_a_share_of_one() -> None:
    cores = len(os.sched_getaffinity(0))
    one, four = local(devices=cores).device, local(devices=4 * cores).device
    assert dict(four.flops_per_s)["float32"] == dict(one.flops_per_s)["float32"] / 4
    assert four.memory_bytes_per_s == one.memory_bytes_per_s / 4
    assert four.launch_s == 4 * one.launch_s
    assert four.power_w.compute_bound == one.power_w.compute_bound / 4


def test_a_core_is_its_own_host() -> None:
    assert local().device.host
