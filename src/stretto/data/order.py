"""The order of samples: a shuffle that is computed, not stored.

A permutation of ``range(size)`` is a cipher on that range, whose key is the seed and the epoch. Any
place in it is found at once, so nothing is kept, and a run continues from any step. The cipher is
the generalised Feistel network of Black & Rogaway (2002, section 5): a number is two digits
``left + a·right``, and each round adds to one digit a hash of the other. With ``a = ⌈√size⌉`` the
digits make hardly more numbers than `size`; those that land outside go round again until they are
inside (their "cycle walking"), which keeps it a bijection.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

_ROUNDS = 4  # of both digits; with ideal hashes two would do (Luby & Rackoff, 1988)
_ONE = np.uint64(1)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ divided by the golden ratio


def permute(index: ArrayLike, *, size: int, seed: int, epoch: ArrayLike) -> NDArray[np.int64]:
    """Give what stands at places of a shuffled ``range(size)``.

    Args:
        index: Places, each in ``range(size)``; of any shape.
        size: How many there are to shuffle, 1 … 2⁶².
        seed: Another seed gives another shuffle.
        epoch: Another epoch gives another shuffle; one, or one per place; at least 0.

    Returns:
        Distinct numbers in ``range(size)`` for distinct places of one epoch; of the shape of
        `index`.
    """
    place, epochs = np.broadcast_arrays(np.asarray(index, np.int64), np.asarray(epoch, np.int64))
    assert 1 <= size <= 2**62
    assert ((place >= 0) & (place < size)).all()
    number = place.ravel().astype(np.uint64)
    seeds = np.full(number.shape, seed % 2**64, np.uint64)
    keys = _mix(_mix(seeds) + epochs.ravel().astype(np.uint64))
    number = _encipher(number, keys, size=size)
    while (outside := number >= size).any():
        number[outside] = _encipher(number[outside], keys[outside], size=size)
    return number.astype(np.int64).reshape(place.shape)


def _encipher(
    number: NDArray[np.uint64], keys: NDArray[np.uint64], *, size: int
) -> NDArray[np.uint64]:
    """Permute ``range(a·b)``, the numbers of two digits, with ``a·b - size < a``."""
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    left, right = number % np.uint64(a), number // np.uint64(a)
    for _ in range(_ROUNDS):
        # A hash of 63 bits: a sum that wrapped at 2⁶⁴ would not be one to one modulo a.
        left = (left + (_mix(keys + right) >> _ONE)) % np.uint64(a)
        keys = keys + _GOLDEN
        right = (right + (_mix(keys + left) >> _ONE)) % np.uint64(b)
        keys = keys + _GOLDEN
    return left + np.uint64(a) * right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash 64 bits to 64 bits, one to one (SplitMix64: Steele et al., 2014)."""
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
