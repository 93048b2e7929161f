"""A config.json as it is read: its values, and what is wrong with them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stretto.errors import Problem


@dataclass(frozen=True, slots=True)
class Config:
    """A config and what is wrong with it; a wrong integer reads as 0, and reading goes on.

    Attributes:
        values: What the config says.
        where: How problems call it.
        problems: What is wrong so far.
    """

    values: Mapping[str, Any]
    where: str = "config.json"
    problems: list[Problem] = field(default_factory=list)

    def reject(self, key: str, rule: str, remedy: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(f"{self.where}: {key}", rule, remedy))

    def integer(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """Read an integer of at least `least`; one without a default must be there."""
        value = self.values.get(key)
        kind = "a positive integer" if least == 1 else f"an integer of {least} or more"
        if value is None and default is not None:
            return default
        if value is None:
            self.reject(key, "is missing", f"state it as {kind}")
        elif not is_integer(value) or value < least:
            self.reject(key, f"must be {kind}, is {value!r:.40}", "write one")
        else:
            return int(value)
        return 0

    def indices(self, key: str, *, below: int) -> tuple[int, ...]:
        """Read a list of indices of layers, of which there are `below`; nothing is none."""
        value = self.values.get(key)
        if value is None or not below:
            return ()
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        if listed and all(is_integer(i) and 0 <= i < below for i in value):
            return tuple(sorted(set(value)))
        rule = f"must list layers from 0 to {below - 1}, is {value!r:.40}"
        self.reject(key, rule, "name layers that there are")
        return ()

    def number(self, key: str, default: float | None = None, *, least: float = 0.0) -> float:
        """Read a finite number of at least `least`; one without a default must be there."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            self.reject(key, "is missing", "state it as a number")
        elif not is_number(value) or value < least:
            self.reject(
                key, f"must be a number of {least:g} or more, is {value!r:.40}", "write one"
            )
        else:
            return float(value)
        return default if default is not None else max(least, 1.0)

    def flag(self, key: str, default: bool) -> bool:
        """Read true or false."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.reject(key, f"must be true or false, is {value!r:.40}", "write one of them")
        return default

    def choice(self, key: str, choices: Mapping[str, Any], default: str) -> Any:
        """Read one of several words, as what it stands for."""
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, str) and value in choices:
            return choices[value]
        self.reject(key, f"{value!r:.40} is not supported", f"choose from {', '.join(choices)}")
        return choices[default]

    def only(self, key: str, expected: object, *, default: object) -> None:
        """Reject a key whose value would make another model than the ones here."""
        value = self.values.get(key, default)
        if value is not None and value != expected:
            rule = f"{value!r:.40} is not supported"
            self.reject(key, rule, f"only {json.dumps(expected)} is: choose another model")

    def divides(self, part: str, whole: str, sizes: tuple[int, int]) -> None:
        """Reject sizes of which one does not divide the other; 0 is rejected already."""
        if all(sizes) and sizes[1] % sizes[0]:
            rule = f"must divide {whole}, but {sizes[1]} % {sizes[0]} = {sizes[1] % sizes[0]}"
            self.reject(part, rule, f"make {whole} a multiple of {part}")


def is_integer(value: object) -> bool:
    """Tell whether a value is a whole number: ``true`` is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
