"""What a calibration changed, in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stretto.calibrate import Calibration, Change
from stretto.calibrate.constant import quantity
from stretto.calibrate.fit import Residual
from stretto.report.quantities import change, counted, step
from stretto.units import Quantity

WORKS = 12
"""Kinds of work that are listed at most."""

_UNITS: Mapping[Quantity | None, Sequence[tuple[str, float]]] = {
    "s": (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)),
    "bytes_per_s": (("GB/s", 1e9), ("MB/s", 1e6)),
    "flops_per_s": (("TFLOP/s", 1e12), ("GFLOP/s", 1e9)),
    None: (("", 1.0),),
}


def lines(found: Calibration, names: Sequence[str]) -> Iterator[str]:
    """Give all that came of a calibration.

    Args:
        found: What came of it.
        names: What the runs are called.
    """
    head = ("a step", "measured", "", "", "predicted before", "", "and after", "")
    rows = [
        (name, step(s.measured_s), f"± {s.spread:.0%}", counted(s.count, "recording"),
         *_beside(s.before_s, s.measured_s), *_beside(s.after_s, s.measured_s))
        for name, s in zip(names, found.steps, strict=True)
    ]  # fmt: skip
    yield from _columns(head, rows)
    yield ""
    if found.changes:
        yield from _columns(
            ("constant", "before", "after", "±", "told by", "still off"),
            [tuple(_row(one)) for one in found.changes],
        )
    else:
        yield "no constant changed"
    yield ""
    yield from _works(found.residuals)


def _row(one: Change) -> Iterator[str]:
    yield one.name
    yield shown(one.name, one.before)
    yield shown(one.name, one.after)
    yield f"{one.error:.0%}"
    yield counted(one.samples, "kind of work", "kinds of work") if one.samples else "the step alone"
    yield f"{one.residual:.0%}" if one.samples else ""


def _works(residuals: Sequence[Residual]) -> Iterator[str]:
    """Give what the step was spent on."""
    rows = []
    for one in residuals[:WORKS]:
        sample = one.sample
        rows.append(
            (sample.name, f"{one.share:.0%}", f"{sample.count:,} ×", step(sample.seconds),
             *_beside(one.before_s, sample.seconds), *_beside(one.after_s, sample.seconds))
        )  # fmt: skip
    head = ("kind of work", "of all", "", "measured", "predicted before", "", "and after", "")
    yield from _columns(head, rows)
    if len(residuals) > WORKS:
        rest = sum(one.share for one in residuals[WORKS:])
        yield f"{len(residuals) - WORKS} more, {rest:.0%} of all"


def _beside(predicted_s: float, measured_s: float) -> tuple[str, str]:
    return step(predicted_s), change(predicted_s / measured_s)


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Give lines in columns: to the left what is first, to the right what are numbers."""
    every = [head, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    for row in every:
        cells = (
            f"{cell:{'<' if i == 0 else '>'}{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def shown(name: str, value: float) -> str:
    """Give the value of a constant with its unit."""
    units = _UNITS[quantity(name)]
    unit, factor = next(((u, f) for u, f in units if value >= f), units[-1])
    return f"{value / factor:.4g} {unit}".rstrip()


def tree(found: Calibration, names: Sequence[str]) -> dict[str, Any]:
    """Give the same as JSON: seconds, and constants in SI units."""
    return {
        "steps": [
            {"run": name, **asdict(one)} for name, one in zip(names, found.steps, strict=True)
        ],
        "constants": [asdict(one) for one in found.changes],
        "works": [
            {
                "name": one.sample.name,
                "count": one.sample.count,
                "share": one.share,
                "measured_s": one.sample.seconds,
                "before_s": one.before_s,
                "after_s": one.after_s,
            }
            for one in found.residuals
        ],
    }
