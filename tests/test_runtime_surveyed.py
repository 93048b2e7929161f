"""A survey becomes the cluster that it was taken of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stretto.cluster import Cluster, Device, Level, Part, Sample, accelerator, dumps, load
from stretto.cluster.sample import seconds
from stretto.runtime.measure import Measured, Timing
from stretto.runtime.measure_compute import SHAPES
from stretto.runtime.measure_links import Matrix, axes
from stretto.runtime.survey import Survey
from stretto.runtime.surveyed import fitted, guess

A100 = accelerator("a100-80gb")
NODE = Level("node", 8, 200e9, 3e-6)
SPINE = Level("spine", 32, 25e9, 8e-6, sharers=4)


def cluster(device: Device, *levels: Level) -> Cluster:
    return Cluster("truth", (Part(device, levels[-1].devices if levels else 1),), levels)


def survey(truth: Cluster, *, known: bool) -> Survey:
    """Give what a probe without noise would find: links alone have the whole of what is shared."""
    ranks, per_node = truth.devices, truth.per_node
    nodes = ranks // per_node
    precisions = [name for name, _ in truth.device.flops_per_s]
    wanted = [Sample("matrix", 1, p, shape) for p in precisions for shape in SHAPES]
    wanted += [Sample("memory", 1, size_bytes=size) for size in (16.0, 2.0**28, 2.0**30)]
    for axis in axes(ranks, per_node):
        for size in (2.0**power for power in (10, 14, 18, 22, 26, 30)):
            at = {"size_bytes": size, "ranks": axis.ranks, "stride": axis.stride}
            wanted += [
                Sample("all_reduce", 1, **at), Sample("all_gather", 1, **at),
                Sample("reduce_scatter", 1, **at), Sample("all_to_all", 1, **at),
            ]  # fmt: skip
            wanted += [Sample("send", 1, **at)] if axis.ranks == 2 else []
    measured = tuple(
        Measured(replace(one, seconds=took), Timing(took, 0.0, 3, (took,) * ranks))
        for one in wanted
        for took in [seconds(truth, one)]
    )
    alone = {level.name: level.alone_bytes_per_s for level in truth.levels}
    return Survey(
        "host", "nccl", ranks, per_node, truth.device, known, measured,
        tuple(square(per_node, alone["node"]) for _ in range(nodes)) if "node" in alone else (),
        square(nodes, alone["spine"]) if "spine" in alone else (), 1.0,
    )  # fmt: skip


def square(size: int, rate: float) -> Matrix:
    return tuple(tuple(0.0 if i == j else rate for j in range(size)) for i in range(size))


TRUTHS = {
    "a node": cluster(A100, NODE),
    "nodes": cluster(A100, NODE, SPINE),
    "nodes of one device": cluster(A100, replace(SPINE, sharers=1)),
    "one device": cluster(A100),
}


@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize("known", [True, False])
def test_a_survey_gives_back_what_it_was_taken_of(name: str, known: bool) -> None:
    truth = TRUTHS[name]
    found = fitted(survey(truth, known=known))
    assert max(abs(one.error) for one in found.residuals) < 0.02
    assert [level.name for level in found.cluster.levels] == [v.name for v in truth.levels]
    for level, true in zip(found.cluster.levels, truth.levels, strict=True):
        assert (level.devices, level.sharers) == (true.devices, true.sharers)
        assert level.share_bytes_per_s == pytest.approx(true.share_bytes_per_s, rel=0.02)
        assert level.latency_s == pytest.approx(true.latency_s, rel=0.05)
    for precision, _ in truth.device.flops_per_s:
        rate = found.cluster.device.sustained_flops_per_s(precision)
        assert rate == pytest.approx(truth.device.sustained_flops_per_s(precision), rel=0.03)


@pytest.mark.parametrize("name", TRUTHS)
def test_the_file_of_a_survey_gives_its_cluster_back_to_the_last_bit(
    name: str, tmp_path: Path
) -> None:
    found = fitted(survey(TRUTHS[name], known=True)).cluster
    (tmp_path / "found.toml").write_text(dumps(found))
    assert load(tmp_path / "found.toml") == found


def test_a_known_device_keeps_its_data_sheet_s_peaks() -> None:
    found = fitted(survey(TRUTHS["nodes"], known=True)).cluster.device
    assert found.flops_per_s == A100.flops_per_s
    assert found.power_w == A100.power_w


def test_an_unknown_device_s_peaks_are_its_best_products() -> None:
    taken = survey(TRUTHS["one device"], known=False)
    products = [one.sample for one in taken.measured if one.sample.precision == "float16"]
    best = max(2 * s.shape[0] * s.shape[1] * s.shape[2] / s.seconds for s in products)
    assert dict(guess(taken).device.flops_per_s)["float16"] == best


def test_the_links_of_nodes_have_what_is_within_each_on_the_diagonal() -> None:
    found = fitted(survey(TRUTHS["nodes"], known=True)).cluster
    assert found.links == tuple(
        tuple(200e9 if i == j else 25e9 for j in range(4)) for i in range(4)
    )
    assert fitted(survey(TRUTHS["a node"], known=True)).cluster.links == ()
    assert fitted(survey(TRUTHS["nodes of one device"], known=True)).cluster.links[3][3] == 0.0


def test_a_collective_faster_than_any_single_link_raises_the_link_and_not_the_efficiency() -> None:
    taken = survey(TRUTHS["a node"], known=True)
    slow = replace(taken, within=(square(8, 50e9),))
    level = fitted(slow).cluster.levels[0]
    assert level.efficiency <= 1
    assert level.share_bytes_per_s == pytest.approx(200e9, rel=0.02)
