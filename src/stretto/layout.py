"""How a tensor lies on a mesh, and the moves from one layout to another.

The split / broadcast / partial algebra of OneFlow (Yuan et al., 2021) and GSPMD (Xu et al., 2021).
Communication is a function of two layouts, `redistribute`; nobody places a collective by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from stretto.mesh import Mesh

Reduction = Literal["sum", "max"]
Box = tuple[tuple[int, int], ...]
"""(start, stop) in each dimension, in global coordinates."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each element of a tensor lies.

    Attributes:
        dims: For each tensor dimension the mesh axes that split it, outermost first.
        partial: Axes over which ranks hold parts that are yet to be reduced, sorted.
        reduction: How those parts combine.

    A rank's block of a dimension is the one at its joint coordinate on that dimension's axes. Over
    axes named nowhere the tensor is replicated.
    """

    dims: tuple[tuple[str, ...], ...]
    partial: tuple[str, ...] = ()
    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        """Sort the partial axes; an axis is used once."""
        object.__setattr__(self, "partial", tuple(sorted(self.partial)))
        if not self.partial:
            object.__setattr__(self, "reduction", "sum")
        used = self.axes
        assert len(set(used)) == len(used), f"an axis is used twice in {self}"

    @property
    def axes(self) -> tuple[str, ...]:
        """Every axis that the layout names."""
        return (*(a for dim in self.dims for a in dim), *self.partial)

    @property
    def whole(self) -> Layout:
        """The same layout with nothing left to reduce."""
        return Layout(self.dims)

    def with_partial(self, axes: Iterable[str], *, reduction: Reduction = "sum") -> Layout:
        """Give the same split, with parts over `axes` instead of this layout's."""
        return Layout(self.dims, tuple(axes), reduction)

    def box(self, shape: tuple[int, ...], *, mesh: Mesh, rank: int) -> Box:
        """Give the part of a tensor of `shape` that `rank` holds.

        `shape` must be divisible by the extents that split it: see `Placement` for padding.
        """
        return tuple(
            (size // parts * index, size // parts * (index + 1))
            for size, axes in zip(shape, self.dims, strict=True)
            for parts, index in [(mesh.extent(*axes), mesh.index(rank, axes))]
        )

    def local(self, shape: tuple[int, ...], *, mesh: Mesh) -> tuple[int, ...]:
        """Give the shape of one rank's block of a tensor of `shape`."""
        return tuple(s // mesh.extent(*a) for s, a in zip(shape, self.dims, strict=True))

    def owns(self, *, mesh: Mesh, rank: int, besides: tuple[str, ...] = ()) -> bool:
        """Say whether `rank` is the first of those that hold the same block or part.

        Args:
            mesh: The mesh.
            rank: The rank.
            besides: Axes over which the tensor is not replicated for another reason.
        """
        coordinate = mesh.coordinate(rank)
        return all(coordinate[a] == 0 for a in coordinate if a not in (*self.axes, *besides))

    def __str__(self) -> str:
        dims = ", ".join("·".join(d) or "-" for d in self.dims)
        partial = f" {self.reduction}({', '.join(self.partial)})" if self.partial else ""
        return f"[{dims}]{partial}"


def intersect(a: Box, b: Box) -> Box | None:
    """Give the part common to two boxes; None if there is none."""
    box = tuple((max(p[0], q[0]), min(p[1], q[1])) for p, q in zip(a, b, strict=True))
    return None if any(start >= stop for start, stop in box) else box


class Kind(StrEnum):
    """What a step does with the blocks of a group."""

    ALL_GATHER = "all-gather"
    ALL_REDUCE = "all-reduce"
    REDUCE_SCATTER = "reduce-scatter"
    ALL_TO_ALL = "all-to-all"
    SLICE = "slice"
    """Keep one's own block of what is replicated; no communication."""
    MASK = "mask"
    """Keep the value on the first rank, zero on the others; no communication."""


@dataclass(frozen=True, slots=True)
class Step:
    """One primitive on every group along `axes`.

    Attributes:
        kind: What is done.
        axes: The axes of the group, outermost first.
        dim: The dimension that is gathered, scattered or sliced; for an all-to-all, the one that is
            gathered. -1 where no dimension is concerned.
        to: For an all-to-all the dimension that is split; otherwise -1.
        reduction: How a reduction combines.
    """

    kind: Kind
    axes: tuple[str, ...]
    dim: int = -1
    to: int = -1
    reduction: Reduction = "sum"

    @property
    def communicates(self) -> bool:
        """Whether bytes leave the rank."""
        return self.kind not in (Kind.SLICE, Kind.MASK)

    def __str__(self) -> str:
        dims = "" if self.dim < 0 else f" dim {self.dim}" + (f"→{self.to}" if self.to >= 0 else "")
        return f"{self.kind} {'·'.join(self.axes)}{dims}"


def redistribute(src: Layout, dst: Layout) -> tuple[Step, ...]:
    """Give the steps that turn layout `src` into layout `dst`; none if they are the same.

    A dimension that several axes split opens from the innermost out and closes from the outermost
    in, so that what both layouts share at the front stays in place.

    Args:
        src: The layout that is there.
        dst: The layout that is wanted, with as many dimensions.
    """
    assert len(src.dims) == len(dst.dims), f"{src} and {dst} differ in dimensions"
    keep = set(dst.partial) & set(src.partial) if src.reduction == dst.reduction else set()
    dims = [list(d) for d in src.dims]
    partial = [a for a in src.partial if a not in keep]
    steps = _open(dims, dst)
    for d, axes in enumerate(dst.dims):
        for axis in axes[len(dims[d]) :]:
            kind = Kind.REDUCE_SCATTER if axis in partial else Kind.SLICE
            steps.append(Step(kind, (axis,), dim=d, reduction=src.reduction))
            if axis in partial:
                partial.remove(axis)
    if partial:
        steps.append(Step(Kind.ALL_REDUCE, tuple(partial), reduction=src.reduction))
    masked = tuple(a for a in dst.partial if a not in keep)
    if masked and dst.reduction == "sum":  # a maximum of equal values needs no mask
        steps.append(Step(Kind.MASK, masked))
    return _merged(steps)


def _open(dims: list[list[str]], dst: Layout) -> list[Step]:
    """Gather what `dst` does not share at the front, changing `dims` in place."""
    shared = [
        next((i for i, (a, b) in enumerate(zip(s, d, strict=False)) if a != b), min(len(s), len(d)))
        for s, d in zip(dims, dst.dims, strict=True)
    ]
    steps: list[Step] = []
    for d, axes in enumerate(dims):
        while len(axes) > shared[d]:
            axis = axes.pop()
            to = next(
                (
                    e
                    for e, other in enumerate(dims)
                    if e != d and list(dst.dims[e][: len(other) + 1]) == [*other, axis]
                ),
                -1,
            )
            if to >= 0:
                steps.append(Step(Kind.ALL_TO_ALL, (axis,), dim=d, to=to))
                dims[to].append(axis)
                shared[to] = len(dims[to])
            else:
                steps.append(Step(Kind.ALL_GATHER, (axis,), dim=d))
    return steps


def _merged(steps: list[Step]) -> tuple[Step, ...]:
    """Join neighbours of one kind on one dimension into one step over several axes."""
    merged: list[Step] = []
    for step in steps:
        last = merged[-1] if merged else None
        if (
            last is not None
            and step.kind in (Kind.ALL_GATHER, Kind.REDUCE_SCATTER, Kind.SLICE)
            and replace(step, axes=last.axes) == last
        ):
            # gathers run from the innermost out, the others from the outermost in
            inward = step.kind is not Kind.ALL_GATHER
            axes = last.axes + step.axes if inward else step.axes + last.axes
            merged[-1] = replace(last, axes=axes)
        else:
            merged.append(step)
    return tuple(merged)


def apply(layout: Layout, step: Step) -> Layout:
    """Give the layout that `step` makes of `layout`."""
    dims = [list(d) for d in layout.dims]
    partial = set(layout.partial)
    match step.kind:
        case Kind.ALL_GATHER:
            dims[step.dim] = dims[step.dim][: -len(step.axes)]
        case Kind.ALL_REDUCE:
            partial -= set(step.axes)
        case Kind.REDUCE_SCATTER:
            partial -= set(step.axes)
            dims[step.dim] += step.axes
        case Kind.SLICE:
            dims[step.dim] += step.axes
        case Kind.ALL_TO_ALL:
            dims[step.dim] = dims[step.dim][: -len(step.axes)]
            dims[step.to] += step.axes
        case Kind.MASK:
            partial |= set(step.axes)
    return Layout(tuple(tuple(d) for d in dims), tuple(partial), layout.reduction)
