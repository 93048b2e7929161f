"""A cluster's file: units are needed, and all that is wrong is said at once, with file and key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from stretto.cluster import Cluster, find, load, read
from stretto.errors import ClusterError

DEVICE = """
[device]
name = "Abacus"
memory = "80GiB"
memory_bandwidth = "2TB/s"
units = 100
price_usd_per_hour = 2.5
source = "made up"
peak = { bfloat16 = "300TFLOP/s", float32 = "20TFLOP/s" }
power = { idle = "50W", memory_bound = "200W", compute_bound = "300W" }
"""
LEVELS = """
[[level]]
name = "node"
devices = 8
one_way_bandwidth = "300GB/s"
per = "device"
latency = "2us"

[[level]]
name = "spine"
one_way_bandwidth = "200Gbit/s"
per = "node"
latency = "4us"
oversubscription = 2
"""
WHOLE = "name = 'Mine'\ndevices = 64\n" + DEVICE + LEVELS


def made(text: str, devices: int | None = None) -> Cluster:
    return read(tomllib.loads(text), where="mine.toml", devices=devices)


def wrongs(text: str) -> list[str]:
    with pytest.raises(ClusterError) as caught:
        made(text)
    return str(caught.value).splitlines()


def test_a_file_gives_its_constants_in_base_units() -> None:
    cluster = made(WHOLE)
    device, (node, spine) = cluster.device, cluster.levels
    assert (cluster.name, cluster.devices, device.name) == ("Mine", 64, "Abacus")
    assert device.memory_bytes == 80 * 2**30
    assert device.memory_bytes_per_s == 2e12
    assert dict(device.flops_per_s) == {"float32": 20e12, "bfloat16": 300e12}
    assert (device.power_w.idle, device.power_w.compute_bound) == (50, 300)
    assert (node.devices, node.bytes_per_s) == (8, 300e9)
    assert node.latency_s == pytest.approx(2e-6)
    assert (spine.devices, spine.bytes_per_s, spine.oversubscription) == (64, 25e9, 2)


def test_a_link_per_node_is_shared_by_its_devices() -> None:
    node, spine = made(WHOLE).levels
    assert (node.sharers, spine.sharers) == (1, 8)


def test_a_link_may_be_shared_by_a_number_of_devices_or_by_all() -> None:
    by_two = WHOLE.replace('per = "node"', "per = 2")
    bus = WHOLE.replace('per = "device"', 'per = "node"')
    assert made(by_two).levels[1].sharers == 2
    assert made(bus).levels[0].sharers == 8


def test_what_is_left_out_has_the_documented_default() -> None:
    cluster = made(WHOLE)
    assert cluster.device.tile == (128, 128, 64)
    assert cluster.device.launch_s == 5e-6
    assert dict(cluster.device.efficiency) == {"float32": 0.75, "bfloat16": 0.75}
    assert [level.efficiency for level in cluster.levels] == [0.8, 0.8]
    assert not cluster.levels[0].rail


def test_the_outermost_level_holds_as_many_as_there_are() -> None:
    assert [level.devices for level in made(WHOLE).levels] == [8, 64]
    assert [level.devices for level in made(WHOLE.replace("64", "12")).levels] == [8, 12]
    assert [level.devices for level in made(WHOLE.replace("64", "4")).levels] == [4]


def test_a_file_without_a_number_of_devices_is_given_one() -> None:
    open_ = WHOLE.replace("devices = 64\n", "")
    assert made(open_, devices=16).devices == 16
    assert wrongs(open_) == ["mine.toml: devices: is missing; state how many there are"]


def test_an_accelerator_brings_its_device_and_its_levels() -> None:
    assert made('name = "H100-SXM"\naccelerator = "h100"\ndevices = 32') == find("h100x32")


def test_what_a_file_states_goes_before_its_accelerator() -> None:
    cluster = made("""
        accelerator = "h100"
        devices = 8
        [device]
        price_usd_per_hour = 1.5
        efficiency = { bfloat16 = 0.7 }
    """)
    usual = find("h100x8").device
    assert cluster.device.price_per_hour == 1.5
    assert dict(cluster.device.efficiency) == dict(usual.efficiency) | {"bfloat16": 0.7}
    assert cluster.device.flops_per_s == usual.flops_per_s


def test_a_constant_stated_anew_does_not_keep_the_source_of_the_old() -> None:
    text = 'accelerator = "h100"\ndevices = 8\n[device]\nmemory = "40GiB"\nsource = "mine"\n'
    sources = dict(made(text).device.sources)
    assert "memory" not in sources
    assert "units" in sources


def test_parts_have_their_own_devices_and_links() -> None:
    cluster = made("""
        name = "Both"
        [[part]]
        accelerator = "h100"
        devices = 64
        [[part]]
        accelerator = "a100"
        devices = 32
        [[level]]
        name = "wide"
        one_way_bandwidth = "10Gbit/s"
        per = "part"
        latency = "20ms"
    """)
    assert [part.device.name for part in cluster.parts] == ["H100-SXM", "A100-80GB"]
    assert cluster.part(0).levels == find("h100x64").levels
    assert cluster.levels[-1].sharers == 64
    assert cluster.devices == 96


def test_a_measured_matrix_is_read_in_its_unit() -> None:
    links = '[links]\nunit = "GB/s"\nrows = [[0, 2], [1, 0]]\n'
    assert made(WHOLE.replace("64", "16") + links).links == ((0, 2e9), (1e9, 0))


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────


def test_a_missing_unit_is_named_with_what_would_do() -> None:
    bare = WHOLE.replace('"80GiB"', "80").replace('"2us"', "2").replace('"300W"', "300")
    assert wrongs(bare) == [
        'mine.toml: device.memory: 80 has no unit; write it, like "80GiB"',
        'mine.toml: device.power.compute_bound: 300 has no unit; write it, like "300W"',
        'mine.toml: level[0].latency: 2 has no unit; write it, like "2us"',
    ]


def test_a_unit_of_another_quantity_is_refused() -> None:
    assert wrongs(WHOLE.replace('"300GB/s"', '"300GB"').replace('"2TB/s"', '"2"')) == [
        "mine.toml: device.memory_bandwidth: '2' is not a number with a unit of bytes_per_s; write "
        "200Gbit/s or 25GB/s",
        "mine.toml: level[0].one_way_bandwidth: '300GB' is not a number with a unit of "
        "bytes_per_s; write 200Gbit/s or 25GB/s",
    ]


def test_missing_and_unknown_keys_are_listed_with_the_nearest() -> None:
    text = WHOLE.replace("memory =", "memroy =").replace("latency", "delay", 1)
    text = text.replace("bfloat16 =", "bfloat =")
    assert wrongs(text) == [
        "mine.toml: device.memroy: there is no such key; did you mean memory?",
        "mine.toml: device.memory: is missing; state it",
        "mine.toml: device.peak.bfloat: there is no such key; did you mean bfloat16?",
        "mine.toml: level[0].delay: there is no such key; use name, devices, one_way_bandwidth, "
        "per, latency, oversubscription, rail, efficiency, source",
        "mine.toml: level[0].latency: is missing; state it",
    ]


def test_numbers_that_cannot_be_are_listed_with_their_keys() -> None:
    text = WHOLE.replace('"80GiB"', '"-80GiB"').replace("units = 100", "units = 0")
    text = text.replace('"4us"', '"-4us"').replace("oversubscription = 2", "oversubscription = 0.5")
    assert wrongs(text) == [
        "mine.toml: device.memory: is -8.58993e+10, not above 0; write what the device has",
        "mine.toml: device.units: is 0, not above 0; write what the device has",
        "mine.toml: level[1].latency: is -4e-06, below 0; write 0 or more",
        "mine.toml: level[1].oversubscription: is 0.5; write 1 or more: 2 for 2:1",
    ]


def test_zero_devices_are_refused() -> None:
    assert wrongs(WHOLE.replace("64", "0")) == ["mine.toml: devices: is 0; use 1 or more"]


def test_levels_that_do_not_nest_are_refused() -> None:
    leaf = LEVELS.split("\n\n")[0].replace('"node"', '"leaf"').replace("8", "12") + "\n\n"
    head, spine = WHOLE.split('[[level]]\nname = "spine"')
    assert wrongs(head + leaf + '[[level]]\nname = "spine"' + spine) == [
        "mine.toml: level.leaf: must hold whole nodes, but 12 % 8 = 4; use a multiple of 8"
    ]


def test_levels_that_leave_devices_out_are_refused() -> None:
    (only,) = wrongs(WHOLE.split('[[level]]\nname = "spine"')[0])
    assert only == (
        "mine.toml: level.node: the outermost level must hold all 64 devices, but holds 8; leave "
        "out its devices, or make them agree"
    )


def test_an_inner_level_states_its_devices() -> None:
    assert wrongs(WHOLE.replace("devices = 8\n", "")) == [
        "mine.toml: level[0].devices: is missing; state it"
    ]


def test_what_shares_a_link_is_a_level_inside_it() -> None:
    assert wrongs(WHOLE.replace('per = "device"', 'per = "spine"')) == [
        "mine.toml: level[0].per: 'spine' is no level up to this one; name what one link serves: "
        "device, part, node"
    ]
    assert wrongs(WHOLE.replace('per = "device"', "per = 1.5")) == [
        'mine.toml: level[0].per: is 1.5; write "device", a level, or how many devices share a link'
    ]
    assert wrongs(WHOLE.replace('per = "device"', "per = 16")) == [
        "mine.toml: level[0].per: is 16; write 1 to 8, the level's devices"
    ]


def test_an_unknown_accelerator_is_named_with_the_nearest() -> None:
    (only,) = wrongs('accelerator = "H10"\ndevices = 8')
    assert only.startswith("mine.toml: accelerator: there is none called 'H10'; did you mean H100")


def test_beside_an_unknown_accelerator_only_what_is_wrong_is_named() -> None:
    head = 'accelerator = "H10"\ndevices = 8\n[device]\n'
    assert [line.split(": ")[1] for line in wrongs(head + "launch = 4\nunits = 0")] == [
        "accelerator", "device.launch", "device.units",
    ]  # fmt: skip


def test_a_system_of_several_kinds_is_no_accelerator() -> None:
    assert wrongs('accelerator = "two-sites"\ndevices = 8') == [
        "mine.toml: accelerator: 'two-sites' has several kinds of device; name H100-SXM and "
        "A100-80GB apart"
    ]


def test_a_missing_unit_does_not_hide_a_number_that_cannot_be() -> None:
    text = WHOLE.replace('"80GiB"', "80").replace("units = 100", "units = 0")
    text = text.replace('"2us"', "2").replace('per = "device"', 'per = "device"\nefficiency = 3')
    text = text.replace('"spine"', '"spin"').replace('"20TFLOP/s"', '"20"')
    assert [line.split(": ")[1] for line in wrongs(text)] == [
        "device.memory", "device.peak.float32", "device.units", "level[0].latency",
        "level[0].efficiency", "level[1].name",
    ]  # fmt: skip


def test_more_devices_than_a_file_states_are_refused() -> None:
    with pytest.raises(ClusterError, match="is 64, but 65 are asked for; ask for 64 or fewer"):
        made(WHOLE, 65)


def test_a_file_without_a_device_is_refused() -> None:
    assert wrongs("devices = 1") == [
        'mine.toml: device: is missing; write accelerator = "H100-SXM", say, or a table [device]'
    ]


def test_all_that_is_wrong_with_parts_is_listed_by_part() -> None:
    text = """
        devices = 4
        [[part]]
        accelerator = "h100"
        [[part]]
        devices = 2
        part = []
    """
    assert wrongs(text) == [
        "mine.toml: devices: is stated beside parts; state it in each [[part]]",
        "mine.toml: part[0].devices: is missing; state how many there are",
        "mine.toml: part[1].part: stands within a part; list all parts side by side",
    ]


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("units = 100", "units = 1.5", "device.units: is 1.5; write a whole number"),
        ("units = 100", "units = true", "device.units: is True; write a whole number"),
        ("2.5", '"2.5"', "device.price_usd_per_hour: is '2.5'; write a number"),
        ('"made up"', '""', "device.source: is ''; write text in \"quotes\""),
        ("units = 100", "units = 100\ntile = [1, 2]",
         "device.tile: is [1, 2]; write rows, columns and depth: [128, 256, 64]"),
        ("oversubscription = 2", "rail = 1", "level[1].rail: is 1; write true or false"),
        ("devices = 64", "devices = 64\nlinks = 3", "links: is 3; write a table"),
        ("devices = 64", "devices = 64\nlinks = { unit = 'GB/s', rows = 3 }",
         "links.rows: is 3; write rows of numbers: [[0, 12.5], [12.5, 0]]"),
        ("devices = 64", "devices = 64\naliases = 1", 'aliases: is 1; write ["one", "two"]'),
        ("devices = 64", "devices = 64\npart = 1",
         "part: is 1; write tables in [[double brackets]]"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused(old: str, new: str, rule: str) -> None:
    assert wrongs(WHOLE.replace(old, new)) == [f"mine.toml: {rule}"]


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(ClusterError) as caught:
            load(path)
        return str(caught.value)

    assert refused(tmp_path / "none.toml").endswith(
        "cannot be read: No such file or directory; name a cluster's TOML file"
    )
    broken: Any = tmp_path / "broken.toml"
    broken.write_text("devices = = 3")
    assert refused(broken).startswith("broken.toml: is not TOML: ")
    broken.write_bytes(b"\xff\xfe")
    assert "cannot be read: is not UTF-8" in refused(broken)
