"""What may run again: every mixture, or another that is no worse."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from tests.search.layers import FOUR, WINDOWED, row, tight

from stretto.search import Task
from stretto.search.frame import Frame
from stretto.search.mixture import mixtures


def frame(model: object = FOUR) -> Frame:
    assert model in (FOUR, WINDOWED)
    task = Task(
        WINDOWED if model == WINDOWED else FOUR, tight("h100x1", memory_bytes=80e9), 8, 4096
    )
    return Frame(task, row(task))


def splits(count: int) -> Iterator[tuple[int, int, int]]:
    for some in range(count + 1):
        for whole in range(count - some + 1):
            yield count - some - whole, some, whole


def terms(mixture: np.ndarray, of: Frame) -> tuple[float, float, bool]:
    """Give seconds, bytes kept, and whether a whole layer runs again."""
    pieces = of.pieces
    return (
        float((mixture * pieces.layer.total_s).sum()),
        float((mixture * pieces.kept_bytes).sum()),
        bool(mixture[2].any()),
    )


@pytest.mark.parametrize("counts", [(0,), (1,), (4,), (9,)])
def test_no_mixture_is_better_in_all_than_those_found(counts: tuple[int]) -> None:
    of = frame()
    found = [terms(m, of) for m in mixtures(counts, of.pieces)]
    for split in splits(*counts):
        other = terms(np.array(split, dtype=float)[:, None], of)
        assert any(
            all(a <= b * (1 + 1e-12) for a, b in zip(one, other, strict=True)) for one in found
        )


@pytest.mark.parametrize("counts", [(1, 1), (3, 2), (0, 4)])
def test_with_two_kinds_of_layer_neither_is(counts: tuple[int, int]) -> None:
    of = frame(WINDOWED)
    found = [terms(m, of) for m in mixtures(counts, of.pieces)]
    for pair in itertools.product(*map(splits, counts)):
        other = terms(np.array(pair, dtype=float).T, of)
        assert any(
            all(a <= b * (1 + 1e-12) for a, b in zip(one, other, strict=True)) for one in found
        )


@pytest.mark.parametrize("counts", [(7,), (4, 5)])
def test_a_mixture_has_all_layers_of_each_kind(counts: tuple[int, ...]) -> None:
    of = frame(FOUR if len(counts) == 1 else WINDOWED)
    assert (mixtures(counts, of.pieces).sum(1) == counts).all()


def test_far_fewer_mixtures_are_left_than_there_are() -> None:
    assert len(mixtures((40,), frame().pieces)) < len([*splits(40)]) / 3
