"""Initial values do not depend on how a parameter is cut, and are normal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.initial import initial
from stretto.layout import Box
from stretto.model import Parameter

WEIGHT = Parameter("layers.0.attention.query", ("ff", "embed"), std=1.0)
MASK = 2**64 - 1


def whole(shape: tuple[int, ...]) -> Box:
    return tuple((0, size) for size in shape)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, ...], Box]:
    """A shape, and a box of it that may reach beyond its ends."""
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)))
    bounds = [sorted(draw(st.tuples(st.integers(0, s + 3), st.integers(0, s + 3)))) for s in shape]
    return shape, tuple((start, stop) for start, stop in bounds)


@given(boxes())
def test_a_box_equals_that_slice_of_the_whole_and_padding_is_zero(
    case: tuple[tuple[int, ...], Box],
) -> None:
    shape, box = case
    padded = np.zeros([size + 3 for size in shape])
    padded[tuple(slice(0, size) for size in shape)] = initial(
        WEIGHT, whole(shape), shape=shape, seed=3
    )
    part = initial(WEIGHT, box, shape=shape, seed=3)
    assert np.array_equal(part, padded[tuple(slice(*side) for side in box)])


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((100_000,), ((3, 99_991),)),
        ((3, 40_000), ((1, 3), (17, 39_000))),
        ((5, 3, 20_001), ((2, 5), (0, 3), (0, 20_001))),
        ((40_000, 3), ((11, 39_999), (1, 3))),
    ],
)
def test_a_box_of_several_chunks_equals_that_slice_too(shape: tuple[int, ...], box: Box) -> None:
    values = initial(WEIGHT, whole(shape), shape=shape, seed=3)
    part = initial(WEIGHT, box, shape=shape, seed=3)
    assert np.array_equal(part, values[tuple(slice(*side) for side in box)])


def test_the_padding_of_a_constant_is_zero() -> None:
    ones = Parameter("norm.weight", ("embed",), constant=1.0)
    assert initial(ones, ((2, 6),), shape=(4,), seed=0).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_seed_and_name_each_change_every_value() -> None:
    other = Parameter("layers.1.attention.query", WEIGHT.dims, std=1.0)
    a, b, c = (
        initial(p, whole((50, 20)), shape=(50, 20), seed=seed)
        for p, seed in ((WEIGHT, 0), (WEIGHT, 1), (other, 0))
    )
    assert not np.any(a == b) and not np.any(a == c) and not np.any(b == c)


def test_values_are_a_standard_normal_number_times_the_deviation() -> None:
    small = Parameter(WEIGHT.name, WEIGHT.dims, std=0.02)
    a, b = (initial(p, whole((9, 7)), shape=(9, 7), seed=5) for p in (WEIGHT, small))
    assert np.array_equal(a * 0.02, b)


def test_values_have_the_moments_and_tails_of_a_normal_distribution() -> None:
    count = 400_000
    z = initial(WEIGHT, whole((count,)), shape=(count,), seed=0)
    # each estimate within five of its standard deviations
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(z**power) - moment) < 5 * math.sqrt(variance / count)
    for bound in (0.5, 1.0, 2.0, 3.0):
        inside = math.erf(bound / math.sqrt(2))
        assert abs(np.mean(abs(z) < bound) - inside) < 5 * math.sqrt(inside * (1 - inside) / count)


def test_neighbours_are_not_correlated() -> None:
    z = initial(WEIGHT, whole((400, 500)), shape=(400, 500), seed=0)
    for a, b in ((z[:, 1:], z[:, :-1]), (z[1:], z[:-1]), (z[:, 2:], z[:, :-2])):
        assert abs(np.mean(a * b)) < 5 / math.sqrt(a.size)


def splitmix64(state: int) -> int:
    """SplitMix64's output function, from Steele et al. (2014), figure 16."""
    z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def test_values_are_box_and_muller_of_splitmix64_in_exact_integers(monkeypatch: Any) -> None:
    key = 0x123456789ABCDEF0
    monkeypatch.setattr("stretto.initial._key", lambda name, seed: key)
    values = initial(WEIGHT, whole((3, 5)), shape=(3, 5), seed=0).reshape(-1)
    for i, value in enumerate(values):
        bits = splitmix64((key + (i + 1) * 0x9E3779B97F4A7C15) & MASK)
        u, v = ((bits >> 32) + 0.5) / 2**32, (bits & 0xFFFFFFFF) / 2**32
        assert value == pytest.approx(
            math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v), rel=1e-12, abs=1e-12
        )


def test_the_generator_is_the_published_one() -> None:
    # the first outputs of SplitMix64 from seed 0, as java.util.SplittableRandom gives them
    state, outputs = 0, []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        outputs.append(splitmix64(state))
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
