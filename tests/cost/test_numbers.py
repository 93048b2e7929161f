"""Records of numbers: what is gathered can be taken apart again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.cost import Number, gathered, record, taken
from stretto.cost.numbers import ceil_div, relu


@dataclass(frozen=True, slots=True)
class Leaf:
    x: Number
    y: Number


@dataclass(frozen=True, slots=True)
class Tree:
    leaves: tuple[Leaf, ...]
    z: Number


FLOATS = st.floats(-1e9, 1e9)
LEAVES = st.builds(lambda x, y: record(Leaf, x=x, y=y), FLOATS, FLOATS)
TREES = st.builds(lambda a, b, z: Tree((a, b), np.asarray(z)), LEAVES, LEAVES, st.floats(-1e9, 1e9))


@given(st.lists(TREES, min_size=1, max_size=5))
def test_what_is_gathered_can_be_taken_apart_bit_for_bit(trees: list[Tree]) -> None:
    whole = gathered(trees)
    assert whole.z.shape == (len(trees),)
    assert [taken(whole, i) for i in range(len(trees))] == trees


def test_single_numbers_stay_where_an_array_is_indexed() -> None:
    tree = Tree((record(Leaf, x=[1, 2, 3], y=7),), np.asarray(9.0))
    part = taken(tree, [2, 0])
    assert part.leaves[0].x.tolist() == [3, 1]
    assert (part.leaves[0].y, part.z) == (7, 9)


def test_a_record_of_arrays_and_single_numbers_is_gathered_by_broadcasting() -> None:
    whole = gathered([record(Leaf, x=[1, 2], y=3), record(Leaf, x=4, y=[5, 6])])
    assert whole.x.tolist() == [[1, 2], [4, 4]]
    assert whole.y.tolist() == [[3, 3], [5, 6]]


def test_a_record_holds_float64() -> None:
    leaf = record(Leaf, x=True, y=3)
    assert leaf.x.dtype == leaf.y.dtype == np.float64
    assert (leaf.x, leaf.y) == (1.0, 3.0)


@given(st.integers(0, 10**6), st.integers(1, 10**4))
def test_whole_numbers_divide_upwards(a: int, b: int) -> None:
    assert ceil_div(np.asarray(float(a)), np.asarray(float(b))) == -(-a // b)


def test_rounding_adds_no_part() -> None:
    """0.1 + 0.2 is more than 0.3 in floating point, yet three tenths."""
    assert ceil_div(np.asarray(0.1 + 0.2), np.asarray(0.1)) == 3


def test_nothing_is_negative_after_relu() -> None:
    assert relu(np.asarray([-2.0, 0.0, 3.0])) == pytest.approx([0, 0, 3])
