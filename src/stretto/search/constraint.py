"""What a user demands of a plan: ``tp<=8``, ``memory<=70GB``, ``schedule=1f1b,zb-1p``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np

from stretto.cost import SCHEDULES, Number
from stretto.errors import InputError, Problem
from stretto.search.options import ALL, Options
from stretto.search.row import CODECS, ORDERS, Row
from stretto.search.rule import Mask
from stretto.search.task import RECOMPUTES
from stretto.units import Quantity, parse

Sign = Literal["<=", ">=", "<", ">", "!=", "="]

_SIGNS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "!=": operator.ne,
    "=": operator.eq,
}
_TEXT = re.compile(r"\s*([a-z_.]+)\s*(<=|>=|!=|==|=|<|>)\s*(\S.*?)\s*")
_FLAGS = ("regather", "sequence", "tensor_overlap", "two_level")
_WORDS: Mapping[str, Mapping[str, float]] = {
    "schedule": {name: i for i, name in enumerate(SCHEDULES)},
    "recompute": {name: i for i, name in enumerate(RECOMPUTES)},
    "codec": {name: i for i, name in enumerate(CODECS)},
    "order": {"-".join(axes): i for i, axes in enumerate(ORDERS)},
    "recompute_layers": {"all": 0},
    **{name: {"true": 1, "false": 0} for name in (*_FLAGS, "runs")},
}
_RESULTS = ("time", "memory", "energy", "cost", "mfu")
_UNITS: Mapping[str, Quantity] = {"time": "s", "memory": "bytes", "energy": "j"}
_KINDS: Mapping[str, str] = {
    "cost": "a number of USD",
    "mfu": "a share, as 40% or 0.4",
    **dict.fromkeys(("offload", "optimizer_offload"), "a share, as 50% or 0.5"),
}
_DECISIONS = tuple(f.name for f in fields(Row))
_COUNTS = tuple(name for name in _DECISIONS if name not in _KINDS)
KEYS = (*_DECISIONS, *_RESULTS, "runs")
"""Every key of a constraint: the fields of `Row`, what a plan takes in a step, and whether the
runtime runs it today."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """Something that a user demands.

    Attributes:
        key: One of `KEYS`.
        sign: How the value compares.
        values: With what, in base units; several with ``=`` and ``!=`` only.
        text: As the user wrote it.
    """

    key: str
    sign: Sign
    values: tuple[float, ...]
    text: str

    @staticmethod
    def read(text: str) -> Constraint:
        """Give the constraint that a text states.

        Raises:
            InputError: It states none.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise InputError(Problem(text, "is no constraint", "write tp<=8 or memory<=70GB"))
        key, sign, stated = match.groups()
        key = key.rpartition(".")[2]  # as in batch.micro_batch
        if key not in KEYS:
            remedy = f"choose from {', '.join(KEYS)}"
            raise InputError(Problem(text, f"no plan has a {key!r}", remedy))
        sign = cast(Sign, "=" if sign == "==" else sign)
        parts = stated.split(",") if sign in ("=", "!=") else [stated]
        if key in _WORDS and key != "recompute_layers" and sign not in ("=", "!="):
            raise InputError(Problem(text, f"{key} has no order", f"write {key}={stated}"))
        return Constraint(key, sign, tuple(_value(key, p.strip(), text) for p in parts), text)

    @property
    def before(self) -> bool:
        """Whether it can be told before anything is priced."""
        return self.key not in _RESULTS

    @property
    def decides(self) -> bool:
        """Whether it is of a single decision."""
        return self.key in _DECISIONS

    def holds(self, columns: Mapping[str, Number | Mask]) -> Mask:
        """Tell for which plans it holds, given their columns by key."""
        own = columns[self.key]
        compare = _SIGNS[self.sign]
        found = [np.asarray(compare(own, value), dtype=np.bool_) for value in self.values]
        join = np.logical_and if self.sign == "!=" else np.logical_or
        return np.asarray(join.reduce(found), dtype=np.bool_)


def _value(key: str, text: str, whole: str) -> float:
    words = _WORDS.get(key, {})
    if text.lower() in words:
        return words[text.lower()]
    if key in _UNITS:
        return parse(text, _UNITS[key], field=whole)
    number = _number(text) if not words or key == "recompute_layers" else None
    if number is None or (key in _COUNTS and number != int(number)):
        some = " or ".join((_KINDS.get(key, "a whole number"), *words))
        remedy = f"choose from {', '.join(words)}" if len(words) > 1 else f"write {some}"
        raise InputError(Problem(whole, f"{text!r} is no value of {key}", remedy))
    return number


def _number(text: str) -> float | None:
    """Give a number or a percentage; None for what is none."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def widened(options: Options, constraints: Iterable[Constraint]) -> Options:
    """Give options that try what constraints ask for by ``=``, and nothing else instead."""
    changes: dict[str, tuple[float, ...]] = {}
    known = {f.name for f in fields(Options)}
    for c in constraints:
        if c.sign == "=" and c.key in known:
            before = changes.get(c.key, c.values)
            changes[c.key] = tuple(v for v in c.values if v in before) or c.values
    if "shard" in changes:
        changes["shard"] = (ALL, *changes["shard"])
    return replace(options, **changes)


def contradictions(constraints: Sequence[Constraint]) -> Iterator[Problem]:
    """Give a problem for each key of which no value meets all constraints."""
    for key in dict.fromkeys(c.key for c in constraints):
        own = [c for c in constraints if c.key == key]
        if len(own) > 1 and not _possible(own):
            text = " and ".join(c.text for c in own)
            yield Problem(key, f"no value meets {text}", "leave one of them out")


def _possible(own: Sequence[Constraint]) -> bool:
    """Tell whether some number meets all of `own`: an end of a range, or one between two."""
    ends = sorted({v for c in own for v in c.values})
    between = [(a + b) / 2 for a, b in pairwise(ends)]
    if own[0].before and own[0].key not in ("offload", "optimizer_offload"):
        # Between 2 and 4 lies 3, between 2 and 3 nothing.
        between = [math.floor(a) + 1.0 for a, b in pairwise(ends) if b - a > 1]
    tried = np.array([ends[0] - 1, *ends, *between, ends[-1] + 1])
    met = tried >= 0
    for c in own:
        met &= c.holds({c.key: tried})
    return bool(np.any(met))
