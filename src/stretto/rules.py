"""Rules: logical dimension → axes, and the placement that they give a model on a mesh.

Two kinds of table. *compute*: how a tensor lies while it is used. *storage*: what is appended,
inner, while it rests; one table each for parameters, gradients and optimizer state, so that
``embed = dp`` in all three is ZeRO-3/FSDP, and only for the optimizer it is ZeRO-1 (Rajbhandari et
al., 2020). Data, tensor, sequence, vocabulary parallelism and hybrid sharding are lines of these
tables, not modules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from stretto.layout import Layout
from stretto.mesh import Mesh
from stretto.model import Model, Parameter

Table = tuple[tuple[str, tuple[str, ...]], ...]
"""(logical dimension, axes that split it, outermost first), in order of precedence."""

COMPUTE_DIMS = ("batch", "seq", "time", "heads", "ff", "vocab", "expert", "expert_ff")
"""What a compute rule may split. ``heads`` is ``kv_heads`` and, where that is short, ``group``;
``time`` are positions in use, ``seq`` between blocks. ``ff`` holds for feed-forward units of every
kind, but where ``expert_ff`` says otherwise for those of experts."""
STORAGE_DIMS = (
    "embed", "ff", "kv_heads", "group", "head_dim", "vocab", "position", "pair", "expert",
    "expert_ff", "shared_ff", "route", "q_rank", "kv_rank", "nope_dim", "rope_dim", "value_dim",
    "joined",
)  # fmt: skip
"""What a storage rule may split."""
_FEED_FORWARD = ("expert_ff", "shared_ff")


class Store(StrEnum):
    """What rests between uses, each with a storage table of its own."""

    PARAMETER = "parameter"
    GRADIENT = "gradient"
    OPTIMIZER = "optimizer"


@dataclass(frozen=True, slots=True)
class Rules:
    """The tables of a plan.

    Attributes:
        compute: How tensors lie while they are used.
        parameter: Appended while a parameter rests.
        gradient: Appended while a gradient accumulates.
        optimizer: Appended to master weights and optimizer state.
    """

    compute: Table = ()
    parameter: Table = ()
    gradient: Table = ()
    optimizer: Table = ()

    def axes(self, dim: str) -> tuple[str, ...]:
        """Give the axes or views that split a logical dimension in use."""
        table = dict(self.compute)
        return table.get(dim, table.get("ff", ()) if dim in _FEED_FORWARD else ())

    def storage(self, store: Store) -> Table:
        """Give the storage table of `store`."""
        match store:
            case Store.PARAMETER:
                return self.parameter
            case Store.GRADIENT:
                return self.gradient
            case Store.OPTIMIZER:
                return self.optimizer


@dataclass(frozen=True)
class Placement:
    """Where every tensor of a model lies under rules.

    A dimension that a compute rule splits is padded with zeros to a multiple of its extents, which
    is exact for heads, feed-forward units and vocabulary: padded weights are zero, add nothing and
    get no gradient. Where an axis is wider than the key heads, it is cut in two: the outer part
    splits key heads, the inner one the query heads of each, over which key heads are replicated.
    (Padded query heads of a real key head do attend: whoever computes leaves them out by name.) A
    dimension that only a storage rule splits is padded at rest and cropped in use.

    Attributes:
        model: What is placed.
        whole_mesh: The mesh of the plan.
        rules: The rules.
    """

    model: Model
    whole_mesh: Mesh
    rules: Rules

    @cached_property
    def mesh(self) -> Mesh:
        """The mesh, with the axis of the heads cut in two where that is needed."""
        axes = self.whole_mesh.expand(dict(self.rules.compute).get("heads", ()))
        outer = self._head_extents[0]
        if len(axes) != 1 or outer in (1, self.whole_mesh.extent(*axes)):
            return self.whole_mesh
        (axis,) = axes
        inner = self.whole_mesh.extent(axis) // outer
        return self.whole_mesh.split(axis, ((f"{axis}.kv", outer), (f"{axis}.group", inner)))

    @cached_property
    def _head_extents(self) -> tuple[int, int]:
        """Ranks that split key heads, and ranks that share each: the fewest padded heads."""
        axes = self.whole_mesh.expand(dict(self.rules.compute).get("heads", ()))
        extents = [self.whole_mesh.extent(a) for a in axes]
        total = math.prod(extents)
        outers = (
            [d for d in range(1, total + 1) if total % d == 0]
            if len(axes) == 1
            else [math.prod(extents[:i]) for i in range(len(axes) + 1)]
        )
        kv, group = self.model.kv_heads, self.model.heads // self.model.kv_heads

        def padded(outer: int) -> tuple[int, int]:
            inner = total // outer
            return (_ceil(kv, outer) * _ceil(group, inner), -outer)

        outer = min(outers, key=padded)
        return outer, total // outer

    @cached_property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """The axes that split each logical dimension in compute."""
        dims = (*(d for d, _ in self.rules.compute), *_FEED_FORWARD)
        table = {d: self.mesh.expand(self.rules.axes(d)) for d in dims}
        heads = table.pop("heads", ())
        split = 0
        while self.mesh.extent(*heads[:split]) < self._head_extents[0]:
            split += 1
        return table | {"kv_heads": heads[:split], "group": heads[split:]}

    def layout(self, dims: Iterable[str]) -> Layout:
        """Give the compute layout of a tensor with logical `dims`."""
        key = tuple(dims)
        if key not in self._layouts:
            self._layouts[key] = Layout(tuple(self.axes.get(d, ()) for d in key))
        return self._layouts[key]

    @cached_property
    def _layouts(self) -> dict[tuple[str, ...], Layout]:
        """Layouts that were asked for: a program asks for the same ones for every micro-batch."""
        return {}

    def resting(self, parameter: Parameter, store: Store) -> Layout:
        """Give the layout in which a parameter, its gradient or its optimizer state rests.

        Storage rules apply in the order of their table. An axis splits a tensor once; a dimension
        that is split in use already is split further only where that comes out even.
        """
        dims = list(self.layout(parameter.dims).dims)
        for dim, names in self.rules.storage(store):
            if dim not in parameter.dims:
                continue
            at = parameter.dims.index(dim)
            used = {a for axes in dims for a in axes}
            more = dims[at] + tuple(a for a in self.mesh.expand(names) if a not in used)
            if not dims[at] or self.sizes[dim] % self.mesh.extent(*more) == 0:
                dims[at] = more
        return Layout(tuple(dims))

    def over(self, dims: Iterable[str], *, lacking: Iterable[str]) -> tuple[str, ...]:
        """Give the axes that split any of `dims` but none that `lacking` has: the axes of parts."""
        missing = set(dims) - set(lacking)
        present = {a for d in lacking for a in self.axes.get(d, ())}
        return tuple(sorted({a for d in missing for a in self.axes.get(d, ())} - present))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The size of each logical dimension of parameters in use, padded where it is split."""
        return {
            dim: _ceil(size, self.mesh.extent(*self.axes.get(dim, ())))
            for dim, size in self.model.sizes.items()
        }

    def shape(self, parameter: Parameter) -> tuple[int, ...]:
        """Give the global shape of a parameter in use, padding included."""
        return tuple(self.sizes[d] for d in parameter.dims)

    def rest_shape(self, parameter: Parameter, layout: Layout) -> tuple[int, ...]:
        """Give the global shape in which a parameter rests in `layout`, padding included.

        All stores pad a dimension alike where they split it, so that their blocks line up.
        """
        rests = [self.resting(parameter, store) for store in Store]
        return tuple(
            _ceil(size, math.lcm(*(self.mesh.extent(*r.dims[d]) for r in rests)))
            if layout.dims[d]
            else size
            for d, size in enumerate(self.shape(parameter))
        )


def _ceil(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
