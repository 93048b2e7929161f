"""Records of numbers: the same code prices one plan or an array of plans.

A record is a frozen dataclass whose fields are NumPy arrays that broadcast together, or tuples of
records. Every function of this package takes and gives such arrays, element by element, so that
the price of a plan does not depend on which others are priced beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Number = NDArray[np.float64]
"""One number, or one for each plan."""

T = TypeVar("T")


def record(cls: type[T], **values: Any) -> T:
    """Give a record of `cls` with every value as a `Number`."""
    return cls(**{name: np.asarray(value, dtype=np.float64) for name, value in values.items()})


def gathered(records: Sequence[T]) -> T:
    """Give one record of arrays, a place for each of `records`."""
    first = records[0]
    if isinstance(first, tuple):
        return cast(T, tuple(gathered(column) for column in zip(*records, strict=True)))
    if isinstance(first, np.ndarray):
        return cast(T, np.stack(np.broadcast_arrays(*cast(Any, records))))
    names = [f.name for f in fields(cast(Any, first))]
    return type(first)(**{n: gathered([getattr(r, n) for r in records]) for n in names})


def taken(whole: T, index: Any) -> T:
    """Give the places `index` of a record of arrays; single numbers stay."""
    if isinstance(whole, tuple):
        return cast(T, tuple(taken(part, index) for part in whole))
    if isinstance(whole, np.ndarray):
        return cast(T, np.asarray(whole[index]) if whole.ndim else whole)
    names = [f.name for f in fields(cast(Any, whole))]
    return type(whole)(**{n: taken(getattr(whole, n), index) for n in names})


def relu(value: Number) -> Number:
    """Give `value` where it is positive, else 0."""
    return np.maximum(value, 0.0)


def ceil_div(a: Number, b: Number) -> Number:
    """Give a / b, rounded up."""
    return np.ceil(a / b - 1e-9)
