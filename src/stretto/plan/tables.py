"""What is wrong with a plan's rules: names, axes, and tensors that would be split twice by one."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from stretto.errors import Problem
from stretto.mesh import Mesh
from stretto.rules import COMPUTE_DIMS, STORAGE_DIMS, Rules, Store, Table

_WORK = ("batch", "time", "heads", "ff", "vocab")
"""Dimensions of all matrix products of some block: a rank that splits none repeats another's work.

Splitting ``seq`` divides no matrix product, splitting experts not those of attention, and a storage
rule no work at all.
"""

_TOGETHER = (
    *(("batch", dim) for dim in ("seq", "time", "heads", "ff", "vocab")),
    *(("time", dim) for dim in ("heads", "ff", "vocab")),
    ("expert", "expert_ff"),
)
"""Dimensions of one tensor, or of one matrix product, so that an axis splits one of them only."""


def rule_problems(mesh: Mesh, rules: Rules, where: str = "rules") -> Iterator[Problem]:
    """Give all that is wrong with rules on a mesh, whatever the model.

    Args:
        mesh: The ranks.
        rules: The rules.
        where: The field that holds them.
    """
    yield from _table_problems(mesh, f"{where}.compute", rules.compute, COMPUTE_DIMS)
    for store in Store:
        table = rules.storage(store)
        yield from _table_problems(mesh, f"{where}.{store.value}", table, STORAGE_DIMS)
    known = set(mesh.names)
    compute = {
        dim: mesh.expand(a for a in rules.axes(dim) if a in known)
        for dim in (*COMPUTE_DIMS, *dict(rules.compute))
    }
    yield from _idle_problems(mesh, compute, where)
    for one, other in _TOGETHER:
        both = set(compute[one]) & set(compute[other])
        if both:
            yield Problem(
                f"{where}.compute.{other}",
                f"{sorted(both)} split {one} already, and one tensor has both",
                "use other axes",
            )
    time = compute["time"]
    if compute["seq"][: len(time)] != time:
        yield Problem(
            f"{where}.compute.seq",
            f"must begin with the axes of time, {list(time)}, but is {list(compute['seq'])}",
            f"write {list(time)}, and more after it if you like",
        )


def _table_problems(
    mesh: Mesh, where: str, table: Table, dims: tuple[str, ...]
) -> Iterator[Problem]:
    """What is wrong with each line of a table by itself."""
    lines = [dim for dim, _ in table]
    staged = {n for n in mesh.names if n == "pp" or "pp" in mesh.expand([n])}
    fit = [n for n in mesh.names if n not in staged]
    for dim in sorted({d for d in lines if lines.count(d) > 1}):
        yield Problem(f"{where}.{dim}", "two lines split it", "write one")
    for dim, axes in table:
        at = f"{where}.{dim}"
        if dim not in dims:
            near = difflib.get_close_matches(dim, dims, n=1)
            yield Problem(
                at, f"{where.rpartition('.')[2]} rules cannot split {dim!r}",
                f"did you mean {near[0]}?" if near else f"choose from {', '.join(dims)}",
            )  # fmt: skip
        for axis in axes:
            if axis in staged:
                rule = "pp cuts the chain of blocks, not a tensor"
                yield Problem(at, rule if axis == "pp" else f"{rule}, and is in {axis}",
                              "use another axis")  # fmt: skip
            elif axis not in fit:
                yield Problem(at, f"the mesh has no axis {axis!r}", f"choose from {fit}")
        parts = mesh.expand(a for a in axes if a in fit)
        for part in sorted({p for p in parts if parts.count(p) > 1}):
            yield Problem(at, f"{part} splits it twice", f"name {part} once")


def _idle_problems(
    mesh: Mesh, compute: Mapping[str, tuple[str, ...]], where: str
) -> Iterator[Problem]:
    """Axes over which ranks would all do the same work."""
    busy = {"pp"}.union(*(compute[dim] for dim in _WORK))
    for axis, extent in mesh.axes:
        if extent > 1 and axis not in busy:
            yield Problem(
                f"mesh.{axis}",
                f"no compute rule for {', '.join(_WORK[:-1])} or {_WORK[-1]} uses it, so {extent} "
                "ranks would do the same work",
                f'add one, such as {where}.compute.batch = ["{axis}"], or set {axis} = 1',
            )
