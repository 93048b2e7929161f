"""The mesh is arithmetic: ranks, coordinates, groups, and views of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.errors import PlanError
from stretto.mesh import Mesh

NAMES = ("pp", "dp", "cp", "tp")


@st.composite
def meshes(draw: st.DrawFn) -> Mesh:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    return Mesh(tuple((name, draw(st.integers(1, 4))) for name in names))


@st.composite
def places(draw: st.DrawFn) -> tuple[Mesh, int, tuple[str, ...]]:
    """A mesh, a rank of it, and some of its axes in any order."""
    mesh = draw(meshes())
    axes = draw(st.lists(st.sampled_from(mesh.names), unique=True))
    return mesh, draw(st.integers(0, mesh.size - 1)), tuple(axes)


@given(places())
def test_a_coordinate_leads_back_to_its_rank(place: tuple[Mesh, int, tuple[str, ...]]) -> None:
    mesh, rank, _ = place
    assert mesh.rank(mesh.coordinate(rank)) == rank


@given(places())
def test_the_groups_along_any_axes_hold_each_rank_once(
    place: tuple[Mesh, int, tuple[str, ...]],
) -> None:
    mesh, _, axes = place
    groups = mesh.groups(axes)
    assert sorted(rank for group in groups for rank in group) == list(range(mesh.size))
    assert {len(group) for group in groups} == {mesh.extent(*axes)}


@given(places())
def test_a_rank_stands_in_its_group_at_its_index(place: tuple[Mesh, int, tuple[str, ...]]) -> None:
    mesh, rank, axes = place
    assert mesh.group(rank, axes)[mesh.index(rank, axes)] == rank


@given(places())
def test_ranks_of_a_group_differ_along_its_axes_only(
    place: tuple[Mesh, int, tuple[str, ...]],
) -> None:
    mesh, rank, axes = place
    here = mesh.coordinate(rank)
    for other in mesh.group(rank, axes):
        there = mesh.coordinate(other)
        assert {name for name in here if here[name] != there[name]} <= set(axes)


@given(places(), st.integers(-9, 9))
def test_shifting_there_and_back_is_no_shift(
    place: tuple[Mesh, int, tuple[str, ...]], by: int
) -> None:
    mesh, rank, _ = place
    axis = mesh.axes[0][0]
    assert mesh.shift(mesh.shift(rank, axis, by=by), axis, by=-by) == rank


@given(meshes(), st.data())
def test_splitting_an_axis_leaves_its_groups_as_they_were(mesh: Mesh, data: st.DataObject) -> None:
    axis, extent = data.draw(st.sampled_from(mesh.axes))
    outer = data.draw(st.sampled_from([n for n in range(1, extent + 1) if extent % n == 0]))
    cut = mesh.split(axis, (("a", outer), ("b", extent // outer)))
    assert cut.size == mesh.size
    for name, _ in mesh.axes:
        assert cut.groups((name,)) == mesh.groups((name,))
        assert cut.extent(name) == mesh.extent(name)
    for rank in range(mesh.size):
        assert cut.index(rank, (axis,)) == mesh.index(rank, (axis,))


def test_the_last_axis_varies_fastest() -> None:
    mesh = Mesh((("pp", 2), ("dp", 2), ("tp", 3)))
    assert mesh.size == 12
    assert mesh.coordinate(7) == {"pp": 1, "dp": 0, "tp": 1}
    assert mesh.group(7, ("tp",)) == (6, 7, 8)
    assert mesh.group(7, ("dp",)) == (7, 10)
    assert mesh.group(7, ("pp",)) == (1, 7)
    assert mesh.group(7, ("dp", "tp")) == (6, 7, 8, 9, 10, 11)
    assert mesh.group(7, ("tp", "dp")) == (6, 9, 7, 10, 8, 11)
    assert mesh.group(7, ()) == (7,)


def test_neighbours_close_a_ring() -> None:
    mesh = Mesh((("pp", 3), ("tp", 2)))
    assert [mesh.shift(rank, "pp", by=1) for rank in range(6)] == [2, 3, 4, 5, 0, 1]


def test_a_view_speaks_of_the_axes_that_it_stands_for() -> None:
    mesh = Mesh((("dp", 2), ("cp", 2), ("tp", 2)), (("ep", ("dp", "cp")),))
    assert mesh.names == ("dp", "cp", "tp", "ep")
    assert mesh.expand(("tp", "ep")) == ("tp", "dp", "cp")
    assert mesh.extent("ep") == 4
    assert mesh.group(5, ("ep",)) == (1, 3, 5, 7)
    assert mesh.index(5, ("ep",)) == 2


def test_an_axis_of_one_rank_splits_nothing() -> None:
    mesh = Mesh((("dp", 1), ("tp", 2)))
    assert mesh.expand(("dp", "tp")) == ("tp",)


def test_an_unknown_axis_has_extent_1_but_cannot_be_expanded() -> None:
    mesh = Mesh((("dp", 2),))
    assert mesh.extent("tp") == 1
    with pytest.raises(KeyError):
        mesh.expand(("tp",))


def test_a_split_axis_is_replaced_in_views_of_it() -> None:
    mesh = Mesh((("dp", 2), ("tp", 4)), (("model", ("dp", "tp")),))
    cut = mesh.split("tp", (("tp.kv", 2), ("tp.group", 2)))
    assert cut.axes == (("dp", 2), ("tp.kv", 2), ("tp.group", 2))
    assert dict(cut.views) == {"model": ("dp", "tp.kv", "tp.group"), "tp": ("tp.kv", "tp.group")}


def test_parts_that_do_not_multiply_to_the_axis_are_a_bug() -> None:
    with pytest.raises(AssertionError):
        Mesh((("tp", 4),)).split("tp", (("a", 2), ("b", 3)))


def test_all_problems_of_a_mesh_are_listed_together() -> None:
    views = (("ep", ("dp", "cp")), ("v", ()), ("w", ("tp", "tp")))
    with pytest.raises(PlanError) as error:
        Mesh((("dp", 0), ("tp", 2), ("tp", 2)), views)
    rule, remedy = "a view lists different mesh axes, got", "choose from ['dp', 'tp']"
    assert [str(p) for p in error.value.problems] == [
        "mesh.tp: an axis or view is named twice; name it once",
        "mesh.dp: extent 0 is below 1; use 1 or more",
        f"mesh.views.ep: {rule} ['dp', 'cp']; {remedy}",
        f"mesh.views.v: {rule} []; {remedy}",
        f"mesh.views.w: {rule} ['tp', 'tp']; {remedy}",
    ]


def test_a_view_may_not_take_the_name_of_an_axis() -> None:
    with pytest.raises(PlanError, match=r"mesh\.dp: an axis or view is named twice"):
        Mesh((("dp", 2), ("tp", 2)), (("dp", ("tp",)),))


def test_meshes_are_values() -> None:
    assert Mesh((("dp", 2),)) == Mesh((("dp", 2),))
    assert len({Mesh((("dp", 2),)), Mesh((("dp", 2),))}) == 1
