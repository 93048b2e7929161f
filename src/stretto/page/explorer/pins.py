"""A plan of a search as numbers that a page sends back, and as what it alone meets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from stretto.cost import SCHEDULES, Number
from stretto.errors import InputError, Problem
from stretto.search import ORDERS, RECOMPUTES, Constraint, Row

DECISIONS = (
    *("pp", "dp", "cp", "tp", "ep", "etp", "order", "micro_batch", "zero", "shard", "regather"),
    *("schedule", "interleave", "recompute", "recompute_layers", "tensor_overlap"),
    *("offload", "optimizer_offload"),
)
"""The decisions that tell any plan of a search from all others of it."""

WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "order": tuple("-".join(axes) for axes in ORDERS),
        "schedule": SCHEDULES,
        "recompute": RECOMPUTES,
        **dict.fromkeys(("regather", "tensor_overlap"), ("false", "true")),
    }
)
"""What the numbers of some decisions mean."""

_UNTRIED = ("offload", "optimizer_offload")  # which a search tries only where it must


def columns(rows: Row) -> dict[str, Number]:
    """Give the decisions of some plans, by name."""
    return {name: np.asarray(getattr(rows, name)) for name in DECISIONS}


def constraints(text: str) -> tuple[Constraint, ...]:
    """Give the constraints that one plan alone meets.

    Args:
        text: Its numbers by `DECISIONS`, with commas between them.

    Raises:
        InputError: They are not that.
    """
    values = [_number(word) for word in text.split(",")]
    if len(values) != len(DECISIONS) or not all(map(math.isfinite, values)):
        rule = f"must be {len(DECISIONS)} numbers, but is {text[:80]!r}"
        raise InputError(Problem("plan", rule, "send those of a point"))
    return tuple(Constraint.read(word) for word in texts(values))


def texts(values: Sequence[float]) -> list[str]:
    """Give a plan in the words of ``stretto plan``, all that decides it.

    Args:
        values: Its numbers by `DECISIONS`.
    """
    pairs = zip(DECISIONS, values, strict=True)
    return [f"{name}={_word(name, v)}" for name, v in pairs if v or name not in _UNTRIED]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _word(name: str, value: float) -> str:
    words = WORDS.get(name, ())
    return words[int(value)] if 0 <= value < len(words) else f"{value:g}"
