"""Failures and recovery times from TOML: published ones by name, or a file of one's own."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from stretto.cluster.table import (
    Findings,
    Key,
    Keys,
    number,
    quantity,
    table,
    tables,
    take,
    text,
    whole,
)
from stretto.errors import InputError, Problem
from stretto.forecast.failures import DAY_S, Component, Failures, Needs, Per, Shows
from stretto.forecast.setup import Recovery

DEFAULT = "llama3"
"""The failures of which there is the most detailed publication."""

_E = TypeVar("_E", bound=StrEnum)


def _one_of(kind: type[_E]) -> Callable[[Any], _E]:
    """Give a reader of a closed choice."""

    def read(value: Any) -> _E:
        if value not in list(kind):
            raise ValueError(f"is {value!r}; choose from {', '.join(kind)}")
        return kind(value)

    return read


_FILE: Keys = {
    "about": Key("about", text, ""),
    "source": Key("source", text, ""),
    "devices": Key("devices", whole),
    "per_node": Key("per_node", whole),
    "days": Key("days", number),
    "component": Key("components", tables),
    "recovery": Key("recovery", table, {}),
}
_COMPONENT: Keys = {
    "name": Key("name", text),
    "events": Key("events", number),
    "per": Key("per", _one_of(Per)),
    "shows": Key("shows", _one_of(Shows)),
    "needs": Key("needs", _one_of(Needs)),
}
_RECOVERY: Keys = {
    name.removesuffix("_s"): Key(name, quantity("s"), None) for name in Recovery.__slots__
}


@cache
def _presets() -> Mapping[str, Any]:
    return tomllib.loads(files("stretto.forecast").joinpath("failures.toml").read_text("utf-8"))


def names() -> tuple[str, ...]:
    """Give the names of published failures."""
    return tuple(_presets()["preset"])


def find(name: str) -> tuple[Failures, Recovery]:
    """Give the failures that are meant, and how long recovery from them takes.

    Args:
        name: Of published ones, or a file that ends in ``.toml``.

    Raises:
        InputError: There are none of that name, or all that is wrong with the file.
    """
    if name.endswith(".toml"):
        return read(_tree(Path(name)), where=Path(name).name, name=Path(name).stem)
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        remedy = f"{hint}choose from {', '.join(names())}, or name a TOML file"
        raise InputError(Problem("failures", f"there are none called {name!r}", remedy))
    return read(_presets()["preset"][name], where="failures.toml", name=name)


def read(tree: Mapping[str, Any], *, where: str, name: str) -> tuple[Failures, Recovery]:
    """Give the failures that a parsed TOML tree describes.

    Args:
        tree: The tree: a preset of failures.toml is one.
        where: What to call it in an error: its file's name.
        name: What the failures are called.

    Raises:
        InputError: All that is wrong with it.
    """
    findings = Findings(f"{where}: ")
    stated = take(tree, _FILE, findings=findings)
    counted = [
        take(one, _COMPONENT, findings=findings.below(f"component.{i}"))
        for i, one in enumerate(stated.get("components", ()))
    ]
    own = take(stated.get("recovery", {}), _RECOVERY, findings=findings.below("recovery"))
    for key in ("devices", "per_node", "days"):
        if key in stated and not 0 < stated[key] < math.inf:
            findings.add(key, f"is {stated[key]:g}", "use a number above 0")
    for i, one in enumerate(counted):
        if "events" in one and not 0 < one["events"] < math.inf:
            below = findings.below(f"component.{i}")
            below.add("events", f"is {one['events']:g}", "use a number above 0, or leave it out")
    if findings.problems:
        raise InputError(findings.problems)
    seconds = stated["days"] * DAY_S
    nodes = math.ceil(stated["devices"] / stated["per_node"])
    exposed = {Per.DEVICE: stated["devices"], Per.NODE: nodes, Per.RUN: 1}
    components = tuple(
        Component(
            one["name"],
            seconds * exposed[one["per"]] / one["events"],
            one["per"],
            one["shows"],
            one["needs"],
        )
        for one in counted
    )
    usual = take(_presets()["recovery"], _RECOVERY, findings=Findings("failures.toml: "))
    recovery = usual | {key: value for key, value in own.items() if value is not None}
    return Failures(name, stated["about"], stated["source"], components), Recovery(**recovery)


def _tree(path: Path) -> Mapping[str, Any]:
    remedy = "name a TOML file with what failures.toml has below a preset"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise InputError(Problem(str(path), f"cannot be read: {reason}", remedy)) from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(Problem(path.name, f"is not TOML: {error}", "mend that line")) from None
