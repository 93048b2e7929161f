"""A TOML table read by a list of its keys: every key with its unit, all problems together."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stretto.errors import InputError, Problem
from stretto.units import Quantity, parse

_EXAMPLES: Mapping[str, str] = {
    "bytes": "GiB",
    "bytes_per_s": "GB/s",
    "flops_per_s": "TFLOP/s",
    "s": "us",
    "w": "W",
}

REQUIRED = object()
"""The default of a key that may not be left out."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table.

    Attributes:
        attribute: The attribute of the value that it states.
        read: Gives what the key's value means; raises `ValueError` with "what is wrong; what to
            write instead".
        default: Its value where it is left out.
    """

    attribute: str
    read: Callable[[Any], Any]
    default: Any = REQUIRED


Keys = Mapping[str, Key]


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with a file so far, and where in it one stands.

    Attributes:
        where: What stands before a key in a problem: ``h100.toml: device.``.
        problems: What is wrong; of the whole file.
    """

    where: str
    problems: list[Problem] = field(default_factory=list)

    def add(self, key: str, rule: str, remedy: str) -> None:
        """Add a problem of `key`."""
        self.problems.append(Problem(self.where + key, rule, remedy))

    def below(self, name: str) -> Findings:
        """Give the same findings, standing in the table `name`."""
        return Findings(f"{self.where}{name}.", self.problems)


def take(tree: Mapping[str, Any], keys: Keys, *, findings: Findings) -> dict[str, Any]:
    """Give the attributes that a table states; what is wrong goes to `findings` and is left out.

    Args:
        tree: The table.
        keys: What it may hold.
        findings: Is added to.
    """
    for name in tree:
        if name not in keys:
            near = difflib.get_close_matches(name, keys, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"use {', '.join(keys)}"
            findings.add(name, "there is no such key", remedy)
    found: dict[str, Any] = {}
    for name, key in keys.items():
        if name in tree:
            try:
                found[key.attribute] = key.read(tree[name])
            except ValueError as error:
                rule, _, remedy = str(error).partition("; ")
                findings.add(name, rule, remedy)
        elif key.default is REQUIRED:
            findings.add(name, "is missing", "state it")
        else:
            found[key.attribute] = key.default
    return found


def quantity(kind: Quantity) -> Callable[[Any], float]:
    """Give a reader of numbers with a unit of `kind`."""

    def read(value: Any) -> float:
        if type(value) in (int, float):
            raise ValueError(f'{value} has no unit; write it, like "{value}{_EXAMPLES[kind]}"')
        try:
            return parse(text(value), kind)
        except InputError as error:
            problem = error.problems[0]
            raise ValueError(f"{problem.rule}; {problem.remedy}") from None

    return read


def text(value: Any) -> str:
    """Give a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(f'is {value!r}; write text in "quotes"')
    return value


def texts(value: Any) -> tuple[str, ...]:
    """Give a list of texts."""
    return tuple(text(one) for one in _list(value, '["one", "two"]'))


def table(value: Any) -> Mapping[str, Any]:
    """Give a table."""
    if not isinstance(value, Mapping):
        raise ValueError(f"is {value!r}; write a table")
    return value


def tables(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Give a list of tables."""
    return tuple(table(one) for one in _list(value, "tables in [[double brackets]]"))


def whole(value: Any) -> int:
    """Give a whole number."""
    if type(value) is not int:
        raise ValueError(f"is {value!r}; write a whole number")
    return value


def number(value: Any) -> float:
    """Give a number."""
    if type(value) not in (int, float):
        raise ValueError(f"is {value!r}; write a number")
    return float(value)


def numbers(value: Any) -> Mapping[str, float]:
    """Give a table of numbers."""
    return {name: number(one) for name, one in table(value).items()}


def flag(value: Any) -> bool:
    """Give true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"is {value!r}; write true or false")
    return value


def level_or_count(value: Any) -> str | int:
    """Give a level's name, or a number of devices."""
    if type(value) is not int and not isinstance(value, str):
        raise ValueError(f'is {value!r}; write "device", a level, or how many devices share a link')
    return value


def tile(value: Any) -> tuple[int, int, int]:
    """Give rows, columns and depth."""
    sides = [whole(one) for one in _list(value, "rows, columns and depth: [128, 256, 64]")]
    if len(sides) != 3:
        raise ValueError(f"is {value!r}; write rows, columns and depth: [128, 256, 64]")
    return sides[0], sides[1], sides[2]


def matrix(value: Any) -> tuple[tuple[float, ...], ...]:
    """Give rows of numbers."""
    hint = "rows of numbers: [[0, 12.5], [12.5, 0]]"
    return tuple(tuple(number(one) for one in _list(row, hint)) for row in _list(value, hint))


def _list(value: Any, hint: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"is {value!r}; write {hint}")
    return value
