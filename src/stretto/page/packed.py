"""Arrays inside JSON: what `page.unpack` of the page's script turns into typed arrays again."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""What an array's elements may be: each has a typed array in JavaScript."""


def packed(array: NDArray[Any], *, dtype: str | None = None) -> dict[str, Any]:
    """Give an array as JSON: its shape and type, and its bytes in base64, little-endian.

    Args:
        array: What to pack.
        dtype: One of `TYPES` to turn it into first; None to keep its own.

    Raises:
        TypeError: JavaScript has no array of its type.
    """
    kept = np.ascontiguousarray(array, dtype=dtype)
    if kept.dtype.name not in TYPES:
        raise TypeError(f"{kept.dtype.name} has no typed array: use one of {', '.join(TYPES)}")
    little = kept.astype(kept.dtype.newbyteorder("<"), copy=False)
    return {
        "dtype": kept.dtype.name,
        "shape": list(kept.shape),
        "base64": base64.b64encode(little.tobytes()).decode("ascii"),
    }
