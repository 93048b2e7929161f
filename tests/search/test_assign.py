"""Which node is which: as good as any order, and better than none."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from tests.search.layers import row

from stretto.cluster import Cluster, find
from stretto.presets import PRESETS
from stretto.search import Task, search
from stretto.search.assign import assign, over_links, reordered
from stretto.search.frame import Frame, Split, as_is
from stretto.search.staged import priced

MODEL = PRESETS["gpt3-6.7b"]


def linked(name: str, links: np.ndarray) -> Cluster:
    return replace(find(name), links=tuple(map(tuple, links.tolist())))


def random_links(nodes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1e9, 20e9, (nodes, nodes))


def racks(nodes: int, size: int, seed: int) -> np.ndarray:
    """Give links that are fast within racks, whose nodes are numbered at random."""
    rack = np.random.default_rng(seed).permutation(nodes) // size
    return np.where(rack[:, None] == rack, 20e9, 4e9)


def plan(cluster: Cluster, *, sequences: int = 96, **words: float) -> Split:
    task = Task(MODEL, cluster, sequences, 2048)
    return as_is(Frame(task, row(task, **{"etp": words.get("tp", 1), "sequence": 1, **words})))


PLANS = (
    {"pp": 4, "tp": 8, "micro_batch": 2},
    {"pp": 2, "dp": 2, "tp": 8, "micro_batch": 2},
    {"dp": 4, "tp": 8, "zero": 1, "shard": 4, "micro_batch": 2},
    {"pp": 2, "dp": 4, "tp": 4, "zero": 3, "shard": 4, "micro_batch": 2},
    {"pp": 2, "cp": 2, "tp": 8, "micro_batch": 2},
)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("words", PLANS)
def test_no_order_of_the_nodes_is_faster(words: dict[str, float], seed: int) -> None:
    own = plan(linked("a100x32", random_links(4, seed)), **words)
    task = own.frame.task
    best = min(
        priced(own.plan, MODEL, cluster=reordered(task.cluster, order), stack=task.stack).step_s
        for order in itertools.permutations(range(4))
    )
    found = assign(own)
    assert found.exact
    assert found.plan.step_s == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_what_exchanges_find_is_the_best_of_all_orders(seed: int) -> None:
    words = ({"pp": 6, "tp": 8}, {"pp": 3, "dp": 2, "tp": 8}, {"pp": 2, "dp": 3, "tp": 8})[seed % 3]
    own = plan(linked("a100x48", random_links(6, seed)), **words)
    exact, found = assign(own), assign(own, exact=0)
    assert not found.exact
    assert found.plan.step_s == pytest.approx(exact.plan.step_s, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_nodes_of_a_rack_are_neighbours_where_that_can_be(seed: int) -> None:
    links = racks(16, 4, seed)
    own = plan(linked("a100x128", links), pp=4, dp=4, tp=8, zero=1, shard=4, sequences=128)
    found = assign(own)
    rings = np.array(found.order).reshape(4, 4)
    assert all((links[np.ix_(ring, ring)] == 20e9).all() for ring in rings)
    assert found.speedup > 1.01
    assert found.plan.step_s < found.random_s


def test_the_price_of_an_order_is_that_of_the_cluster_so_ordered() -> None:
    own = plan(linked("a100x48", random_links(6, 1)), pp=3, dp=2, tp=8)
    found = assign(own)
    task = own.frame.task
    cluster = reordered(task.cluster, found.order)
    again = priced(own.plan, MODEL, cluster=cluster, stack=task.stack)
    assert again.step_s == found.plan.step_s
    np.testing.assert_array_equal(
        cluster.links, np.array(task.cluster.links)[np.ix_(found.order, found.order)]
    )


def test_where_links_are_alike_nodes_stay() -> None:
    found = assign(plan(linked("a100x48", np.full((6, 6), 2e10)), pp=3, dp=2, tp=8))
    assert found.order == (0, 1, 2, 3, 4, 5)
    assert found.speedup == pytest.approx(1)
    assert found.random_s == pytest.approx(found.plan.step_s)


def test_measured_links_as_fast_as_the_data_sheet_change_no_price() -> None:
    level = find("a100x48").levels[-1]
    links = np.full((6, 6), level.alone_bytes_per_s)
    words = {"pp": 3, "dp": 2, "tp": 8, "zero": 1, "shard": 2}
    measured, plain = (plan(c, **words) for c in (linked("a100x48", links), find("a100x48")))
    assert measured.step_s == pytest.approx(plain.step_s, rel=1e-6)


def test_a_link_that_carries_nothing_is_left_out() -> None:
    links = np.full((3, 3), 2e10)
    links[0, 1] = links[1, 0] = 0.0
    found = assign(plan(linked("a100x24", links), pp=3, tp=8))
    assert found.order[1] == 2
    assert found.as_is_s > 1000 * found.plan.step_s


def test_a_node_alone_has_no_links_to_measure() -> None:
    words = {"dp": 8, "zero": 1, "shard": 8}
    alone, plain = (plan(c, sequences=64, **words) for c in (
        replace(find("a100x8"), links=((1.0,),)), find("a100x8")))  # fmt: skip
    assert alone.step_s == plain.step_s


def test_the_same_order_is_found_again() -> None:
    own = plan(linked("a100x80", random_links(10, 5)), pp=5, dp=2, tp=8, sequences=80)
    assert assign(own).order == assign(own).order


def test_the_best_plan_over_links_is_no_slower_than_that_of_the_search() -> None:
    task = Task(MODEL, linked("a100x32", racks(4, 2, 0)), 64, 2048)
    found = search(task)
    assert found.best is not None
    alone = priced(found.best.plan, MODEL, cluster=task.cluster, stack=task.stack)
    assert over_links(found).plan.step_s <= alone.step_s
