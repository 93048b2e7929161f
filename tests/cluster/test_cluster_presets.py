"""The presets: published numbers, each with its source, in systems of their published size."""

from __future__ import annotations

import pytest

from stretto.cluster import Cluster, accelerator, find, names
from stretto.cluster.keys import DEVICE
from stretto.cluster.names import preset

SYSTEMS = tuple(name for name in names() if {"devices", "part"} & preset(name)[1].keys())
ACCELERATORS = tuple(name for name in names() if name not in SYSTEMS)
ASKED_FOR = (
    "V100-16GB", "V100-32GB", "A100-40GB", "A100-80GB", "A100-40GB-PCIe", "A100-80GB-PCIe", "A800",
    "H100-SXM", "H100-PCIe", "H100-NVL", "H100-96GB", "H800", "H200", "B200", "B300", "GB200",
    "MI250X", "MI300X", "TPU-v4", "TPU-v5e", "TPU-v5p", "Gaudi-2", "RTX-3090", "RTX-4090", "L40S",
    "CPU", "GH200", "GH200-144GB", "GB300", "H20", "MI325X", "MI355X", "TPU-v3", "Gaudi-3",
    "Ascend-910B",
)  # fmt: skip


def whole(name: str) -> Cluster:
    """Give a system, or four thousand of an accelerator."""
    return find(name) if name in SYSTEMS else find(name, devices=4096)


def test_the_usual_accelerators_are_there() -> None:
    assert set(ASKED_FOR) <= set(ACCELERATORS)


def test_the_usual_systems_are_there() -> None:
    assert {"DGX-A100", "DGX-H100", "Selene", "Eos", "Frontier", "Leonardo", "Ethernet",
            "AWS-P4d", "AWS-P5", "Two-Sites", "Alps", "LUMI",
            "JUWELS-Booster"} == set(SYSTEMS)  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_every_constant_has_a_source(name: str) -> None:
    for part in whole(name).parts:
        assert part.device.source
        assert {key for key, _ in part.device.sources} <= set(DEVICE)
        assert "price_usd_per_hour" in dict(part.device.sources)
    assert all(level.source for level in whole(name).levels)


@pytest.mark.parametrize("name", names())
def test_a_price_says_when_or_that_it_is_a_guess(name: str) -> None:
    for part in whole(name).parts:
        source = dict(part.device.sources)["price_usd_per_hour"]
        assert "(20" in source or "estimate" in source


@pytest.mark.parametrize("name", names())
def test_every_level_outwards_is_no_faster_for_all_at_once(name: str) -> None:
    shares = [level.share_bytes_per_s for level in whole(name).levels]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_an_accelerator_comes_in_any_number(name: str) -> None:
    assert [find(name, devices=n).devices for n in (1, 7, 64, 10_000)] == [1, 7, 64, 10_000]


# Dense peaks of the data sheets, in TFLOP/s; memory in GB as sold and GB/s; W.
SHEETS = {
    "V100-32GB": ("float16", 125, 32, 900, 300),
    "A100-40GB": ("bfloat16", 312, 40, 1555, 400),
    "A100-80GB": ("bfloat16", 312, 80, 2039, 400),
    "H100-SXM": ("bfloat16", 989.4, 80, 3350, 700),
    "H100-PCIe": ("float8", 1513, 80, 2000, 350),
    "H200": ("float8", 1978.9, 141, 4800, 700),
    "B200": ("float4", 9000, 180, 7700, 1000),
    "GB200": ("bfloat16", 2500, 186, 8000, 1200),
    "MI250X": ("bfloat16", 191.5, 64, 1638.4, 280),
    "MI300X": ("bfloat16", 1307.4, 192, 5300, 750),
    "TPU-v5p": ("bfloat16", 459, 95, 2765, 450),
    "L40S": ("float8", 733, 48, 864, 350),
    "RTX-4090": ("bfloat16", 165.2, 24, 1008, 450),
    "GH200": ("bfloat16", 989.4, 96, 4000, 700),
    "GH200-144GB": ("float8", 1978.9, 144, 4900, 700),
    "GB300": ("float4", 15000, 279, 8000, 1400),
    "H20": ("bfloat16", 148, 96, 4000, 400),
    "MI325X": ("float8", 2614.9, 256, 6000, 1000),
    "MI355X": ("float8", 5033.2, 288, 8000, 1400),
    "TPU-v3": ("bfloat16", 123, 32, 900, 262),
    "Gaudi-3": ("bfloat16", 1835, 128, 3670, 900),
    "Ascend-910B": ("float16", 376, 64, 1600, 400),
}


