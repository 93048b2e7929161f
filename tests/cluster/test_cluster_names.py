"""A cluster is found by name and number, however its name is spelt; others are named nearby."""

from __future__ import annotations

from pathlib import Path

import pytest

from stretto.cluster import accelerator, find, names, of_driver
from stretto.cluster.names import preset, split
from stretto.errors import ClusterError


def wrongs(text: str, devices: int | None = None) -> str:
    with pytest.raises(ClusterError) as caught:
        find(text, devices=devices)
    return str(caught.value)


def test_a_name_and_a_number_give_so_many_devices() -> None:
    cluster = find("h100x64")
    assert (cluster.device.name, cluster.devices) == ("H100-SXM", 64)
    assert find("h100", devices=64) == cluster
    assert find("h100x64", devices=64) == cluster


@pytest.mark.parametrize("text", ["H100x8", "h100-SXM x 8", "H100 80GB×8", "h100_sxm5x8"])
def test_case_spaces_and_dashes_do_not_matter(text: str) -> None:
    assert find(text) == find("h100x8")


def test_a_name_that_ends_like_a_number_of_devices_is_still_a_name() -> None:
    assert split("rtx4090") == ("rtx4090", None)
    assert split("rtx4090x8") == ("rtx4090", 8)
    assert split("mi250xx16") == ("mi250x", 16)
    assert split("mi250x16") == ("mi250", 16)
    assert find("mi250x16") == find("mi250xx16")


def test_a_system_has_all_its_devices_unless_fewer_are_asked_for() -> None:
    assert find("frontier").devices == 75264
    assert find("frontierx1024").devices == 1024


def test_a_system_has_no_more_devices_than_it_has() -> None:
    assert wrongs("frontierx100000") == (
        "frontier.toml: devices: is 75264, but 100000 are asked for; ask for 75264 or fewer"
    )


def test_an_accelerator_needs_a_number() -> None:
    assert wrongs("H100") == (
        "cluster: H100-SXM is an accelerator, of which there can be any number; say how many: "
        "H100x8"
    )
    assert wrongs("h100x0") == "cluster: h100x0 has 0 devices; use 1 or more"
    assert wrongs("h100", -3) == "cluster: h100 has -3 devices; use 1 or more"


def test_two_different_numbers_are_refused() -> None:
    assert wrongs("h100x64", 32) == "cluster: h100x64 has 64 devices, not 32; state one number"


def test_an_unknown_name_is_answered_with_the_nearest_and_with_all() -> None:
    message = wrongs("h101x8")
    assert message.startswith("cluster: there is none called 'h101'; did you mean H100")
    assert all(name in message for name in names())
    assert "there is no near one" in wrongs("abacus")


def test_every_alias_means_one_preset() -> None:
    words = [word for name in names() for word in (name, *preset(name)[1].get("aliases", ()))]
    plain = [word.replace("-", "").replace("_", "").lower() for word in words]
    assert len(set(plain)) == len(plain)


def test_a_device_is_known_by_what_its_driver_calls_it() -> None:
    assert of_driver("NVIDIA H100 80GB HBM3") == "H100-SXM"
    assert of_driver("NVIDIA A100-SXM4-40GB") == "A100-40GB"
    assert of_driver("NVIDIA Abacus") is None
    assert accelerator("a100-40gb").name == "A100-40GB"


def test_a_file_is_found_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('accelerator = "A100"\ndevices = 16\n')
    assert find(str(path)).devices == 16
    assert find(str(path), devices=8).devices == 8
    assert find(str(path)).device == accelerator("A100")
