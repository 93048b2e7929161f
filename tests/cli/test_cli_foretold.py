"""How a run is foretold: on which cluster, with which software."""

from __future__ import annotations

from pathlib import Path

import pytest

from stretto.cli import foretold as module
from stretto.cli.foretold import MANY, cluster_for, cluster_of_run, foretold, machine, predicted_s
from stretto.cli.keys import Settings
from stretto.cli.rundir import RunDirectory, Start
from stretto.cluster import dumps, find, local
from stretto.cost.stacks import own
from stretto.errors import ClusterError
from stretto.plan import Batch, Plan
from stretto.presets import preset
from stretto.recipe import Recipe


def start(**words: int) -> Start:
    words = {"dp": 1, "tp": 1, "pp": 1} | words
    plan = Plan.of(**words, batch=Batch(4 * words["dp"], 2, 64))
    return Start(preset("tiny"), plan, Recipe(), Settings(), ())


def gpus(monkeypatch: pytest.MonkeyPatch, path: Path, *names: str) -> None:
    """Have this machine's driver know accelerators of some names."""
    for i, name in enumerate(names):
        place = path / f"0000:{i:02}:00.0"
        place.mkdir(parents=True)
        (place / "information").write_text(f"Model: \t\t {name}\nIRQ:   \t\t 42\n")
    monkeypatch.setattr(module, "_DRIVER", path)
    monkeypatch.setattr(module, "gpus", lambda: len(names))


def test_a_run_is_played_on_its_cluster_with_our_runtime_there() -> None:
    cluster = find("h100x2")
    told = foretold(start(dp=2), cluster)
    assert (told.cluster, told.stack) == (cluster, own(cluster))
    assert told.step_s == told.timeline.expected_s > 0
    assert float(told.estimate.time.total_s) == pytest.approx(told.step_s, rel=0.5)


def test_what_is_predicted_before_a_run_is_what_is_foretold_of_it() -> None:
    one, cluster = start(dp=2), find("cpux2")
    assert predicted_s(one, cluster) == foretold(one, cluster).step_s


def test_very_many_ranks_are_predicted_in_closed_form() -> None:
    one, cluster = start(dp=2 * MANY), find(f"h100x{2 * MANY}")
    assert predicted_s(one, cluster) == float(foretold(one, cluster).estimate.time.total_s)


def test_the_cluster_of_a_run_is_its_file_or_else_this_machine(tmp_path: Path) -> None:
    run, plan = RunDirectory(tmp_path), start(dp=2).plan
    assert cluster_of_run(run, plan) == machine(2, here=2)
    run.cluster.write_text(dumps(find("h100x2")))
    assert cluster_of_run(run, plan).device.name == "H100-SXM"


def test_a_run_keeps_its_cluster_while_its_ranks_are_as_many(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(dumps(find("h100x2")))
    same = cluster_for(None, ranks=2, here=2, before=file)
    more = cluster_for(None, ranks=4, here=4, before=file)
    named = cluster_for("a100", ranks=4, here=4, before=file)
    assert same is not None and same.device.name == "H100-SXM"
    assert more == machine(4, here=4)
    assert named is not None and (named.device.name, named.devices) == ("A100-80GB", 4)


def test_a_cluster_that_is_named_and_is_none_is_refused() -> None:
    with pytest.raises(ClusterError, match="there is none called 'nowhere'"):
        cluster_for("nowhere", ranks=1, here=1, before=None)


def test_a_machine_with_accelerators_is_those(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpus(monkeypatch, tmp_path, *["NVIDIA H100 80GB HBM3"] * 8)
    found = machine(16, here=8)
    assert (found.device.name, found.devices) == ("H100-SXM", 16)


def test_accelerators_that_no_preset_knows_are_not_guessed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpus(monkeypatch, tmp_path, "NVIDIA Unheard Of")
    with pytest.raises(ClusterError, match="there is no preset for NVIDIA Unheard Of"):
        machine(1, here=1)
    assert cluster_for(None, ranks=1, here=1, before=None) is None


def test_a_machine_without_is_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gpus", lambda: 0)
    assert machine(2, here=2) == local(devices=2)
    assert machine(2, here=2).device.host
