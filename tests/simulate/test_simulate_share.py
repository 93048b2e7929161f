"""Links are shared as max-min fairness says, by hand and as laws."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.simulate.route import Route
from stretto.simulate.share import Shares


def on(*links: int, flows: float = 1.0, share: float = 1.0) -> Route:
    """Give a route of equal flows on links."""
    return Route(links, (flows,) * len(links), (share,) * len(links))


def shared(
    *messages: tuple[Route, float], capacity: Sequence[float]
) -> tuple[Shares, list[list[int]]]:
    """Let messages begin, each a route and its bytes per second alone; give what each changed."""
    shares = Shares(
        [route for route, _ in messages],
        route=[*range(len(messages))],
        rate=[rate for _, rate in messages],
        capacity=capacity,
    )
    return shares, [sorted(shares.begin(m)) for m in range(len(messages))]


def test_who_is_alone_on_its_links_has_its_pace() -> None:
    shares, changed = shared((on(0), 8.0), (on(1), 8.0), capacity=(8.0, 8.0))
    assert shares.pace == [1.0, 1.0]
    assert changed == [[], []]


def test_two_on_a_link_have_half_of_it_and_whoever_stays_gets_all_back() -> None:
    shares, changed = shared((on(0), 8.0), (on(0, 1), 8.0), capacity=(8.0, 8.0))
    assert shares.pace == [0.5, 0.5]
    assert changed == [[], [0, 1]]
    assert sorted(shares.end(1)) == [0]
    assert shares.pace == [1.0, 1.0]


def test_what_a_slow_flow_leaves_goes_to_the_others() -> None:
    # The second asks for 2 of its fair 4; the first has the other 6.
    shares, _ = shared((on(0), 8.0), (on(0), 2.0), capacity=(8.0,))
    assert shares.pace == [pytest.approx(0.75), 1.0]


def test_who_is_held_back_elsewhere_leaves_its_part_to_others() -> None:
    # Link 0: of three, 8/3 each. Link 1: the third shares it with another, 1 each; so the first two
    # have 3.5 each of link 0.
    shares, _ = shared(
        (on(0), 8.0), (on(0), 8.0), (on(0, 1), 8.0), (on(1), 8.0), capacity=(8.0, 2.0)
    )
    assert shares.pace == pytest.approx([3.5 / 8, 3.5 / 8, 1 / 8, 1 / 8])


def test_a_message_of_two_flows_on_a_link_has_twice_the_part_of_one() -> None:
    # Two flows of 4 each, and one of 8: of 9, three parts of 3.
    shares, _ = shared((on(0, flows=2.0, share=0.5), 8.0), (on(0), 8.0), capacity=(9.0,))
    assert shares.pace == [pytest.approx(0.75), pytest.approx(0.375)]


def test_all_flows_of_a_message_are_as_slow_as_the_slowest() -> None:
    ring = Route((0, 1), (1.0, 1.0), (1.0, 1.0))
    shares, _ = shared((ring, 8.0), (on(1), 8.0), (on(0), 8.0), capacity=(8.0, 4.0))
    # On link 1 two have 2 each; the ring then takes only 2 of link 0, and 6 are left there.
    assert shares.pace == pytest.approx([0.25, 0.25, 0.75])


def test_what_takes_no_link_is_never_slowed() -> None:
    shares = Shares([on(0)], route=[-1, 0], rate=[0.0, 8.0], capacity=(8.0,))
    assert shares.begin(0) == shares.begin(1) == shares.end(0) == []
    assert shares.pace == [1.0, 1.0]


messages = st.lists(
    st.tuples(
        st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True),
        st.integers(1, 3),
        st.floats(0.5, 20.0),
    ),
    min_size=1,
    max_size=7,
)


@given(messages, st.lists(st.floats(1.0, 10.0), min_size=5, max_size=5), st.data())
def test_no_link_carries_more_than_it_can_and_nobody_could_have_more_for_nothing(
    drawn: list[tuple[list[int], int, float]], capacity: list[float], data: st.DataObject
) -> None:
    routes = [on(*links, flows=float(flows)) for links, flows, _ in drawn]
    rates = [rate for _, _, rate in drawn]
    shares = Shares(routes, route=[*range(len(drawn))], rate=rates, capacity=capacity)
    for m in range(len(drawn)):
        shares.begin(m)
    gone = data.draw(st.sets(st.integers(0, len(drawn) - 1)))
    for m in gone:
        shares.end(m)
    left = [m for m in range(len(drawn)) if m not in gone]
    carried = [0.0] * 5
    for m in left:
        for link, flows in zip(routes[m].links, routes[m].flows, strict=True):
            carried[link] += flows * rates[m] * shares.pace[m]
    assert all(c <= limit * (1 + 1e-9) for c, limit in zip(carried, capacity, strict=True))
    for m in left:
        # Its own pace, or a full link on which no flow is faster than its own.
        full = [link for link in routes[m].links if carried[link] >= capacity[link] * (1 - 1e-9)]
        mine = rates[m] * shares.pace[m]
        fastest = [
            max(rates[o] * shares.pace[o] for o in left if link in routes[o].links) for link in full
        ]
        assert shares.pace[m] == 1.0 or any(mine >= most * (1 - 1e-9) for most in fastest)
    assert all(shares.pace[m] == 1.0 for m in gone)


@given(messages, st.lists(st.floats(1.0, 10.0), min_size=5, max_size=5))
def test_paces_do_not_depend_on_the_order_in_which_messages_began(
    drawn: list[tuple[list[int], int, float]], capacity: list[float]
) -> None:
    routes = [on(*links, flows=float(flows)) for links, flows, _ in drawn]
    orders = [range(len(drawn)), reversed(range(len(drawn)))]
    paces = []
    for order in orders:
        shares = Shares(
            routes, route=[*range(len(drawn))], rate=[r for _, _, r in drawn], capacity=capacity
        )
        for m in order:
            shares.begin(m)
        paces.append(shares.pace)
    assert paces[0] == pytest.approx(paces[1])
