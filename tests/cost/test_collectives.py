"""Collectives: α–β by hand on one level and on two, and the bytes that a program counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cost.cases import CLUSTERS, machine, n, tree

from stretto.cost import Link, Machine, Number
from stretto.cost.collectives import all_reduce_s, exchange_s, ring_s, send_s, tree_s
from stretto.layout import Kind, Step
from stretto.program.traffic import sent_bytes

ONE = tree((64, 100e9, 2e-6))
TWO = tree((8, 400e9, 2e-6), (64, 50e9, 5e-6))
ALL = (ring_s, all_reduce_s, tree_s, exchange_s)

Collective = Callable[..., Number]
BYTES = st.floats(0, 1e11)
POWERS = st.integers(1, 6).map(lambda k: 2**k)


def seconds(
    collective: Collective, size: float, ranks: int, *, stride: int = 1, on: Machine = TWO
) -> float:
    return float(collective(n(size), n(ranks), stride=n(stride), machine=on))


@given(BYTES, st.integers(2, 64))
def test_a_ring_on_one_level_takes_its_share_of_bytes_and_a_latency_for_each_step(
    size: float, ranks: int
) -> None:
    by_hand = (ranks - 1) / ranks * size / 100e9 + (ranks - 1) * 2e-6
    assert seconds(ring_s, size, ranks, on=ONE) == pytest.approx(by_hand)


@given(BYTES, st.sampled_from([(1, 8), (2, 4), (4, 2)]), st.sampled_from((2, 4, 8)))
def test_members_of_a_node_share_their_ports_to_other_nodes(
    size: float, inside: tuple[int, int], nodes: int
) -> None:
    """k members in a node: k links out, and of the k·g steps of the ring g cross nodes."""
    k, stride = inside
    ranks = k * nodes
    part = (ranks - 1) / ranks * size
    slowest = max(part / 400e9 if k > 1 else 0, part / (k * 50e9))
    latency = (ranks - nodes) * 2e-6 + (nodes - 1) * 5e-6
    took = seconds(ring_s, size, ranks, stride=stride)
    assert took == pytest.approx(slowest + latency)


def test_a_group_within_a_node_does_not_cross_it() -> None:
    by_hand = 7 / 8 * 1e9 / 400e9 + 7 * 2e-6
    assert seconds(ring_s, 1e9, 8) == pytest.approx(by_hand)


def test_members_a_node_apart_each_have_their_port() -> None:
    by_hand = 7 / 8 * 1e9 / 50e9 + 7 * 5e-6
    assert seconds(ring_s, 1e9, 8, stride=8) == pytest.approx(by_hand)


def test_an_all_reduce_of_much_is_two_rings_and_of_little_goes_by_trees() -> None:
    much, little = 1e10, 1e3
    assert seconds(all_reduce_s, much, 64) == pytest.approx(2 * seconds(ring_s, much, 64))
    assert seconds(all_reduce_s, little, 64) == 2 * seconds(tree_s, little, 64)
    assert seconds(tree_s, little, 64) < seconds(ring_s, little, 64)


@given(BYTES, POWERS)
def test_an_all_reduce_takes_at_most_two_rings(size: float, ranks: int) -> None:
    assert seconds(all_reduce_s, size, ranks) <= 2 * seconds(ring_s, size, ranks)


@given(BYTES, st.sampled_from((2, 4, 8)))
def test_of_an_all_to_all_all_leaves_the_node_but_what_is_for_its_members(
    size: float, nodes: int
) -> None:
    ranks = 8 * nodes
    crosses, inner = size * (ranks - 8) / ranks / 50e9, size * (ranks - 1) / ranks / 400e9
    latency = seconds(exchange_s, 0, ranks)
    assert seconds(exchange_s, size, ranks) == pytest.approx(max(crosses, inner) + latency)
    assert 5e-6 <= latency <= (ranks - 1) * 5e-6


@pytest.mark.parametrize("collective", ALL)
@given(BYTES, POWERS, st.sampled_from((1, 4, 8)))
def test_no_bytes_take_the_latency_and_each_byte_as_long_as_the_next(
    collective: Collective, size: float, ranks: int, stride: int
) -> None:
    """Where it chooses between rings and trees, as long at most."""
    nothing, once, twice = (seconds(collective, size * k, ranks, stride=stride) for k in range(3))
    assert nothing > 0
    gained = 2 * (once - nothing) - (twice - nothing)
    assert gained == pytest.approx(0, abs=1e-9 * twice) or (
        collective is all_reduce_s and gained > 0
    )


@pytest.mark.parametrize("collective", ALL)
def test_a_rank_alone_waits_for_nobody(collective: Collective) -> None:
    assert seconds(collective, 0, 1) == 0
    assert collective is tree_s or seconds(collective, 1e9, 1) == 0


@given(st.integers(2, 64), st.integers(1, 10**6))
def test_on_one_level_the_seconds_are_those_of_the_bytes_that_a_program_sends(
    ranks: int, part: int
) -> None:
    """A gather begins with a part, all other steps with the whole."""
    free, whole = tree((64, 1.0, 0.0)), part * ranks
    for kind, collective, begins in (
        (Kind.ALL_GATHER, ring_s, part),
        (Kind.REDUCE_SCATTER, ring_s, whole),
        (Kind.ALL_TO_ALL, exchange_s, whole),
    ):
        sent = sent_bytes(Step(kind, ("a",), dim=0, to=1), begins, ranks=ranks)
        assert seconds(collective, whole, ranks, on=free) == pytest.approx(sent)
    rings = 2 * seconds(ring_s, whole, ranks, on=free)
    assert rings == pytest.approx(sent_bytes(Step(Kind.ALL_REDUCE, ("a",)), whole, ranks=ranks))


@pytest.mark.parametrize("collective", ALL)
@given(
    st.sampled_from(CLUSTERS), BYTES, st.integers(1, 9), st.integers(0, 4), st.integers(0, 6),
    st.floats(1, 10), st.floats(0, 1),
)  # fmt: skip
def test_a_faster_or_nearer_link_is_never_slower(
    collective: Collective, name: str, size: float, power: int, apart: int, level: int,
    faster: float, nearer: float,
) -> None:  # fmt: skip
    before = machine(name, 512)
    apart = min(apart, 9 - power)
    wanted = {"size": size, "ranks": 2**power, "stride": 2**apart}
    links = list(before.links)
    link = links[level]
    links[level] = Link(link.devices, link.bytes_per_s * faster, link.latency_s * nearer)
    after = replace(before, links=tuple(links))
    one, other = (seconds(collective, **wanted, on=on) for on in (before, after))
    assert other <= one * (1 + 1e-12)


def test_a_message_takes_the_innermost_link_that_joins_the_two() -> None:
    sizes = {"stride": n(4), "machine": TWO}
    assert send_s(n(1e9), **sizes) == pytest.approx(1e9 / 400e9 + 2e-6)
    assert send_s(n(1e9), stride=n(8), machine=TWO) == pytest.approx(1e9 / 50e9 + 5e-6)
    assert send_s(n(0), stride=n(8), machine=TWO) == 5e-6
