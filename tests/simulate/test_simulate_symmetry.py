"""Ranks are alike exactly if nothing tells them or their partners apart."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from stretto.mesh import Mesh
from stretto.simulate.symmetry import alike

MESH = Mesh((("pp", 2), ("dp", 3), ("tp", 2)))
GROUPS = (("dp",), ("tp",))


def classes(
    mesh: Mesh, groups: Sequence[tuple[str, ...]], marked: dict[int, str]
) -> list[list[int]]:
    kinds = alike(mesh, groups, marks=[marked.get(r, "") for r in range(mesh.size)]).tolist()
    return [[r for r in range(mesh.size) if kinds[r] == k] for k in range(max(kinds) + 1)]


def test_without_marks_the_ranks_of_a_stage_are_alike() -> None:
    assert classes(MESH, GROUPS, {}) == [list(range(6)), list(range(6, 12))]


def test_a_mark_tells_apart_its_rank_its_groups_its_neighbour_and_theirs() -> None:
    # Of stage 0: rank 0, its group along tp (1), along dp (2, 4), and the others (3, 5).
    assert classes(MESH, GROUPS, {0: "slow"}) == [
        [0], [1], [2, 4], [3, 5], [6], [7], [8, 10], [9, 11],
    ]  # fmt: skip


def test_who_talks_to_nobody_is_told_apart_by_nobody() -> None:
    assert classes(MESH, (), {0: "slow"}) == [[0], [1, 2, 3, 4, 5], [6], [7, 8, 9, 10, 11]]


def test_ranks_with_the_same_mark_in_the_same_place_are_alike() -> None:
    assert classes(MESH, (("tp",),), {0: "slow", 2: "slow"}) == [
        [0, 2], [1, 3], [4, 5], [6, 8], [7, 9], [10, 11],
    ]  # fmt: skip


def test_a_mesh_without_pp_has_one_stage() -> None:
    assert classes(Mesh((("dp", 4),)), (("dp",),), {}) == [[0, 1, 2, 3]]


@given(
    st.permutations([("pp", 2), ("dp", 2), ("tp", 3)]),
    st.dictionaries(st.integers(0, 11), st.sampled_from(("a", "b"))),
)
def test_ranks_that_are_alike_have_partners_that_are(
    axes: list[tuple[str, int]], marked: dict[int, str]
) -> None:
    mesh = Mesh(tuple(axes))
    kinds = alike(mesh, GROUPS, marks=[marked.get(r, "") for r in range(12)]).tolist()
    for a in range(12):
        for b in range(12):
            if kinds[a] != kinds[b]:
                continue
            assert marked.get(a) == marked.get(b)
            for group in GROUPS:
                theirs = [sorted(kinds[r] for r in mesh.group(x, group)) for x in (a, b)]
                assert theirs[0] == theirs[1]
            for by in (1, -1):
                assert len({kinds[mesh.shift(x, "pp", by=by)] for x in (a, b)}) == 1
