"""Steps of a move on the blocks of one group, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stretto.layout import Kind, Step
from stretto.mesh import Mesh
from stretto.reference.arrays import combine, cropped, padded, play

LEFT, RIGHT = np.array([[1, 2], [3, 4]]), np.array([[5, 6], [7, 1]])


@pytest.mark.parametrize(
    ("step", "first", "second"),
    [
        (
            Step(Kind.ALL_GATHER, ("a",), dim=0),
            [[1, 2], [3, 4], [5, 6], [7, 1]],
            [[1, 2], [3, 4], [5, 6], [7, 1]],
        ),
        (
            Step(Kind.ALL_GATHER, ("a",), dim=1),
            [[1, 2, 5, 6], [3, 4, 7, 1]],
            [[1, 2, 5, 6], [3, 4, 7, 1]],
        ),
        (Step(Kind.ALL_REDUCE, ("a",)), [[6, 8], [10, 5]], [[6, 8], [10, 5]]),
        (Step(Kind.ALL_REDUCE, ("a",), reduction="max"), [[5, 6], [7, 4]], [[5, 6], [7, 4]]),
        (Step(Kind.REDUCE_SCATTER, ("a",), dim=0), [[6, 8]], [[10, 5]]),
        (Step(Kind.REDUCE_SCATTER, ("a",), dim=1, reduction="max"), [[5], [7]], [[6], [4]]),
        (
            Step(Kind.ALL_TO_ALL, ("a",), dim=0, to=1),
            [[1], [3], [5], [7]],
            [[2], [4], [6], [1]],
        ),
        (Step(Kind.SLICE, ("a",), dim=1), [[1], [3]], [[6], [1]]),
        (Step(Kind.MASK, ("a",)), [[1, 2], [3, 4]], [[0, 0], [0, 0]]),
    ],
    ids=str,
)
def test_each_kind_gives_both_ranks_what_it_should(
    step: Step, first: list[list[int]], second: list[list[int]]
) -> None:
    assert [block.tolist() for block in combine(step, [LEFT, RIGHT])] == [first, second]


def test_a_step_stays_within_its_groups() -> None:
    mesh = Mesh((("a", 2), ("b", 2)))
    blocks = [np.array([n]) for n in (1, 10, 100, 1000)]  # b varies fastest
    over_a = play([Step(Kind.ALL_REDUCE, ("a",))], blocks, mesh=mesh)
    over_b = play([Step(Kind.ALL_REDUCE, ("b",))], blocks, mesh=mesh)
    assert [int(block[0]) for block in over_a] == [101, 1010, 101, 1010]
    assert [int(block[0]) for block in over_b] == [11, 11, 1100, 1100]


def test_a_gather_over_two_axes_joins_in_the_order_in_which_they_are_named() -> None:
    mesh = Mesh((("a", 2), ("b", 2)))
    blocks = [np.array([n]) for n in range(4)]
    (inner_b, *_) = play([Step(Kind.ALL_GATHER, ("a", "b"), dim=0)], blocks, mesh=mesh)
    (inner_a, *_) = play([Step(Kind.ALL_GATHER, ("b", "a"), dim=0)], blocks, mesh=mesh)
    assert inner_b.tolist() == [0, 1, 2, 3]
    assert inner_a.tolist() == [0, 2, 1, 3]


def test_padding_widens_with_zeros_at_the_ends_and_never_narrows() -> None:
    assert padded(LEFT, (3, 1)).tolist() == [[1, 2], [3, 4], [0, 0]]


def test_cropping_takes_the_ends_off() -> None:
    assert cropped(LEFT, (1, 2)).tolist() == [[1, 2]]
