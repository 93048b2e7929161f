"""Initial values of parameters: each a pure function of seed, name and place.

So any box of a parameter is made where it lies, and is the same under every plan.

Normal values come from a counter (as in Salmon et al., 2011): SplitMix64 (Steele et al., 2014) of
the flat index, keyed by seed and name, gives two uniform numbers, and they one normal number (Box
and Muller, 1958). Logarithm and cosine are the platform's: unlike machines may differ in the last
bit of a float64.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stretto.layout import Box, intersect
from stretto.model import Parameter

_CHUNK = 1 << 14  # numbers at a time: what is worked on stays in cache
_GOLDEN = 0x9E3779B97F4A7C15  # 2⁶⁴ divided by the golden ratio: the step of the counter
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def initial(
    parameter: Parameter, box: Box, *, shape: tuple[int, ...], seed: int
) -> NDArray[np.float64]:
    """Give the initial values of a box of a parameter.

    Args:
        parameter: Which; its name, `std` and `constant` count.
        box: Which part of it, in global coordinates. What lies beyond `shape` is padding.
        shape: Its true global shape, without padding.
        seed: Another seed gives other numbers.

    Returns:
        The values, of the shape of `box`; zero in the padding.
    """
    values = np.zeros(tuple(stop - start for start, stop in box))
    true = intersect(box, tuple((0, size) for size in shape))
    if true is None:
        return values
    inside = values[tuple(slice(0, stop - start) for start, stop in true)]
    if parameter.std == 0:
        inside[...] = parameter.constant
        return values
    key = _key(parameter.name, seed)
    for piece in _pieces(inside.shape):
        state = np.full((1,) * len(shape), (key + _GOLDEN) % 2**64, np.uint64)
        for d, (part, (start, _)) in enumerate(zip(piece, true, strict=True)):
            at = np.arange(start + part.start, start + part.stop, dtype=np.uint64)
            at *= np.uint64(math.prod(shape[d + 1 :]) * _GOLDEN % 2**64)  # 64 bits wrap, as meant
            state = state + at.reshape([-1 if e == d else 1 for e in range(len(shape))])
        inside[piece] = _normal(state)
    inside *= parameter.std
    return values


def _key(name: str, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _pieces(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut an array of `shape` into pieces of at most a chunk, rows as whole as can be."""
    row = math.prod(shape[1:])
    step = max(1, _CHUNK // max(row, 1))
    rests = list(_pieces(shape[1:])) if row > _CHUNK else [tuple(slice(0, s) for s in shape[1:])]
    for start in range(0, shape[0], step):
        for rest in rests:
            yield (slice(start, min(start + step, shape[0])), *rest)


def _normal(state: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Give a standard normal number for each state of the generator, overwriting the states."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state ^= state >> np.uint64(shift)
        state *= np.uint64(factor)
    state ^= state >> np.uint64(31)
    radius = (state >> np.uint64(32)).astype(np.float64)
    radius += 0.5  # never zero
    radius *= 2.0**-32
    np.log(radius, out=radius)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    angle = (state & np.uint64(0xFFFFFFFF)).astype(np.float64)
    angle *= 2.0 * math.pi * 2.0**-32
    np.cos(angle, out=angle)
    radius *= angle
    return radius
