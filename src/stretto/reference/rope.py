"""Rotary positions: frequencies, their scalings, and the rotation (Su et al., 2021).

Dimensions: B batch, T time, H head_dim; … any heads.
"""

from __future__ import annotations

import math

import numpy as np

from stretto.model import Model, Rope
from stretto.reference.arrays import Array


def rotation(model: Model, *, positions: int) -> tuple[Array, Array]:
    """Give cosine and sine (T, H/2) of the angle at each position, times their factor.

    Args:
        model: A model with rotary positions.
        positions: T.
    """
    frequencies, factor = scaled(model, length=positions)
    angle = np.outer(np.arange(positions), frequencies)
    return np.cos(angle) * factor, np.sin(angle) * factor


def turned(x: Array, cos: Array, sin: Array) -> Array:
    """Turn pairs (i, i + H/2) of heads (B, T, …, H); with the sine negated, the transpose."""
    shape = (cos.shape[0], *(1,) * (x.ndim - 3), cos.shape[1])
    cos, sin = cos.reshape(shape), sin.reshape(shape)
    left, right = np.split(x, 2, axis=-1)
    return np.concatenate((left * cos - right * sin, right * cos + left * sin), axis=-1)


def scaled(model: Model, *, length: int) -> tuple[Array, float]:
    """Give the H/2 frequencies in radians a position, and what cosine and sine are multiplied by.

    Args:
        model: A model with rotary positions.
        length: Positions of the sequence, on which ``dynamic`` and ``longrope`` depend.
    """
    rope, width = model.rope, model.head_dim
    assert rope is not None, "learned positions have no frequencies"
    exponent = np.arange(0, width, 2) / width
    plain = 1.0 / rope.theta**exponent
    match rope.scaling:
        case "none":
            return plain, 1.0
        case "linear":
            return plain / rope.factor, 1.0
        case "dynamic":
            original = rope.original_positions or model.positions
            growth = rope.factor * max(length, original) / original - (rope.factor - 1)
            theta = rope.theta * growth ** (width / max(width - 2, 1))
            return 1.0 / theta**exponent, 1.0
        case "llama3":
            return _llama3(plain, rope), 1.0
        case "yarn":
            return _yarn(plain, rope), _yarn_factor(rope)
        case "longrope":
            by = rope.long_factor if length > rope.original_positions else rope.short_factor
            return plain / np.array(by), _longrope_factor(rope)


def _llama3(plain: Array, rope: Rope) -> Array:
    """Divide what is slow, keep what is fast, and blend between (Grattafiori et al., 2024)."""
    wavelength = 2 * np.pi / plain
    longest = rope.original_positions / rope.low_freq_factor
    shortest = rope.original_positions / rope.high_freq_factor
    smooth = (rope.original_positions / wavelength - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    blend = (1 - smooth) * plain / rope.factor + smooth * plain
    slow = np.where(wavelength > longest, plain / rope.factor, blend)
    return np.where(wavelength < shortest, plain, slow)


def _yarn(plain: Array, rope: Rope) -> Array:
    """Keep what turns often, divide what hardly turns, and blend between (Peng et al., 2023)."""
    half = len(plain)

    def place(turns: float) -> float:
        """Where on the scale of frequencies one turns so often in the original context."""
        return half * math.log(rope.original_positions / (2 * np.pi * turns), rope.theta)

    low, high = place(rope.beta_fast), place(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * half - 1)
    if low == high:
        high += 0.001
    divided = np.clip((np.arange(half) - low) / (high - low), 0, 1)
    return np.asarray(plain / rope.factor * divided + plain * (1 - divided))


def _yarn_factor(rope: Rope) -> float:
    def mscale(weight: float) -> float:
        return 0.1 * weight * math.log(rope.factor) + 1 if rope.factor > 1 else 1.0

    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return mscale(rope.mscale) / mscale(rope.mscale_all_dim)
    return mscale(1.0)


def _longrope_factor(rope: Rope) -> float:
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.factor <= 1:
        return 1.0
    return math.sqrt(1 + math.log(rope.factor) / math.log(rope.original_positions))
