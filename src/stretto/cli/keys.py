"""``key=value``: what the keys are, and what their values may be.

Four kinds: words for a mesh (``dp=2``), which `Plan.of` understands; keys of the recipe
(``lr=1e-3``); keys of the run (``keep=3``); the plan's own keys, with a dot (``batch.seq=512``).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_type_hints

from stretto.data.tokenizer import SMALLEST
from stretto.errors import Problem
from stretto.plan import AXES, KEYS, Plan
from stretto.recipe import Recipe

T = TypeVar("T")
Reader = Callable[[Any], Any]
"""Gives the value that is meant; raises `ValueError` with what would do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run does besides learning.

    Attributes:
        checkpoint_every: Steps between two checkpoints; 0 for one at the end only, -1 for five in
            all, but one every 1000 steps at least.
        evaluate_every: Steps between two evaluations on held-out text; as above.
        record_every: Steps between two whose timeline is recorded; 0 for none.
        keep: Checkpoints that are kept, 2 or more.
        vocab: Tokens of a tokenizer that is trained here, and of the model; 0 for the model's own.
        valid_fraction: The part of the documents that is held out.
        mask_documents: Whether attention stays within a document.
        field: The field of JSON lines, the column of Parquet.
    """

    checkpoint_every: int = -1
    evaluate_every: int = -1
    record_every: int = 50
    keep: int = 2
    vocab: int = 0
    valid_fraction: float = 0.03
    mask_documents: bool = True
    field: str = "text"


def every(asked: int, *, steps: int) -> int:
    """Give the steps between two of what happens every so often; 0 for never."""
    return asked if asked >= 0 else min(1000, math.ceil(steps / 5))


def _whole(least: int) -> Reader:
    def read(value: Any) -> int:
        if type(value) is not int or not least <= value < 2**63:
            raise ValueError(f"write a whole number of {least} or more")
        return value

    return read


def _number(least: float, most: float = math.inf, *, open_: bool = False) -> Reader:
    below = "above" if open_ else "from"
    wanted = f"{below} {least:g}" + (f" to {most:g}" if most < math.inf else " on")

    def read(value: Any) -> float:
        known = type(value) in (int, float) and math.isfinite(value)
        if not known or value < least or value > most or (open_ and value == least):
            raise ValueError(f"write a number {wanted}")
        return float(value)

    return read


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("write true or false")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("write a name")
    return value


def _vocab(value: Any) -> int:
    if type(value) is not int or 0 < value < SMALLEST or value < 0:
        raise ValueError(
            f"write a whole number of {SMALLEST} or more: all bytes and the end of text"
        )
    return value


def _schedule(value: Any) -> str:
    choices = get_args(get_type_hints(Recipe)["schedule"])
    if value not in choices:
        raise ValueError(f"choose from {', '.join(choices)}")
    return str(value)


MESH: Mapping[str, Reader] = MappingProxyType(
    dict.fromkeys(("pp", "dp", "cp", "tp", "ep"), _whole(1))
    | {"etp": _whole(0), "zero": _whole(0), "shard": _whole(0), "sequence": _flag}
)
"""Words for a mesh and what is sharded over it."""

RECIPE: Mapping[str, Reader] = MappingProxyType(
    {
        "steps": _whole(1),
        "lr": _number(0, open_=True),
        "schedule": _schedule,
        "warmup": _number(0, 1),
        "decay": _number(0, 1),
        "final_lr": _number(0, 1),
        "beta1": _number(0, 0.999_999),
        "beta2": _number(0, 0.999_999),
        "eps": _number(0, open_=True),
        "weight_decay": _number(0),
        "clip": _number(0),
        "seed": _whole(0),
    }
)
"""Keys of the recipe."""

RUN: Mapping[str, Reader] = MappingProxyType(
    {
        "checkpoint_every": _whole(-1),
        "evaluate_every": _whole(-1),
        "record_every": _whole(0),
        "keep": _whole(2),
        "vocab": _vocab,
        "valid_fraction": _number(0, 0.5, open_=True),
        "mask_documents": _flag,
        "field": _name,
    }
)
"""Keys of the run."""

_SECTIONS = tuple(f.name for f in fields(Plan))
_PLAN = (
    *(f"mesh.{axis}" for axis in AXES), "mesh.views",
    *(f"rules.{name}" for name in ("compute", "parameter", "gradient", "optimizer")),
    *(f"{section}.{key}" for section, keys in KEYS.items() for key in keys),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a command line by kind, each with the value that is meant.

    Attributes:
        mesh: Words for a mesh.
        recipe: Of the recipe.
        run: Of the run.
        plan: (dotted key, value) of the plan, to be read by it.
    """

    mesh: Mapping[str, Any]
    recipe: Mapping[str, Any]
    run: Mapping[str, Any]
    plan: tuple[tuple[str, Any], ...]


def sort(
    pairs: Iterable[tuple[str, Any]], problems: list[Problem], *, kinds: Iterable[str]
) -> Keys:
    """Give keys by their kind, and add to `problems` what is unknown or has no such value.

    Args:
        pairs: (key, value), the last of a key counts.
        problems: Is added to.
        kinds: Those that the command takes, of ``mesh``, ``recipe``, ``run`` and ``plan``.
    """
    tables = {"mesh": MESH, "recipe": RECIPE, "run": RUN}
    found: dict[str, dict[str, Any]] = {name: {} for name in (*tables, "plan")}
    taken = [kind for kind in found if kind in kinds]
    for key, value in pairs:
        if "plan" in taken and key.split(".")[0] in _SECTIONS and "." in key:
            found["plan"][key] = value
            continue
        kind = next((k for k in taken if key in tables.get(k, ())), None)
        if kind is None:
            problems.append(_unknown(key, taken))
            continue
        try:
            found[kind][key] = tables[kind][key](value)
        except ValueError as error:
            problems.append(Problem(key, f"is {value!r}", str(error)))
    return Keys(found["mesh"], found["recipe"], found["run"], tuple(found["plan"].items()))


def read(tree: Any, kind: type[T], readers: Mapping[str, Reader], *, where: str) -> T:
    """Give the dataclass that a parsed table describes.

    Raises:
        ValueError: Unknown keys or values that cannot be.
    """
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where} is no table")
    try:
        return kind(**{key: readers[key](value) for key, value in tree.items()})
    except KeyError as error:
        raise ValueError(f"{where} has an unknown key {error}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _some(taken: Iterable[str]) -> str:
    """Give keys that there are: those of a plan by their tables, which docs/plans.md explains."""
    tables: Mapping[str, Iterable[str]] = {"mesh": MESH, "recipe": RECIPE, "run": RUN}
    named = [name for kind in taken for name in tables.get(kind, ())]
    of_plan = [f"{name}.…" for name in _SECTIONS] if "plan" in taken else []
    return f"{', '.join([*named, *of_plan])}" + (" (docs/plans.md)" if of_plan else "")


def _unknown(key: str, taken: Iterable[str]) -> Problem:
    tables: Mapping[str, Iterable[str]] = {
        "mesh": MESH,
        "recipe": RECIPE,
        "run": RUN,
        "plan": _PLAN,
    }
    known = [name for kind in taken for name in tables[kind]]
    leaves = [name for name in known if name.rpartition(".")[2] == key]
    near = leaves or difflib.get_close_matches(key, known, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"use one of {_some(taken)}"
    return Problem(key, "there is no such key", remedy)