@pytest.mark.parametrize("name", SHEETS)
def test_an_accelerator_has_the_numbers_of_its_data_sheet(name: str) -> None:
    precision, tera, gigabytes, bandwidth, watts = SHEETS[name]
    device = accelerator(name)
    assert device.peak_flops_per_s(str(precision)) == pytest.approx(float(tera) * 1e12)
    assert device.memory_bytes_per_s == pytest.approx(bandwidth * 1e9)
    assert device.power_w.compute_bound == watts
    # Vendors call 2**30 bytes a GB; drivers keep some back.
    assert 0.92 * gigabytes <= device.memory_bytes / 2**30 <= 1.01 * gigabytes


@pytest.mark.parametrize("name", ACCELERATORS)
def test_halving_the_precision_of_a_matrix_rate_never_slows_it(name: str) -> None:
    order = ("float32", "tensorfloat32", "float16", "float8", "float4")
    rates = dict(accelerator(name).flops_per_s)
    found = [rates[precision] for precision in order if precision in rates]
    assert found == sorted(found)


def test_nvlink_counts_one_direction() -> None:
    assert find("h100x8").levels[0].bytes_per_s == 450e9  # of the 900 GB/s that are advertised
    assert find("a800x8").levels[0].bytes_per_s == 200e9
    assert find("gb200x72").levels[0].devices == 72


def test_frontier_is_nine_thousand_nodes_of_eight() -> None:
    frontier = find("frontier")
    assert frontier.devices == 9408 * 8
    package, node, leaf, spine = frontier.levels
    assert (package.devices, package.bytes_per_s) == (2, 200e9)
    assert (node.devices, leaf.devices) == (8, 128 * 8)
    # Four cards of 200 Gbit/s a node: 100 GB/s; four links to each of 73 groups for 512 of them.
    assert leaf.bytes_per_s * node.devices / leaf.sharers == 100e9
    assert spine.oversubscription == pytest.approx(512 / 292, rel=1e-3)


def test_selene_has_a_network_card_of_200_gbit_for_each_gpu() -> None:
    selene = find("selene")
    assert (selene.devices, selene.device.name, selene.nodes) == (4480, "A100-80GB", 560)
    assert selene.levels[-1].bytes_per_s == 25e9
    assert selene.levels[1].rail


def test_leonardo_gives_a_gpu_a_quarter_of_400_gbit() -> None:
    leonardo = find("leonardo")
    assert (leonardo.nodes, leonardo.per_node) == (3456, 4)
    assert leonardo.levels[-1].alone_bytes_per_s / leonardo.levels[-1].efficiency == 12.5e9


def test_alps_gives_each_of_four_gpus_a_card_of_200_gbit() -> None:
    alps = find("alps")
    assert (alps.nodes, alps.per_node, alps.device.name) == (2688, 4, "GH200")
    assert (alps.levels[-1].bytes_per_s, alps.levels[-1].sharers) == (25e9, 1)


def test_lumi_is_three_thousand_nodes_like_frontiers() -> None:
    lumi, frontier = find("lumi"), find("frontier")
    assert (lumi.nodes, lumi.device) == (2978, frontier.device)
    assert [level.bytes_per_s for level in lumi.levels[:2]] == [200e9, 50e9]


def test_juwels_booster_has_four_a100_and_four_cards_a_node() -> None:
    juwels = find("juwels")
    assert (juwels.nodes, juwels.per_node, juwels.device.name) == (936, 4, "A100-40GB")
    assert (juwels.levels[-1].bytes_per_s, juwels.levels[-1].sharers) == (25e9, 1)


def test_a_commodity_machine_shares_one_card_of_100_gbit() -> None:
    spine = find("ethernet").levels[-1]
    assert (spine.bytes_per_s, spine.sharers) == (12.5e9, 8)


def test_two_sites_share_one_slow_link() -> None:
    sites = find("two-sites")
    assert [part.devices for part in sites.parts] == [64, 64]
    assert sites.levels[-1].share_bytes_per_s == pytest.approx(0.8 * 1.25e9 / 64)
    assert sites.part(0).levels == find("h100x64").levels
