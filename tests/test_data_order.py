from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stretto.data.order import permute

SEEDS = st.integers(-(2**70), 2**70)


def shuffle(size: int, *, seed: int = 0, epoch: int = 0) -> NDArray[np.int64]:
    return permute(np.arange(size), size=size, seed=seed, epoch=epoch)


def chi_square(counts: list[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 for count in counts) / expected


@settings(deadline=None)
@given(size=st.integers(1, 3000), seed=SEEDS, epoch=st.integers(0, 2**40))
def test_every_size_seed_and_epoch_gives_a_permutation(size: int, seed: int, epoch: int) -> None:
    assert sorted(shuffle(size, seed=seed, epoch=epoch)) == list(range(size))


@pytest.mark.parametrize("size", range(1, 65))
def test_every_small_size_gives_permutations(size: int) -> None:
    for epoch in range(20):
        assert sorted(shuffle(size, epoch=epoch)) == list(range(size))


@settings(deadline=None)
@given(size=st.integers(10**6, 2**62), seed=SEEDS, data=st.data())
def test_distinct_places_of_a_huge_range_hold_distinct_numbers_of_it(
    size: int, seed: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, size - 1000))
    found = permute(np.arange(start, start + 1000), size=size, seed=seed, epoch=3)
    assert len(set(found.tolist())) == 1000
    assert 0 <= found.min() <= found.max() < size


@settings(deadline=None)
@given(size=st.integers(1, 500), data=st.data())
def test_any_place_of_any_epoch_is_found_alone(size: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, size - 1))
    epochs = np.array([[0, 7], [2**33, 7]])
    together = permute(place, size=size, seed=5, epoch=epochs)
    assert together.shape == (2, 2)
    for at in np.ndindex(2, 2):
        assert together[at] == shuffle(size, seed=5, epoch=int(epochs[at]))[place]


# The bounds below are the 0.1 % points of chi-square; the numbers are fixed, so nothing is random.


def test_each_number_comes_first_equally_often() -> None:
    first = permute(np.zeros(7000, int), size=7, seed=1, epoch=np.arange(7000))
    assert chi_square(np.bincount(first, minlength=7).tolist()) < 22.46


def test_all_orders_of_four_come_equally_often() -> None:
    places, epochs = np.meshgrid(np.arange(4), np.arange(24_000))
    orders = Counter(map(tuple, permute(places, size=4, seed=2, epoch=epochs).tolist()))
    counts = [orders[order] for order in itertools.permutations(range(4))]
    assert chi_square(counts) < 49.73


def test_each_seed_gives_an_order_of_its_own() -> None:
    first = [int(permute(0, size=7, seed=seed, epoch=0)) for seed in range(7000)]
    assert chi_square(np.bincount(first, minlength=7).tolist()) < 22.46


@pytest.mark.parametrize("size", [10_007, 10_000, 2**14, 100**2 + 1])
def test_an_order_shows_no_trace_of_the_sequence(size: int) -> None:
    order = shuffle(size, seed=3)
    bound = 4 / size**0.5  # four standard deviations of a correlation of independent numbers
    for lag in (1, 2, 3, 100, 101, 128):
        assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < bound
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < bound
    # Neighbours that stay neighbours: Poisson with mean 2; more than 11 once in 240 thousand.
    assert (abs(np.diff(order)) == 1).sum() < 12
    # A rising run of 10 starts at a given place once in 10! = 3.6 million.
    rising = "".join("01"[int(up)] for up in np.diff(order) > 0)
    assert "1" * 9 not in rising


def test_two_epochs_and_two_seeds_have_nothing_in_common() -> None:
    size = 10_007
    orders = [shuffle(size, seed=seed, epoch=epoch) for seed in (3, 4) for epoch in (0, 1)]
    for one, other in itertools.combinations(orders, 2):
        assert (one == other).sum() < 8  # Poisson with mean 1
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / size**0.5
