"""Which ranks are alike, so that one of each kind need be played.

Ranks of a stage do the same; they also take the same time if nothing tells them apart, neither of
themselves nor of those that they talk to. This is the coarsest equitable partition of the graph of
who talks to whom, found by refinement of colours (Paige and Tarjan, 1987).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from stretto.mesh import Mesh

Ints = NDArray[np.int64]


def alike(mesh: Mesh, axes: Iterable[tuple[str, ...]], *, marks: Sequence[Hashable]) -> Ints:
    """Give the class of every rank, numbered in the order of stages and then of first ranks.

    Args:
        mesh: The ranks.
        axes: Of every kind of group that exchanges messages.
        marks: What tells each rank from others by itself.
    """
    ranks = np.arange(mesh.size)
    stages = coordinate(mesh, "pp")
    colour = _numbered(np.stack([stages, _indexed(marks)], axis=1))
    groups = [grouped(mesh, names) for names in dict.fromkeys(axes)]
    beside = [shifted(mesh, by) for by in (1, -1)]
    while True:
        columns = [colour, *(colour[peer] for peer in beside)]
        for group in groups:
            kinds = _numbered(np.sort(colour[group], axis=1))
            of_rank = np.empty_like(ranks)
            of_rank[group] = kinds[:, None]
            columns.append(of_rank)
        finer = _numbered(np.stack(columns, axis=1))
        if finer.max() == colour.max():
            break
        colour = finer
    first = np.full(colour.max() + 1, mesh.size)
    np.minimum.at(first, colour, ranks)
    order = np.lexsort((first, stages[first]))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    classes: Ints = place[colour]
    return classes


def coordinate(mesh: Mesh, axis: str) -> Ints:
    """Give the coordinate of every rank on an axis; 0 on one that the mesh lacks."""
    shape, names = [e for _, e in mesh.axes], [n for n, _ in mesh.axes]
    if axis not in names:
        return np.zeros(mesh.size, dtype=np.int64)
    places: Ints = np.indices(shape)[names.index(axis)].ravel()
    return places


def grouped(mesh: Mesh, axes: Sequence[str]) -> Ints:
    """Give the groups along `axes`: a row of ranks for each."""
    names = [n for n, _ in mesh.axes]
    inner = [names.index(n) for n in mesh.expand(axes)]
    outer = [i for i in range(len(names)) if i not in inner]
    grid = np.arange(mesh.size).reshape([e for _, e in mesh.axes])
    return grid.transpose(*outer, *inner).reshape(-1, mesh.extent(*axes))


def shifted(mesh: Mesh, by: int) -> Ints:
    """Give for every rank the one `by` places along ``pp``, around the ring."""
    names = [n for n, _ in mesh.axes]
    ranks = np.arange(mesh.size)
    if "pp" not in names:
        return ranks
    grid = ranks.reshape([e for _, e in mesh.axes])
    return np.roll(grid, -by, axis=names.index("pp")).ravel()


def _indexed(marks: Sequence[Hashable]) -> Ints:
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(mark, len(index)) for mark in marks], dtype=np.int64)


def _numbered(rows: Ints) -> Ints:
    """Give each row a number, the same for the same."""
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel()
