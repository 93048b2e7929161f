"""Flows take the links that they should, and collide where they share one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulate.toy import NODE_BYTES_PER_S, cluster, fabric, model, plan, software

from stretto.cluster import Cluster, Part, find
from stretto.errors import InputError
from stretto.program.draw import draw
from stretto.program.instruction import Program
from stretto.program.lower import lower
from stretto.simulate import Network, SlowRank, simulate
from stretto.simulate.network import network_problems
from stretto.simulate.route import Pattern, Wiring, coloured, mixed
from stretto.simulate.site import Site
from stretto.timeline import KINDS, Timeline

SPRAY, PLANNED = Network("spray"), Network("planned")
NETWORKS = (SPRAY, PLANNED, Network("hash"), Network("hash", flows=3, seed=5))


def wiring(here: Cluster, network: Network = SPRAY) -> Wiring:
    """Give the wiring of a cluster."""
    program = lower(model(), plan(dp=here.devices))
    return Wiring(Site(program, here, software(), (), network))


def taken(wires: Wiring, *messages: tuple[tuple[int, ...], Pattern]) -> list[dict[str, float]]:
    """Give for each message the bytes on each link, relative to what a rank sends, by its name."""
    for ranks, pattern in messages:
        wires.add(ranks, pattern=pattern, kind="any")
    routes = wires.routes()
    names = {number: name for name, number in wires.number.items()}
    return [
        {
            _name(names[link]): flows * share
            for link, flows, share in zip(r.links, r.flows, r.shares, strict=True)
        }
        for r in routes
    ]


def _name(name: object) -> str:
    """Give a link in a few words: ``leaf out 3``, ``spine up 0``, ``spine down 1 to 2``."""
    assert isinstance(name, tuple)
    first, *rest = name
    if isinstance(first, tuple):  # an uplink: (part, level), side, switch, spine
        side, switch, *spine = rest
        return f"{first[1]} {side} {switch}" + (f" at {spine[0]}" if spine else "")
    return " ".join(map(str, rest))


def sends_s(line: Timeline) -> list[float]:
    """Give how long each send of the first stage took."""
    sent = (line.kind == KINDS.index("pipeline")) & (line.sent_bytes > 0)
    first = sent & (line.rank < line.rank[sent].max() / 2)
    return (line.stop_s - line.start_s)[first].tolist()


# ── paths ────────────────────────────────────────────────────────────────────────────────────────


def test_a_flow_within_a_leaf_takes_no_uplink() -> None:
    assert taken(wiring(fabric(8)), ((0, 3), "send")) == [{"leaf out 0": 1, "leaf in 3": 1}]


def test_a_flow_to_another_leaf_goes_up_from_one_and_down_to_the_other() -> None:
    (links,) = taken(wiring(fabric(8)), ((1, 6), "send"))
    assert links == {"leaf out 1": 1, "leaf in 6": 1, "spine up 0": 1, "spine down 1": 1}


def test_devices_behind_one_card_share_its_link() -> None:
    (a, b) = taken(wiring(fabric(8, sharers=2)), ((2, 4), "send"), ((3, 4), "send"))
    assert "leaf out 1" in a and "leaf out 1" in b


def test_on_rails_a_flow_to_another_index_passes_its_own_node_first() -> None:
    same, other = taken(wiring(rails()), ((0, 2), "send"), ((0, 3), "send"))
    assert same == {"rail out 0": 1, "rail in 2": 1}
    assert other == {"node out 0": 1, "node in 1": 1, "rail out 1": 1, "rail in 3": 1}


def rails() -> Cluster:
    """Give eight devices in nodes of two; each of two rails joins one of each of two nodes."""
    return fabric(8, node=2, leaf=4, rail=True)


def test_the_switch_of_a_rail_is_that_of_an_index() -> None:
    (links,) = taken(wiring(rails()), ((0, 5), "send"))
    assert links["spine up (0, 0)"] == 1  # device 0: node group 0, index 0
    assert links["spine down (1, 1)"] == 1  # device 5: node group 1, index 1


def test_a_ring_enters_and_leaves_every_leaf_once_with_its_members_side_by_side() -> None:
    (links,) = taken(wiring(fabric(8)), (tuple(range(8)), "ring"))
    # Three edges within each leaf; between leaves four rings of a quarter, there and back.
    assert links["leaf out 0"] == 1.25 and links["leaf out 3"] == 0.25
    assert {links[f"spine {side} {leaf}"] for side in ("up", "down") for leaf in (0, 1)} == {1.0}
    total_out = sum(n for name, n in links.items() if name.startswith("leaf out"))
    assert total_out == 2 * 3 + 2 * 1


def test_a_ring_of_one_member_a_leaf_crosses_whole() -> None:
    (links,) = taken(wiring(fabric(8)), ((0, 4), "ring"))
    assert links == {
        name: 1
        for a, b in ((0, 1), (1, 0))
        for name in (
            f"leaf out {4 * a}", f"leaf in {4 * b}", f"spine up {a}", f"spine down {b}"
        )
    }  # fmt: skip


def test_in_an_exchange_all_send_to_all() -> None:
    (links,) = taken(wiring(fabric(8)), ((0, 1, 4, 5), "exchange"))
    assert links["leaf out 0"] == 3 and links["leaf in 5"] == 3
    assert links["spine up 0"] == 4 and links["spine down 1"] == 4


@settings(deadline=None)
@given(
    st.sets(st.integers(0, 15), min_size=2, max_size=10),
    st.sampled_from(("ring", "exchange")),
    st.sampled_from(NETWORKS),
    st.sampled_from((fabric(16), fabric(16, node=2, leaf=4, rail=True))),
)
def test_what_goes_up_comes_down_and_what_is_sent_arrives(
    ranks: set[int], pattern: Pattern, network: Network, here: Cluster
) -> None:
    (links,) = taken(wiring(here, network), (tuple(ranks), pattern))
    for level, out, into in (("spine", "up", "down"), ("leaf", "out", "in"), ("rail", "out", "in")):
        sums = {
            side: sum(n for name, n in links.items() if name.startswith(f"{level} {side} "))
            for side in (out, into)
        }
        assert sums[out] == pytest.approx(sums[into])


# ── who takes which uplink ───────────────────────────────────────────────────────────────────────


def test_spines_are_as_many_as_links_below_less_oversubscription() -> None:
    for oversubscription, spines in ((1.0, 4), (2.0, 2), (4.0, 1)):
        here = fabric(8, oversubscription=oversubscription)
        pairs = [((a, b), "send") for a in range(4) for b in range(4, 8)]
        links = taken(wiring(here, Network("hash", flows=64)), *pairs)  # type: ignore[arg-type]
        ups = {name for one in links for name in one if name.startswith("spine up")}
        assert len(ups) == spines


def test_a_hashed_flow_keeps_its_spine_and_another_seed_gives_it_another() -> None:
    def spine(seed: int, a: int, b: int) -> str:
        (links,) = taken(wiring(fabric(64, leaf=32), Network("hash", seed=seed)), ((a, b), "send"))
        return next(name for name in links if name.startswith("spine up"))

    assert spine(0, 1, 33) == spine(0, 1, 33)
    assert len({spine(seed, 1, 33) for seed in range(20)}) > 10


def test_sub_flows_carry_equal_parts() -> None:
    (links,) = taken(wiring(fabric(8), Network("hash", flows=3)), ((0, 4), "send"))
    ups = [n for name, n in links.items() if name.startswith("spine up")]
    assert sum(ups) == pytest.approx(1) and all(n * 3 == pytest.approx(round(n * 3)) for n in ups)


def test_planned_flows_share_no_uplink_that_they_need_not() -> None:
    pairs = [((a, a + 4), "send") for a in range(4)]
    links = taken(wiring(fabric(8), PLANNED), *pairs)  # type: ignore[arg-type]
    carried = Counter(name for one in links for name in one)
    assert set(carried.values()) == {1}
    halved = taken(wiring(fabric(8, oversubscription=2.0), PLANNED), *pairs)  # type: ignore[arg-type]
    ups = Counter(name for one in halved for name in one if name.startswith("spine up"))
    assert set(ups.values()) == {2}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30))
def test_edges_at_a_node_differ_in_colour_and_no_more_are_used_than_meet_there(
    edges: list[tuple[int, int]],
) -> None:
    colours = coloured(edges)
    for side in (0, 1):
        ends = [(edge[side], colour) for edge, colour in zip(edges, colours, strict=True)]
        assert len(set(ends)) == len(ends)
    most = (
        max((max(Counter(e[s] for e in edges).values()) for s in (0, 1)), default=0) if edges else 0
    )
    assert max(colours, default=-1) < most


def test_chance_is_even_over_spines() -> None:
    drawn = Counter(mixed(0, a, b, 0) % 16 for a in range(40) for b in range(40))
    assert len(drawn) == 16 and all(abs(n - 100) < 40 for n in drawn.values())  # σ ≈ 10


# ── steps ────────────────────────────────────────────────────────────────────────────────────────


def across() -> Program:
    """Give four pipelines whose first stages are in one leaf, and their second in another."""
    return lower(model(vocab=8), plan(pp=2, dp=4, micro_batches=1, cut=(0, 3)))


def alone_s() -> float:
    """Give the seconds of a send alone: 16 positions of 8 values in float32."""
    return 16 * 8 * 4 / NODE_BYTES_PER_S


@pytest.mark.parametrize("network", [SPRAY, PLANNED])
def test_without_oversubscription_balanced_flows_do_not_slow_each_other(network: Network) -> None:
    line = simulate(across(), fabric(8), stack=software(), network=network)
    assert sends_s(line) == pytest.approx([alone_s()] * 4)
    assert line.alike == tuple((rank,) for rank in range(8))


@pytest.mark.parametrize("seed", range(6))
def test_hashed_flows_that_collide_share_their_link(seed: int) -> None:
    network = Network("hash", seed=seed)
    line = simulate(across(), fabric(8), stack=software(), network=network)
    spines = [mixed(seed, a, a + 4, 0) % 4 for a in range(4)]
    # All begin together and are alike, so that those on one spine end together.
    expected = [alone_s() * spines.count(spine) for spine in spines]
    assert sends_s(line) == pytest.approx(expected)


def test_of_some_seeds_of_hashing_many_collide() -> None:
    slow = [
        max(sends_s(simulate(across(), fabric(8), stack=software(), network=Network("hash", 1, s))))
        for s in range(20)
    ]
    # Four flows of four spines all differ in one of about 11 cases: 4!/4⁴.
    assert sum(s > 1.5 * alone_s() for s in slow) >= 14


def test_splitting_into_many_sub_flows_comes_near_to_spraying() -> None:
    def longest(network: Network) -> float:
        return max(sends_s(simulate(across(), fabric(8), stack=software(), network=network)))

    few, many = (
        float(np.mean([longest(Network("hash", k, seed)) for seed in range(8)])) for k in (1, 64)
    )
    assert few > 1.4 * longest(SPRAY)
    assert many < 1.35 * longest(SPRAY)


def test_oversubscribed_uplinks_halve_the_pace_of_all_who_send_at_once() -> None:
    here = fabric(8, oversubscription=2.0)
    for network in (SPRAY, PLANNED):
        line = simulate(across(), here, stack=software(), network=network)
        assert sends_s(line) == pytest.approx([2 * alone_s()] * 4)
    fair = simulate(across(), here, stack=software())
    assert sends_s(fair) == pytest.approx([2 * alone_s()])


def test_one_alone_has_all_uplinks_which_fair_shares_do_not_give_it() -> None:
    here = fabric(4, leaf=2, oversubscription=2.0)
    program = lower(model(vocab=8), plan(pp=4, micro_batches=1))
    crossing = {}
    for network in (Network(), SPRAY):
        line = simulate(program, here, stack=software(), network=network)
        sent = (line.kind == KINDS.index("pipeline")) & (line.rank == 1) & (line.sent_bytes > 0)
        crossing[network.balance] = float((line.stop_s - line.start_s)[sent].max())
    assert crossing["fair"] == pytest.approx(2 * crossing["spray"])


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(NETWORKS), st.sampled_from((1.0, 2.0)))
def test_on_played_links_nothing_overlaps_and_nothing_is_faster_than_alone(
    seed: int, network: Network, oversubscription: float
) -> None:
    program = lower(*draw(seed))
    here = fabric(16, oversubscription=oversubscription)
    line = simulate(program, here, stack=software(contention=0.3), network=network)
    assert line.finished
    assert (line.stop_s - line.start_s >= line.work_s * (1 - 1e-9) - 1e-12).all()
    for player in range(len(line.alike)):
        for stream in range(1, len(line.streams)):
            rows = np.flatnonzero((line.player == player) & (line.stream == stream))
            rows = rows[np.lexsort((line.stop_s[rows], line.start_s[rows]))]
            assert (line.start_s[rows][1:] >= line.stop_s[rows][:-1] - 1e-9).all()


# ── uneven clusters and measured links ───────────────────────────────────────────────────────────


def test_ranks_of_one_part_use_its_own_links_and_others_those_that_join_all() -> None:
    program = lower(model(), plan(dp=2, tp=2))
    (part,) = cluster(2).parts
    inner = cluster(2).levels
    fast = tuple(replace(v, bytes_per_s=4 * v.bytes_per_s, latency_s=0.0) for v in inner)
    slow = tuple(replace(v, latency_s=0.0) for v in inner)
    outer = replace(cluster(4, node=2).levels[-1], name="wide", latency_s=0.0)
    here = Cluster(
        "mixed",
        (Part(part.device, 2, fast), Part(part.device, 2, slow)),
        (*slow, replace(outer, devices=4)),
    )
    line = simulate(program, here, stack=software())
    assert line.alike == ((0, 1), (2, 3))
    inside = line.stream == line.streams.index("tp")
    quick, slower = (line.work_s[inside & (line.player == p)] for p in (0, 1))
    assert quick == pytest.approx(slower / 4)


def test_a_message_takes_as_long_as_was_measured_between_the_slowest_of_its_neighbours() -> None:
    program = lower(model(vocab=4096), plan(dp=4))
    even = replace(
        cluster(4, node=1), levels=(replace(cluster(4, node=1).levels[-1], latency_s=0),)
    )
    pace = even.levels[-1].bytes_per_s
    links = np.full((4, 4), pace)
    links[2, 3] = pace / 5
    plain, measured = (
        simulate(program, replace(even, links=table), stack=software())
        for table in ((), tuple(map(tuple, links.tolist())))
    )
    rows = plain.kind == KINDS.index("gradient")
    assert measured.work_s[rows] == pytest.approx(5 * plain.work_s[rows])


def test_ranks_whose_links_were_measured_otherwise_are_played_apart() -> None:
    program = lower(model(), plan(pp=2, dp=2, micro_batches=1, cut=(0, 3)))
    even = cluster(4, node=1)
    pace = even.levels[-1].bytes_per_s
    links = np.full((4, 4), pace)
    links[0, 2] = pace / 3  # from the first stage of one pipeline to its second
    slow = replace(even, links=tuple(map(tuple, links.tolist())))
    line = simulate(program, slow, stack=software())
    assert line.alike == ((0,), (1,), (2,), (3,))
    sent = (line.kind == KINDS.index("pipeline")) & (line.sent_bytes > 0)
    one, other = (line.work_s[sent & (line.rank == rank)][0] for rank in (0, 1))
    latency_s = even.levels[-1].latency_s
    assert one - latency_s == pytest.approx(3 * (other - latency_s))


# ── what cannot be ───────────────────────────────────────────────────────────────────────────────


def test_a_network_needs_switches_within_switches_and_a_flow() -> None:
    program = lower(model(), plan(dp=2))
    with pytest.raises(InputError) as caught:
        simulate(
            program, cluster(2), stack=software(), network=Network("hash", 0),
            faults=[SlowRank(5, 2.0)],
        )  # fmt: skip
    assert [p.field for p in caught.value.problems] == ["network.flows", "network", "faults.0"]
    assert "is 0, below 1; use 1 or more" in str(caught.value)
    assert (
        "toys has node: no level of switches inside another to hash over; name a cluster with a "
        "leaf or rail level inside its spine, as dgx-h100x512" in str(caught.value)
    )


def test_the_cluster_that_the_message_names_has_them() -> None:
    here = find("dgx-h100", devices=512)
    assert list(network_problems(Network("hash"), here)) == []
