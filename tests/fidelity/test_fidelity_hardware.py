"""The cluster that a row means."""

from __future__ import annotations

from typing import Any

import pytest

from stretto.cluster import Cluster
from stretto.errors import InputError
from stretto.fidelity.hardware import cluster_of


def found(hardware: str, n_gpus: int = 32, **values: Any) -> Cluster:
    return cluster_of({"hardware": hardware, "n_gpus": n_gpus, **values})[0]


def noted(hardware: str, **values: Any) -> tuple[str, ...]:
    return cluster_of({"hardware": hardware, "n_gpus": 32, **values})[1]


@pytest.mark.parametrize(
    ("hardware", "values", "preset", "gib"),
    [
        ("A100-80GB", {}, "A100-80GB", 79),
        ("A100", {}, "A100-80GB", 79),
        ("A100", {"accel_mem_gb": 40}, "A100-40GB", 39),
        ("A100-80GB", {"intra_node_interconnect": "PCIe Gen4"}, "A100-80GB-PCIe", 79),
        ("A100-40GB PCIe", {}, "A100-40GB-PCIe", 39),
        ("NVIDIA A100-SXM4-40GB", {}, "A100-40GB", 39),
        ("H100-80GB", {"intra_node_interconnect": "NVLink4"}, "H100-SXM", 79),
        ("H100-96GB", {}, "H100-96GB", 95),
        ("H100", {"accel_mem_gb": 96}, "H100-96GB", 95),
        ("H100 PCIe", {}, "H100-PCIe", 79),
        ("V100-32GB", {}, "V100-32GB", 32),
        ("V100", {"accel_mem_gb": 16}, "V100-16GB", 16),
        ("Tesla V100-SXM2-32GB", {}, "V100-32GB", 32),
        ("AMD Instinct MI300X", {}, "MI300X", 192),
        ("MI250X", {"accel_mem_gb": 64}, "MI250X", 64),
        ("TPU v4", {}, "TPU-v4", 31),
        ("TPUv5p", {}, "TPU-v5p", 96),
        ("Gaudi2", {}, "Gaudi-2", 95),
        ("Intel Gaudi 2", {}, "Gaudi-2", 95),
        ("L40S", {}, "L40S", 44),
        ("GeForce RTX 4090", {}, "RTX-4090", 24),
        ("H800", {}, "H800", 79),
        ("GB200", {"gpus_per_node": 4}, "GB200", 184),
        ("MI250X (Frontier)", {}, "Frontier", 64),
    ],
)
def test_names_as_papers_write_them(
    hardware: str, values: dict[str, Any], preset: str, gib: int
) -> None:
    cluster = found(hardware, **values)
    assert cluster.name == preset
    assert round(cluster.memory_bytes / 2**30) == gib
    assert cluster.devices == 32


def test_what_is_only_near_is_told() -> None:
    assert noted("XH200", accel_mem_gb=96, gpus_per_node=4)[0] == "hardware = H200"
    assert noted("A100-80GB", gpus_per_node=8, inter_node_gbps_per_gpu=200) == ()


def test_a_memory_that_no_variant_has_is_taken_as_stated() -> None:
    assert round(found("A100", accel_mem_gb=64).memory_bytes / 2**30) == 63
    assert round(found("A100-64GB").memory_bytes / 2**30) == 63


def test_an_mi250x_of_128_gb_is_a_package_of_two() -> None:
    die, package = found("MI250X", accel_mem_gb=64), found("MI250X", accel_mem_gb=128)
    assert package.memory_bytes == 2 * die.memory_bytes
    assert package.device.peak_flops_per_s("bfloat16") == 2 * die.device.peak_flops_per_s(
        "bfloat16"
    )
    assert (die.per_node, package.per_node) == (8, 4)
    assert found("MI250X", gpus_per_node=4).memory_bytes == package.memory_bytes


def test_an_accelerator_without_a_preset_is_scaled_to_its_stated_peak() -> None:
    one = found("Instinct X1", peak_tflops_assumed=320, accel_mem_gb=64, gpus_per_node=8)
    assert one.device.peak_flops_per_s("bfloat16") == pytest.approx(320e12)
    assert round(one.memory_bytes / 2**30) == 63
    assert "A100-80GB, scaled to 320 TFLOP/s" in noted("Instinct X1", peak_tflops_assumed=320)[0]


def test_one_without_a_peak_is_told_with_all_that_there_are() -> None:
    with pytest.raises(InputError) as caught:
        found("Instinct X1")
    (problem,) = caught.value.problems
    assert problem.rule == "'Instinct X1' is no accelerator that there is a preset of"
    assert problem.remedy.startswith("state peak_tflops_assumed, or write one of A100-40GB-PCIe, ")


@pytest.mark.parametrize("size", [1, 2, 4, 16])
def test_the_stated_node_overrides_the_presets(size: int) -> None:
    cluster = found("A100-80GB", gpus_per_node=size)
    assert cluster.per_node == size
    assert cluster.devices == 32


def test_a_tray_of_a_rack_is_no_node() -> None:
    rack = found("GB200", n_gpus=72, gpus_per_node=4, intra_node_interconnect="NVLink5 NVL72")
    assert rack.per_node == 72


def test_the_stated_network_overrides_the_presets_and_leaves_the_node() -> None:
    node, outer = found("A100-80GB", inter_node_gbps_per_gpu=50).levels
    assert (node.bytes_per_s, outer.bytes_per_s, outer.sharers) == (300e9, 50e9 / 8, 1)
    torus = found("TPU v4", inter_node_gbps_per_gpu=50, n_gpus=128).levels
    assert {level.bytes_per_s for level in torus} == {100e9}


def test_what_is_not_stated_of_it_is_listed() -> None:
    assert noted("A100") == (
        "accel_mem_gb = 80",
        "gpus_per_node = 8",
        "inter_node_gbps_per_gpu = 200",
    )
    assert noted("V100-32GB") == ("gpus_per_node = 8", "inter_node_gbps_per_gpu = 50")
