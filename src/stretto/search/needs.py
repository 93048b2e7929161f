"""What a decision needs of the others: without it there is nothing to decide, and nothing tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stretto.errors import Problem
from stretto.search.constraint import Constraint, widened
from stretto.search.options import Options
from stretto.search.search import demanded
from stretto.search.task import Task

_MESH = ("pp", "dp", "cp", "tp")


@dataclass(frozen=True, slots=True)
class _Need:
    """What a decision needs of others.

    Attributes:
        of: The others.
        rule: What it needs.
        remedy: What would satisfy it.
    """

    of: tuple[str, ...]
    rule: str
    remedy: str


_NEEDS = {
    "zero": _Need(_MESH, "above 0 shards over dp × cp, which must be above 1", "use zero=0"),
    "shard": _Need(
        (*_MESH, "zero", "order"),
        "needs zero above 0, and is dp × cp, what of that is in a node, or a divisor of it",
        "use another, or zero=1",
    ),
    "regather": _Need(("zero", *_MESH), "is decided with zero=3 alone", "use zero=3"),
    "schedule": _Need(("pp",), "needs pp above 1: without stages it is 1f1b", "use pp=2"),
    "interleave": _Need(
        ("schedule", "pp"),
        "is 2 or more with interleaved and breadth-first, 2 with zb-v, and 1 with all others",
        "use such a schedule",
    ),
    "recompute_layers": _Need(
        ("recompute", "pp", "interleave"),
        "counts layers that recompute=full takes, fewer than a stage has",
        "use recompute=full, and fewer layers",
    ),
    "sequence": _Need(("tp",), "splits what lies between blocks over tp", "use tp=2"),
    "tensor_overlap": _Need(
        ("tp", "sequence"), "pipelines moves of tp above 1, split by sequence", "use tp=2"
    ),
    "two_level": _Need(
        (*_MESH, "order"),
        "needs dp × cp that is more than fits a node, and tp that divides a node",
        "use more of dp",
    ),
    "order": _Need(
        ("pp", "cp", "tp", "dp", "ep"),
        "with dp outermost is tried for dense models with pp and dp above 1 and cp=1",
        "use order=pp-dp-cp-tp",
    ),
    "ep": _Need((), "must divide the model's experts", "use a divisor of their number"),
    "etp": _Need(("ep", "tp"), "is tp without ep, and else 1 or tp", "use one of them"),
    "micro_batches": _Need(
        ("micro_batch", "dp", *_MESH), "is the batch over dp × micro_batch", "leave it out"
    ),
}
"""By decision. One that is not here needs none of the others."""


def unmet(task: Task, constraints: Sequence[Constraint]) -> tuple[Problem, ...]:
    """Give what demands on decisions need of others, where no plan is tried that meets them.

    Args:
        task: What is searched for.
        constraints: What is demanded.
    """
    own = [c for c in constraints if c.decides]
    if _tried(task, own):
        return ()
    # A demand matters if there are plans without it.
    each = [c for c in own if _tried(task, [o for o in own if o is not c])] or own
    return tuple(_problems(task, each))


def _tried(task: Task, constraints: Sequence[Constraint]) -> bool:
    options = widened(Options(), constraints)
    return any(grid.weights.any() for grid in demanded(task, constraints, options))


def _problems(task: Task, constraints: Sequence[Constraint]) -> Iterator[Problem]:
    keys = {c.key for c in constraints}
    text = " ".join(c.text for c in constraints)
    for key, need in _NEEDS.items():
        if key in keys and (keys == {key} or keys & {*need.of}):
            number = f" ({task.model.experts})" if key == "ep" else ""
            yield Problem(key, f"{need.rule}{number}, but {text} is demanded", need.remedy)
