"""Layouts: who holds what. That the moves do what they say is in `test_layout_laws`."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.layout import Kind, Layout, Step, apply, intersect, redistribute
from stretto.mesh import Mesh

MESH = Mesh((("a", 2), ("b", 3), ("c", 2)))
AXES = ("a", "b", "c")


@st.composite
def layouts(draw: st.DrawFn, dims: int = 2) -> Layout:
    """Each axis, in any order, splits a dimension, or holds parts, or replicates."""
    order = draw(st.permutations(AXES))
    places = [draw(st.integers(-2, dims - 1)) for _ in order]
    split = tuple(
        tuple(a for a, p in zip(order, places, strict=True) if p == d) for d in range(dims)
    )
    partial = tuple(a for a, p in zip(order, places, strict=True) if p == -1)
    return Layout(split, partial, draw(st.sampled_from(("sum", "max"))))


@given(layouts())
def test_boxes_tile_the_tensor_but_for_replicas_and_parts(layout: Layout) -> None:
    shape = (12, 12)
    copies = MESH.size // MESH.extent(*layout.dims[0], *layout.dims[1])
    held = dict.fromkeys(itertools.product(range(shape[0]), range(shape[1])), 0)
    for rank in range(MESH.size):
        rows, columns = layout.box(shape, mesh=MESH, rank=rank)
        for point in itertools.product(range(*rows), range(*columns)):
            held[point] += 1
    assert set(held.values()) == {copies}


@given(layouts())
def test_every_box_has_the_local_shape(layout: Layout) -> None:
    for rank in range(MESH.size):
        box = layout.box((12, 24), mesh=MESH, rank=rank)
        assert tuple(b - a for a, b in box) == layout.local((12, 24), mesh=MESH)


@given(layouts())
def test_every_block_and_part_has_one_owner(layout: Layout) -> None:
    owned = [
        (layout.box((12, 12), mesh=MESH, rank=rank), MESH.index(rank, layout.partial))
        for rank in range(MESH.size)
        if layout.owns(mesh=MESH, rank=rank)
    ]
    assert len(owned) == len(set(owned)) == MESH.extent(*layout.axes)


@given(layouts(), layouts())
def test_the_steps_of_redistribute_lead_from_one_layout_to_the_other(
    src: Layout, dst: Layout
) -> None:
    layout = src
    for step in redistribute(src, dst):
        layout = apply(layout, step)
    assert layout.dims == dst.dims
    if dst.reduction == "sum":
        assert layout == dst
    else:  # equal values are their own partial maxima
        assert set(layout.partial) <= set(dst.partial)


@given(layouts())
def test_a_tensor_that_lies_right_does_not_move(layout: Layout) -> None:
    assert redistribute(layout, layout) == ()


@given(layouts(), layouts())
def test_no_step_is_longer_than_it_must_be(src: Layout, dst: Layout) -> None:
    """Neighbours of one kind on one dimension are one step: one message."""
    for one, two in itertools.pairwise(redistribute(src, dst)):
        same = (one.kind, one.dim, one.to) == (two.kind, two.dim, two.to)
        assert not same or one.kind is Kind.ALL_TO_ALL


REPLICATED = Layout(((), ()))


@pytest.mark.parametrize(
    ("src", "dst", "steps"),
    [
        (Layout((("a",), ())), REPLICATED, (Step(Kind.ALL_GATHER, ("a",), dim=0),)),
        (REPLICATED, Layout(((), ("a",))), (Step(Kind.SLICE, ("a",), dim=1),)),
        (Layout(((), ()), ("a",)), REPLICATED, (Step(Kind.ALL_REDUCE, ("a",)),)),
        (
            Layout(((), ()), ("a",)),
            Layout((("a",), ())),
            (Step(Kind.REDUCE_SCATTER, ("a",), dim=0),),
        ),
        (
            Layout((("a",), ())),
            Layout(((), ("a",))),
            (Step(Kind.ALL_TO_ALL, ("a",), dim=0, to=1),),
        ),
        (REPLICATED, Layout(((), ()), ("a",)), (Step(Kind.MASK, ("a",)),)),
        (
            Layout(((), ()), ("a",), "max"),
            REPLICATED,
            (Step(Kind.ALL_REDUCE, ("a",), reduction="max"),),
        ),
        (  # fully sharded inside, replicated outside: scatter over one, reduce over the other
            Layout(((), ()), ("a", "b")),
            Layout((("b",), ())),
            (
                Step(Kind.REDUCE_SCATTER, ("b",), dim=0),
                Step(Kind.ALL_REDUCE, ("a",)),
            ),
        ),
        (  # what both share at the front stays in place
            Layout((("a", "b", "c"), ())),
            Layout((("a",), ())),
            (Step(Kind.ALL_GATHER, ("b", "c"), dim=0),),
        ),
        (Layout((("a", "b"), ())), Layout((("a", "c"), ())), (
            Step(Kind.ALL_GATHER, ("b",), dim=0), Step(Kind.SLICE, ("c",), dim=0),
        )),
    ],
)  # fmt: skip
def test_the_textbook_moves_are_one_collective_each(
    src: Layout, dst: Layout, steps: tuple[Step, ...]
) -> None:
    assert redistribute(src, dst) == steps


def test_a_block_is_at_the_joint_coordinate_of_the_axes_that_split_it() -> None:
    layout = Layout((("b", "a"), ()))  # b outside, though a is outer in the mesh
    rank = MESH.rank({"a": 1, "b": 2})
    assert layout.box((12, 5), mesh=MESH, rank=rank) == ((10, 12), (0, 5))


def test_ownership_can_leave_out_axes_that_hold_other_tensors() -> None:
    mesh = Mesh((("pp", 2), ("dp", 2)))
    layout = Layout(((),))
    assert [layout.owns(mesh=mesh, rank=r) for r in range(4)] == [True, False, False, False]
    besides = [layout.owns(mesh=mesh, rank=r, besides=("pp",)) for r in range(4)]
    assert besides == [True, False, True, False]


def test_partial_axes_have_no_order_and_nothing_to_reduce_has_no_reduction() -> None:
    assert Layout(((),), ("b", "a")) == Layout(((),), ("a", "b"))
    assert Layout(((),), (), "max") == Layout(((),))


def test_an_axis_is_used_once() -> None:
    for dims, partial in (((("a",), ("a",)), ()), ((("a", "a"), ()), ()), ((("a",), ()), ("a",))):
        with pytest.raises(AssertionError, match="an axis is used twice"):
            Layout(dims, partial)


def test_layouts_with_different_dimensions_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="differ in dimensions"):
        redistribute(Layout(((),)), REPLICATED)


def test_layouts_and_steps_read_well() -> None:
    assert str(Layout((("dp", "cp"), ()), ("tp",), "max")) == "[dp·cp, -] max(tp)"
    assert str(Step(Kind.ALL_TO_ALL, ("a", "b"), dim=0, to=1)) == "all-to-all a·b dim 0→1"
    assert str(Step(Kind.ALL_REDUCE, ("a",))) == "all-reduce a"


def test_slices_and_masks_stay_on_the_rank() -> None:
    assert [k for k in Kind if not Step(k, ("a",)).communicates] == [Kind.SLICE, Kind.MASK]


def test_boxes_meet_in_what_they_share() -> None:
    assert intersect(((0, 4), (2, 9)), ((2, 6), (0, 3))) == ((2, 4), (2, 3))
    assert intersect(((0, 4), (0, 2)), ((0, 4), (2, 3))) is None
