"""``stretto probe``: what it writes and prints, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.hosts import Host, hosts

from stretto.cli import main, probe
from stretto.cluster import Device, find, read
from stretto.runtime import survey as surveying
from stretto.runtime.environment import World
from stretto.runtime.measure import Measured, Meter

LAUNCHERS = ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probe, "QUICK_S", 1.0)
    monkeypatch.chdir(tmp_path)
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


def test_two_ranks_write_a_cluster_that_is_read_as_it_was_fitted(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["probe", "--quick", "--ranks", "2", "--out", "here.toml", "--json"]) == 0
    said, told = capfd.readouterr()
    found, cluster = json.loads(said), find("here.toml")
    assert Path("here.toml").read_text() == found["toml"]
    assert cluster == read(tomllib.loads(found["toml"]), where="")
    assert (cluster.devices, [level.name for level in cluster.levels]) == (2, ["node"])
    fitted = {one["name"]: one["after"] for one in found["constants"]}
    level, device = cluster.levels[0], cluster.device
    assert {
        "level.node.efficiency": level.efficiency,
        "level.node.latency_s": level.latency_s,
        "memory_bytes_per_s": device.memory_bytes_per_s,
        "launch_s": device.launch_s,
        **{f"efficiency.{name}": value for name, value in device.efficiency},
    } == pytest.approx(fitted, rel=1e-3)  # written with four digits
    kinds = {one["kind"] for one in found["measured"]}
    collectives = {"all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send"}
    assert kinds == {"matrix", "memory", *collectives}
    assert {"float32", "bfloat16"} <= dict(device.flops_per_s).keys()
    (links,) = found["devices_bytes_per_s"]
    assert links[0][1] > 0
    assert links[1][0] > 0
    assert "matrix …" in told


def test_one_rank_has_no_links_and_tables_say_what_was_found(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["probe", "--quick", "--ranks", "1"]) == 0
    said = capfd.readouterr().out
    assert find("cluster.toml").levels == ()
    assert re.search(r"\nmatrix products, [GT]FLOP/s", said)  # whichever reads well on this machine
    assert "\nmemory  " in said
    assert "\nlaunch  " in said
    assert "  efficiency.float32" in said
    assert "\n  matrix" in said
    assert said.endswith("stretto plan MODEL --cluster cluster.toml\n")


def test_a_file_that_cannot_be_written_is_printed_instead(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["probe", "--quick", "--ranks", "1", "--out", "/dev/full"]) == 2
    said, told = capfd.readouterr()
    printed = said[said.index("# Measured by") :]
    assert read(tomllib.loads(printed), where="").devices == 1
    assert "/dev/full cannot be written: No space left on device" in told


def test_all_that_is_wrong_is_said_before_anything_is_measured(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    words = ["--ranks", "3", "--out", "nowhere/at.toml", "--speed", "steps=5"]
    assert main(["probe", *words]) == 2
    told = capfd.readouterr().err
    assert "4 things are wrong" in told
    assert "there is no such option" in told
    assert "there are no keys here" in told
    assert "3 are asked for, but 2 were started" in told
    assert "there is no directory nowhere" in told


def test_a_file_is_replaced_only_if_it_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    Path("cluster.toml").write_text("mine")
    assert main(["probe", "--quick"]) == 2
    assert "cluster.toml exists" in capfd.readouterr().err
    assert Path("cluster.toml").read_text() == "mine"
    assert main(["probe", "--out", "."]) == 2
    assert "is a directory" in capfd.readouterr().err


def test_no_number_of_ranks_but_a_whole_one_is_taken(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--ranks", "0"]) == 2
    assert "write a whole number of 1 or more" in capfd.readouterr().err


def test_more_ranks_than_devices_can_bear_are_refused(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "devices", lambda: 2)
    assert main(["probe", "--quick", "--ranks", "9"]) == 2
    told = capfd.readouterr().err
    assert "9 ranks would share 2 devices, and measure their waiting" in told
    assert "use at most 8" in told


def test_a_rank_that_fails_ends_all_and_is_named(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = surveying.copies

    def fail(meter: Meter, *, until_s: float) -> Iterator[Measured]:
        if meter.world.rank == 1:
            raise ZeroDivisionError("a bad device")
        return copies(meter, until_s=until_s)

    monkeypatch.setattr(surveying, "copies", fail)
    assert main(["probe", "--quick", "--ranks", "2"]) == 3
    assert "rank 1  failed with ZeroDivisionError: a bad device" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda device: replace(device, name="another"), "those of one kind at a time"),
        (lambda device: replace(device, units=device.units + 3), "as many threads"),
    ],
)
def test_ranks_on_different_devices_are_refused(
    other: Callable[[Device], Device],
    said: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = surveying._here

    def uneven(world: World) -> tuple[str, Device, bool]:
        host, device, known = here(world)
        return host, other(device) if world.rank else device, known

    monkeypatch.setattr(surveying, "_here", uneven)
    assert main(["probe", "--quick", "--ranks", "2"]) == 2
    assert said in capfd.readouterr().err


def test_a_link_of_200_mbit_per_s_between_hosts_is_found_within_a_fifth(tmp_path: Path) -> None:
    def start(host: Host, rank: int) -> subprocess.Popen[str]:
        words = ("probe", "--quick", "--out", str(tmp_path / "pair.toml"))
        return subprocess.Popen(
            host.command((sys.executable, "-m", "stretto", *words)),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {
                "SLURM_PROCID": str(rank), "SLURM_NTASKS": "2", "SLURM_LOCALID": "0",
                "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_ID": "7",
                "SLURM_JOB_NODELIST": "10.0.0.[1-2]", "GLOO_SOCKET_IFNAME": host.interface,
            },
        )  # fmt: skip

    with hosts(2, rate="200mbit") as pair:
        ranks = [start(host, rank) for rank, host in enumerate(pair)]
        said = [rank.communicate(timeout=200)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
    cluster = find(str(tmp_path / "pair.toml"))
    (alone, there), (back, none) = cluster.links
    assert (alone, none) == (0.0, 0.0)
    assert (there, back) == (pytest.approx(25e6, rel=0.2), pytest.approx(25e6, rel=0.2))
    (level,) = cluster.levels
    assert (level.name, level.devices, level.sharers) == ("spine", 2, 1)
