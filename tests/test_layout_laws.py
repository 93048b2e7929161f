"""Laws of layouts, played on arrays: `redistribute(a, b)` makes b of a, boxes tile, transposes.

A whole tensor holds different integers, so that equality is exact. `laid` cuts it by a layout;
`holds` tells whether blocks are that tensor in a layout, knowing nothing of steps.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stretto.layout import Kind, Layout, Reduction, Step, apply, redistribute
from stretto.mesh import Mesh
from stretto.reference.arrays import play

Array = NDArray[Any]


def layouts(axes: Sequence[str], dims: int) -> tuple[Layout, ...]:
    """Every layout: each axis on a dimension in any order, in parts, or unused."""

    def placed(rest: Sequence[str], split: tuple[Any, ...], partial: tuple[str, ...]) -> Any:
        if not rest:
            reductions: list[Reduction] = ["sum", "max"] if partial else ["sum"]
            for orders in itertools.product(*(itertools.permutations(d) for d in split)):
                yield from (Layout(orders, partial, reduction) for reduction in reductions)
            return
        yield from placed(rest[1:], split, partial)
        yield from placed(rest[1:], split, (*partial, rest[0]))
        for d in range(dims):
            wider = (*split[:d], (*split[d], rest[0]), *split[d + 1 :])
            yield from placed(rest[1:], wider, partial)

    return tuple(placed(axes, ((),) * dims, ()))


def part(layout: Layout, shape: tuple[int, ...], *, mesh: Mesh, rank: int) -> tuple[slice, ...]:
    return tuple(slice(*side) for side in layout.box(shape, mesh=mesh, rank=rank))


def laid(whole: Array, layout: Layout, *, mesh: Mesh, seed: int = 0) -> list[Array]:
    """What each rank holds of a tensor in a layout; parts are drawn."""
    rng, count = np.random.default_rng(seed), mesh.extent(*layout.partial)
    if layout.reduction == "sum":
        parts = [rng.integers(-9, 9, whole.shape) for _ in range(count - 1)]
        parts.append(whole - sum(parts))
    else:
        winner = rng.integers(0, count, whole.shape)
        less = [whole - rng.integers(0, 9, whole.shape) for _ in range(count)]
        parts = [np.where(winner == i, whole, below) for i, below in enumerate(less)]
    return [
        parts[mesh.index(rank, layout.partial)][part(layout, whole.shape, mesh=mesh, rank=rank)]
        for rank in range(mesh.size)
    ]


def holds(blocks: Sequence[Array], layout: Layout, whole: Array, *, mesh: Mesh) -> bool:
    """Whether blocks are a tensor in a layout: parts reduce to its box, replicas are equal."""
    reduce = np.max if layout.reduction == "max" else np.sum
    unused = [name for name, _ in mesh.axes if name not in layout.axes]
    return all(
        np.array_equal(
            reduce([blocks[r] for r in mesh.group(rank, layout.partial)], axis=0),
            whole[part(layout, whole.shape, mesh=mesh, rank=rank)],
        )
        and np.array_equal(blocks[rank], blocks[mesh.group(rank, unused)[0]])
        for rank in range(mesh.size)
    )


def numbers(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(1).permutation(math.prod(shape)).reshape(shape)


# ── redistribute ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_played_on_two_axes_it_gives_the_layout_that_is_wanted(dims: int) -> None:
    mesh = Mesh((("a", 2), ("b", 3)))
    whole = numbers((6,) * dims)
    every = layouts(("a", "b"), dims)
    assert len(every) == (dims + 2) ** 2 + dims + 2 * dims + 3  # orders of a·b; maxima
    for src, dst in itertools.product(every, every):
        blocks = play(redistribute(src, dst), laid(whole, src, mesh=mesh), mesh=mesh)
        assert holds(blocks, dst, whole, mesh=mesh), f"{src} → {dst}"


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_on_three_axes_every_route_is_made_of_right_steps_and_ends_where_it_should(
    dims: int,
) -> None:
    mesh = Mesh((("c", 2), ("a", 3), ("b", 2)))
    whole = numbers((12,) * dims)

    @functools.cache
    def right(layout: Layout, step: Step) -> bool:
        blocks = play((step,), laid(whole, layout, mesh=mesh), mesh=mesh)
        return holds(blocks, apply(layout, step), whole, mesh=mesh)

    axes = ("a", "b", "c")
    every = layouts(axes, dims)
    # all pairs but for the names of axes: those of the source are in order
    sources = [layout for layout in every if layout.axes == axes[: len(layout.axes)]]
    for src, dst in itertools.product(sources, every):
        at = src
        for step in redistribute(src, dst):
            assert right(at, step), f"{step} of {src} → {dst} at {at}"
            at = apply(at, step)
        assert at.dims == dst.dims, f"{src} → {dst} ends at {at}"
        if dst.reduction == "sum":
            assert at.partial == dst.partial, f"{src} → {dst} ends at {at}"
        else:  # equal values are parts of a maximum
            assert at.reduction == "max" or not at.partial
            assert set(at.partial) <= set(dst.partial), f"{src} → {dst} ends at {at}"


@st.composite
def layout_of(draw: st.DrawFn, axes: tuple[str, ...], dims: int) -> Layout:
    """Any layout, its axes in any order."""
    split: list[list[str]] = [[] for _ in range(dims)]
    partial = []
    for axis in draw(st.permutations(axes)):
        place = draw(st.integers(0, dims + 1))
        if place < dims:
            split[place].append(axis)
        elif place == dims:
            partial.append(axis)
    return Layout(tuple(map(tuple, split)), tuple(partial), draw(st.sampled_from(("sum", "max"))))


@st.composite
def routes(draw: st.DrawFn) -> tuple[Mesh, tuple[int, ...], Layout, Layout]:
    """Three or four axes in any order, all of different extents, and two layouts on them."""
    names = draw(st.permutations(("a", "b", "c", "d")))[: draw(st.integers(3, 4))]
    extents = draw(st.permutations((2, 3, 5, 1)))
    mesh = Mesh(tuple(zip(names, extents, strict=False)))
    dims = draw(st.integers(1, 3))
    shape = (mesh.size * draw(st.integers(1, 2)), *(mesh.size,) * (dims - 1))
    ordered = tuple(sorted(names))
    return mesh, shape, draw(layout_of(ordered, dims)), draw(layout_of(ordered, dims))


@settings(max_examples=60)
@given(routes())
def test_played_on_more_ranks_it_gives_the_layout_that_is_wanted(
    case: tuple[Mesh, tuple[int, ...], Layout, Layout],
) -> None:
    mesh, shape, src, dst = case
    whole = numbers(shape)
    blocks = play(redistribute(src, dst), laid(whole, src, mesh=mesh), mesh=mesh)
    assert holds(blocks, dst, whole, mesh=mesh)


@given(routes())
def test_it_does_nothing_where_the_layouts_are_the_same(
    case: tuple[Mesh, tuple[int, ...], Layout, Layout],
) -> None:
    assert redistribute(case[2], case[2]) == ()


# ── boxes ────────────────────────────────────────────────────────────────────────────────────────


@given(routes())
def test_the_boxes_of_owners_tile_the_tensor(
    case: tuple[Mesh, tuple[int, ...], Layout, Layout],
) -> None:
    mesh, shape, layout, _ = case
    covered = np.zeros(shape, int)
    for rank in range(mesh.size):
        block = covered[part(layout, shape, mesh=mesh, rank=rank)]
        assert block.shape == layout.local(shape, mesh=mesh)
        if layout.owns(mesh=mesh, rank=rank):
            block += 1
    parts = mesh.extent(*layout.partial)
    assert (covered == parts).all(), "every element has one owner for each of its parts"


# ── transposes ───────────────────────────────────────────────────────────────────────────────────

TRANSPOSES = [
    (Step(Kind.ALL_GATHER, ("a",), dim=0), Step(Kind.REDUCE_SCATTER, ("a",), dim=0)),
    (Step(Kind.ALL_GATHER, ("b", "a"), dim=1), Step(Kind.REDUCE_SCATTER, ("b", "a"), dim=1)),
    (Step(Kind.ALL_TO_ALL, ("b",), dim=0, to=1), Step(Kind.ALL_TO_ALL, ("b",), dim=1, to=0)),
    (Step(Kind.ALL_REDUCE, ("a", "b")), Step(Kind.ALL_REDUCE, ("a", "b"))),
    (Step(Kind.MASK, ("a",)), Step(Kind.MASK, ("a",))),
]


def inner(xs: Sequence[Array], ys: Sequence[Array]) -> int:
    return sum(int((x * y).sum()) for x, y in zip(xs, ys, strict=True))


def draws(shapes: Sequence[tuple[int, ...]], *, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.integers(-99, 99, shape) for shape in shapes]


@pytest.mark.parametrize(("forward", "backward"), TRANSPOSES, ids=str)
def test_a_step_and_its_transpose_are_adjoint_on_any_blocks(forward: Step, backward: Step) -> None:
    mesh = Mesh((("a", 2), ("c", 2), ("b", 3)))
    xs = draws([(6, 12)] * mesh.size, seed=0)
    ys = draws([block.shape for block in play((forward,), xs, mesh=mesh)], seed=1)
    there, back = play((forward,), xs, mesh=mesh), play((backward,), ys, mesh=mesh)
    assert inner(there, ys) == inner(xs, back)


def cotangent(layout: Layout, *, mesh: Mesh) -> Layout:
    """The layout of the cotangent of what lies in a layout: replicas and parts change places."""
    unused = tuple(name for name, _ in mesh.axes if name not in layout.axes)
    return Layout(layout.dims, unused)


def sums() -> Iterator[tuple[Layout, Layout]]:
    every = [layout for layout in layouts(("a", "b"), 2) if layout.reduction == "sum"]
    return itertools.product(every, every)


def test_the_route_between_cotangents_is_the_adjoint_of_the_route() -> None:
    mesh = Mesh((("a", 2), ("b", 3)))
    whole, other = numbers((6, 6)), numbers((6, 6)).T
    for src, dst in sums():
        back = cotangent(dst, mesh=mesh), cotangent(src, mesh=mesh)
        xs, ys = laid(whole, src, mesh=mesh), laid(other, back[0], mesh=mesh, seed=1)
        there = play(redistribute(src, dst), xs, mesh=mesh)
        here = play(redistribute(*back), ys, mesh=mesh)
        assert inner(there, ys) == inner(xs, here) == (whole * other).sum(), f"{src} → {dst}"


def test_the_cotangent_of_a_message_goes_by_the_transposed_message() -> None:
    mesh = Mesh((("a", 2), ("b", 3)))
    transposed = {
        Kind.ALL_GATHER: Kind.REDUCE_SCATTER,
        Kind.REDUCE_SCATTER: Kind.ALL_GATHER,
        Kind.ALL_TO_ALL: Kind.ALL_TO_ALL,
        Kind.ALL_REDUCE: Kind.ALL_REDUCE,
    }
    for src, dst in sums():
        steps = redistribute(src, dst)
        if len(steps) == 1 and steps[0].kind in transposed:
            (back,) = redistribute(cotangent(dst, mesh=mesh), cotangent(src, mesh=mesh))
            assert back.kind is transposed[steps[0].kind], f"{src} → {dst}"
            assert back.axes == steps[0].axes, f"{src} → {dst}"
