"""The usual words for a mesh and what lies where on it: pp, dp, cp, tp, ep, etp, zero, shard."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stretto.errors import PlanError, Problem
from stretto.mesh import Mesh
from stretto.rules import Rules, Table

AXES = ("pp", "dp", "cp", "tp")
"""The order of axes, outermost first, that a short form lays out."""


@dataclass(frozen=True, slots=True)
class Words:
    """What people call a mesh and its rules.

    Attributes:
        pp: Pipeline ranks.
        dp: Data-parallel replicas.
        cp: Context-parallel ranks, which split the positions of a sequence.
        tp: Tensor-parallel ranks.
        ep: Expert-parallel ranks, which split the experts of a layer: `ep` × `etp` of the dp × cp ×
            tp ranks, the inner ones (Liu et al., 2025).
        etp: Ranks that split each expert, a divisor of `tp`.
        zero: What data-parallel ranks shard: 0 nothing, 1 optimizer state, 2 gradients too, 3
            parameters too (Rajbhandari et al., 2020).
        shard: With `zero`, the ranks that cut a tensor among them, of dp × cp; outside them shards
            are replicated (hybrid sharding).
        sequence: Whether activations between blocks are split over `tp` too (Korthikanti et al.,
            2022).
    """

    pp: int = 1
    dp: int = 1
    cp: int = 1
    tp: int = 1
    ep: int = 1
    etp: int = 1
    zero: int = 0
    shard: int = 1
    sequence: bool = True


def words_of(mesh: Mesh, rules: Rules) -> Words:
    """Give the words for a mesh and rules, as far as they go."""
    split = {dim: mesh.extent(*rules.axes(dim)) for dim, _ in rules.compute}
    stores = (rules.optimizer, rules.gradient, rules.parameter)
    zero = max(
        (i for i, table in enumerate(stores, 1) if any(axes for _, axes in table)), default=0
    )
    return Words(
        pp=mesh.extent("pp"),
        dp=split.get("batch", 1),
        cp=split.get("time", 1),
        tp=max(split.get(dim, 1) for dim in _TENSOR),
        ep=split.get("expert", 1),
        etp=mesh.extent(*rules.axes("expert_ff")),
        zero=zero,
        shard=max((mesh.extent(*axes) for table in stores for _, axes in table), default=1),
        sequence=split.get("seq", 1) > split.get("time", 1),
    )


def laid_out(words: Words, *, order: Sequence[str] = AXES) -> tuple[Mesh, Rules]:
    """Give the mesh and the rules that `words` name.

    Args:
        words: How many ranks of each kind.
        order: The axes, outermost first.

    Raises:
        PlanError: All numbers that cannot be.
    """
    problems = [*_number_problems(words, order)] or [*_nesting_problems(words)]
    if problems:
        raise PlanError(problems)
    parts = _parts(words)
    axes = [(("pp", words.pp),) if axis == "pp" else parts[axis] for axis in order]
    views = [
        (axis, tuple(n for n, _ in parts[axis])) for axis in order if len(parts.get(axis, ())) > 1
    ]
    if words.ep > 1:
        views.append(("ep", _between(parts, words.etp, words.etp * words.ep)))
    mesh = Mesh(tuple(itertools.chain(*axes)), tuple(views))
    return mesh, _rules(words, parts)


def _rules(words: Words, parts: Parts) -> Rules:
    compute: list[tuple[str, tuple[str, ...]]] = [("batch", ("dp",))]
    context = ("cp",) if words.cp > 1 else ()
    tensor = ("tp",) if words.tp > 1 else ()
    if tensor:
        compute += [(dim, tensor) for dim in _TENSOR]
    positions = context + (tensor if words.sequence else ())
    if positions:
        compute.append(("seq", positions))
    if context:
        compute.append(("time", context))
    if words.ep > 1:
        compute.append(("expert", ("ep",)))
    if words.etp != words.tp:
        compute.append(("expert_ff", _between(parts, 1, words.etp)))
    inner: tuple[str, ...] = ("dp", *context)
    if words.shard < words.dp * words.cp:
        inner = _between(parts, words.tp, words.tp * words.shard)
    table: Table = tuple((dim, inner) for dim in _STORED) if inner else ()
    return Rules(tuple(compute), *(table if words.zero >= least else () for least in (3, 2, 1)))


_TENSOR = ("heads", "ff", "vocab")
_STORED = ("embed", "ff", "head_dim", "vocab", "position", "q_rank", "kv_rank")

Parts = Mapping[str, tuple[tuple[str, int], ...]]
"""The mesh axes, (name, extent) and outermost first, of which each of dp, cp and tp is made."""


def _marks(words: Words) -> dict[str, int]:
    """Give, by word, how many of the innermost ranks its groups span."""
    shards = {"shard": words.tp * words.shard} if words.zero else {}
    return {"etp": words.etp, "ep": words.etp * words.ep} | shards


def _parts(words: Words) -> Parts:
    """Cut dp, cp and tp where the experts or the shards end within them."""
    parts: dict[str, tuple[tuple[str, int], ...]] = {}
    low = 1
    for axis in ("tp", "cp", "dp"):
        high = low * getattr(words, axis)
        cuts = {word: mark for word, mark in _marks(words).items() if low < mark < high}
        edges = (low, *sorted(set(cuts.values())), high)
        extents = [b // a for a, b in itertools.pairwise(edges)][::-1]
        names = [f"{axis}{i}" for i in range(len(extents))] if cuts else [axis]
        if axis == "dp" and set(cuts) == {"shard"}:
            names = ["replica", "shard"]
        parts[axis] = tuple(zip(names, extents, strict=True))
        low = high
    return parts if words.cp > 1 else parts | {"cp": ()}


def _between(parts: Parts, low: int, high: int) -> tuple[str, ...]:
    """Give the mesh axes, outermost first, from the innermost `low` ranks to the `high`."""
    found, at = [], 1
    for name, extent in reversed([part for axis in ("dp", "cp", "tp") for part in parts[axis]]):
        if low <= at and at * extent <= high and extent > 1:
            found.append(name)
        at *= extent
    return tuple(reversed(found))


def _number_problems(words: Words, order: Sequence[str]) -> Iterator[Problem]:
    for name in ("pp", "dp", "cp", "tp", "ep", "etp", "shard"):
        if getattr(words, name) < 1:
            yield Problem(name, f"is {getattr(words, name)}, below 1", "use 1 or more")
    if words.zero not in range(4):
        yield Problem("zero", f"is {words.zero}", "choose 0, 1, 2 or 3")
    if sorted(order) != sorted(AXES):
        yield Problem("order", f"is {list(order)}", f"arrange {', '.join(AXES)}")
    dp, cp, tp, ep, etp = words.dp, words.cp, words.tp, words.ep, words.etp
    data = f"divide dp × cp, but {dp} × {cp}" if cp > 1 else f"divide dp, but {dp}"
    expert = f"ep × etp must divide dp × cp × tp, but {dp} × {cp} × {tp} % ({ep} × {etp})"
    for name, whole, part, rule in (
        ("shard", dp * cp, words.shard, f"must {data} % {words.shard}"),
        ("etp", tp, etp, f"must divide tp, but {tp} % {etp}"),
        ("ep", dp * cp * tp, ep * etp if ep > 1 else 1, expert),
    ):
        if whole > 0 and part > 0 and whole % part:
            yield Problem(name, f"{rule} is not 0", "choose a divisor")


def _nesting_problems(words: Words) -> Iterator[Problem]:
    """Groups of ranks that overlap, and neither holds the other."""
    ends = {"tp": words.tp, "cp": words.tp * words.cp, **_marks(words)}
    for (one, low), (other, high) in itertools.combinations(ends.items(), 2):
        if max(low, high) % min(low, high):
            yield Problem(
                other,
                f"its groups span the innermost {high} ranks and those of {one} {low}, and neither "
                "divides the other",
                f"choose {other} or {one} so that one does",
            )
