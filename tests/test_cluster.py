"""The cluster is data: this machine, and accelerators that name their source."""

from __future__ import annotations

import os

import pytest

from stretto.cluster import ACCELERATORS, local


def test_this_machine_has_a_device_for_each_core_that_may_be_used() -> None:
    assert local().devices == len(os.sched_getaffinity(0))


def test_devices_share_the_memory_of_this_machine_evenly() -> None:
    one, four = local(devices=1), local(devices=4)
    assert four.devices == 4
    assert four.device.memory_bytes == pytest.approx(one.device.memory_bytes / 4)


def test_this_machine_promises_no_more_memory_than_is_installed() -> None:
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < local(devices=1).device.memory_bytes <= installed


def test_this_machine_has_a_name_and_rates_that_are_yet_to_be_measured() -> None:
    cluster = local()
    assert cluster.name
    assert cluster.device.name
    assert cluster.device.flops_per_s == ()
    assert cluster.device.source == "this machine"


def test_every_accelerator_names_the_source_of_its_numbers() -> None:
    for word, device in ACCELERATORS.items():
        assert device.name == word
        assert device.source


def test_an_h100_has_the_rate_of_its_data_sheet() -> None:
    assert dict(ACCELERATORS["H100"].flops_per_s)["bfloat16"] == 989e12
    assert ACCELERATORS["H100"].memory_bytes == 80e9
