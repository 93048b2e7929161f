"""Quantities with units: one parser at the edge, one printer for people. SI base units inside."""

from __future__ import annotations

import math
import re
from typing import Literal

from stretto.errors import InputError, Problem

Quantity = Literal["bytes", "bytes_per_s", "flops", "flops_per_s", "s", "w", "j"]

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_PREFIXES = _DECIMAL | _BINARY

# unit → (quantity, factor to the base unit)
_UNITS: dict[str, tuple[Quantity, float]] = {
    "B": ("bytes", 1.0),
    "bit": ("bytes", 0.125),
    "B/s": ("bytes_per_s", 1.0),
    "bit/s": ("bytes_per_s", 0.125),
    "FLOP": ("flops", 1.0),
    "FLOP/s": ("flops_per_s", 1.0),
    "W": ("w", 1.0),
    "J": ("j", 1.0),
    "Wh": ("j", 3600.0),
}
_TIMES = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)\s*$")


def parse(text: str, quantity: Quantity, *, field: str = "value", example: str = "") -> float:
    """Give the value of `text` in the base unit of `quantity`.

    Args:
        text: A number and its unit: ``25MiB``, ``200Gbit/s``, ``989TFLOP/s``, ``1.5us``.
        quantity: The quantity that is expected.
        field: What to call it in an error.
        example: What to write, where that is known better than from the quantity.

    Returns:
        The value in bytes, bytes per second, FLOPs, FLOPs per second, seconds or watts.

    Raises:
        InputError: No number, no unit, or the unit of another quantity.
    """
    match = _NUMBER.match(text)
    factor = _factor(match.group(2), quantity) if match else None
    if match and factor is not None and math.isfinite(float(match.group(1)) * factor):
        return float(match.group(1)) * factor
    example = (
        example
        or {
            "bytes": "25MiB",
            "bytes_per_s": "200Gbit/s or 25GB/s",
            "flops": "1.2TFLOP",
            "flops_per_s": "989TFLOP/s",
            "s": "1.5us",
            "w": "700W",
            "j": "1.2kWh or 4.3MJ",
        }[quantity]
    )
    raise InputError(
        Problem(field, f"{text!r} is not a number with a unit of {quantity}", f"write {example}")
    )


def _factor(unit: str, quantity: Quantity) -> float | None:
    """Give what a number with `unit` is multiplied by; None for a unit of something else."""
    if quantity == "s":
        return _TIMES.get(unit)
    for name, (kind, factor) in _UNITS.items():
        prefix = unit[: len(unit) - len(name)]
        if kind == quantity and unit.endswith(name) and prefix in _PREFIXES:
            return _PREFIXES[prefix] * factor
    return None


def show_bytes(value: float) -> str:
    """Give bytes for people, in binary units: ``1.50 GiB``."""
    for unit, size in (("TiB", 2.0**40), ("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10)):
        if abs(value) >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f} B"


def show_count(value: float) -> str:
    """Give a count for people, in decimal steps: ``10.5 M``."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:  # 999.5 k reads as 1 M
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def show_seconds(value: float) -> str:
    """Give a duration for people: ``1 h 02 min``, ``3 min 05 s``, ``4.2 s``, ``17 ms``."""
    if value >= 3599.5:
        return "{} h {:02d} min".format(*divmod(round(value / 60), 60))
    if value >= 59.95:
        return "{} min {:02d} s".format(*divmod(round(value), 60))
    if value >= 0.9995:
        return f"{value:.1f} s"
    return f"{value * 1e3:.3g} ms"
