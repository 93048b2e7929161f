"""JSON and dataclasses, each exactly the other: nothing unknown, nothing missing, nothing coerced.

A dataclass is an object with its fields as keys, a tuple is a list, a mapping is an object. All
that does not fit is listed, with where it stands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from stretto.errors import CheckpointError, Problem, StrettoError

T = TypeVar("T")

_LARGE = 2**63  # no count of anything is so large, and arrays hold no such integer


def dump(value: Any) -> str:
    """Give the JSON of dataclasses, tuples, mappings and plain values."""
    return json.dumps(value, default=_fields, allow_nan=False)


def parse(text: str | bytes, *, where: str) -> Any:
    """Give the tree of a JSON text in which no key stands twice and every number is one.

    Args:
        text: The text.
        where: What to call it in an error.

    Raises:
        CheckpointError: It is no such JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(_damaged(where, f"is not JSON: {error}")) from None


def read(kind: type[T], tree: Any, *, where: str) -> T:
    """Give the dataclass that a JSON tree describes.

    Args:
        kind: The dataclass, of fields that are dataclasses, scalars, literals, tuples or mappings
            of these, or one of them or None.
        tree: What `parse` gives.
        where: What to call it in an error.

    Raises:
        CheckpointError: All problems: unknown or missing keys, wrong types, values that the
            dataclasses themselves refuse.
    """
    problems: list[Problem] = []
    hint: Any = kind
    value: T = _reader(hint)(tree, where, problems)
    if problems:
        raise CheckpointError(problems)
    return value


_Reader = Callable[[Any, str, list[Problem]], Any]
"""Gives the value of a JSON tree that stands at a place, and adds what is wrong to a list."""


@cache
def _reader(kind: Any) -> _Reader:
    """Give the strict reader of values of a type; it is made once and used for many values."""
    if is_dataclass(kind):
        return _object_reader(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value, where, problems: value
    if origin is Literal:
        return _literal_reader(arguments)
    if origin is UnionType:  # of something and None
        inner = _reader(arguments[0])
        return lambda value, where, problems: (
            None if value is None else inner(value, where, problems)
        )
    if origin is tuple:
        return _tuple_reader(arguments)
    if origin is Mapping:
        return _mapping_reader(arguments[1])
    return _scalar_reader(kind)


def _object_reader(kind: Any) -> _Reader:
    hints = get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in fields(kind)}
    # What an older manifest could not say is as it was then: the default.
    needed = {
        field.name
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    }

    def read(value: Any, where: str, problems: list[Problem]) -> Any:
        if type(value) is not dict:
            problems.append(_damaged(where, f"is {_short(value)}, not an object"))
            return None
        before = len(problems)
        if value.keys() != readers.keys():
            for name in sorted(value.keys() - readers.keys()):
                problems.append(_damaged(f"{where}.{name}", "there is no such key"))
            for name in sorted(needed - value.keys()):
                problems.append(_damaged(f"{where}.{name}", "is missing"))
        parts = {
            name: reader(value[name], f"{where}.{name}", problems)
            for name, reader in readers.items()
            if name in value
        }
        if len(problems) > before:
            return None
        try:
            return kind(**parts)
        except StrettoError as error:
            problems += error.problems
            return None

    return read


def _literal_reader(choices: tuple[Any, ...]) -> _Reader:
    def read(value: Any, where: str, problems: list[Problem]) -> Any:
        if value not in choices:
            problems.append(_damaged(where, f"is {_short(value)}, not one of {list(choices)}"))
        return value

    return read


def _tuple_reader(kinds: tuple[Any, ...]) -> _Reader:
    item = _reader(kinds[0])  # all items are of one type
    length = -1 if kinds[1] is ... else len(kinds)

    def read(value: Any, where: str, problems: list[Problem]) -> Any:
        if type(value) is not list or length not in (-1, len(value)):
            size = "" if length < 0 else f" of {length}"
            problems.append(_damaged(where, f"is {_short(value)}, not a list{size}"))
            return ()
        return tuple([item(each, where, problems) for each in value])

    return read


def _mapping_reader(kind: Any) -> _Reader:
    item = _reader(kind)

    def read(value: Any, where: str, problems: list[Problem]) -> Any:
        if type(value) is not dict:
            problems.append(_damaged(where, f"is {_short(value)}, not an object"))
            return {}
        return {name: item(each, f"{where}.{name}", problems) for name, each in value.items()}

    return read


def _scalar_reader(kind: type) -> _Reader:
    def read(value: Any, where: str, problems: list[Problem]) -> Any:
        if kind is float and type(value) is int and abs(value) < _LARGE:
            return float(value)
        if type(value) is not kind:
            problems.append(_damaged(where, f"is {_short(value)}, not of type {kind.__name__}"))
        elif isinstance(value, int | float) and not abs(value) < _LARGE:
            problems.append(_damaged(where, f"is {_short(value)}, not below 2⁶³"))
        return value

    return read


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return tree


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _damaged(field: str, rule: str) -> Problem:
    return Problem(field, rule, "use another checkpoint")
