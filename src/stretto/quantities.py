"""How the page and the diagnosis write quantities: each in one way, wherever it stands.

Three significant digits, with their zeros. ``page/static/numbers.js`` writes the same in the same
way: a test holds one against the other.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal

from stretto.units import show_seconds

_TIMES = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
_BINARY = {"TiB": 2.0**40, "GiB": 2.0**30, "MiB": 2.0**20, "KiB": 2.0**10, "B": 1.0}
_DECIMAL = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1.0}
_HOURS = {f"{name}Wh": 3600 * one for name, one in _DECIMAL.items()} | {"J": 1.0}
_FULL = 0.9995  # of a unit: that is one, in three digits


def seconds(value: float) -> str:
    """Give the time of a step, or of a part of one: ``58.3 s``, ``1,240 s``, ``17.5 ms``."""
    return _scaled(value, _TIMES) if abs(value) >= 5e-10 else "0 s"


def span(value: float) -> str:
    """Give how long a run goes on: ``1 h 02 min``, ``3 min 05 s``; less than that as `seconds`."""
    return show_seconds(value) if value >= 59.95 else seconds(value)


def size(value: float) -> str:
    """Give bytes: ``1.50 GiB``, ``512 B``."""
    return _scaled(value, _BINARY)


def count(value: float) -> str:
    """Give a count: ``10.5 M``, ``812``."""
    return _scaled(value, _DECIMAL)


def number(value: float) -> str:
    """Give a number without a unit, as a loss: ``5.871``, ``71.51``, ``0.004``, ``12``."""
    large = abs(value)
    text = _digits(large, 4) if large != round(large) else _fixed(large, 0)
    return _signed(value, text.rstrip("0") if large < 1 and "." in text else text)


def money(value: float) -> str:
    """Give what something costs: ``2.37 M USD``, ``6.80 USD``, ``0.00420 USD``."""
    return f"{_signed(value, _digits(abs(value))) if abs(value) < 999.5 else count(value)} USD"


def energy(joules: float) -> str:
    """Give energy: ``219 MWh``, ``1.55 J``."""
    return _scaled(joules, _HOURS)


def share(value: float) -> str:
    """Give a share: ``32.0 %``, ``5.7 %``, ``0.76 %``, ``100 %``."""
    percent = abs(value) * 100
    places = 0 if percent >= 99.95 else 1
    text = _digits(percent, 2) if percent < 0.995 else _fixed(percent, places)
    return f"{_signed(value, text)} %"


def change(ratio: float) -> str:
    """Give a ratio as a difference: ``+7.2 %``, ``−0.40 %``."""
    return f"{'+' if ratio >= 1 else ''}{share(ratio - 1)}"


def _scaled(value: float, units: dict[str, float]) -> str:
    """Give a number in the largest unit of which it is one; what is counted singly as it is."""
    large = abs(value)
    unit = next((u for u, one in units.items() if large >= _FULL * one), [*units][-1])
    single = unit in ("", "B") and large == round(large)
    text = _fixed(large, 0) if single else _digits(large / units[unit])
    return f"{_signed(value, text)} {unit}".rstrip()


def _signed(value: float, text: str) -> str:
    return f"−{text}" if value < 0 else text


def _digits(value: float, digits: int = 3) -> str:
    """Give a number to some digits; all of those before the point."""
    if value == 0:
        return "0"
    near = Context(prec=digits, rounding=ROUND_HALF_UP).create_decimal_from_float(value)
    return _fixed(value, max(0, digits - 1 - near.adjusted()))


def _fixed(value: float, places: int) -> str:
    return f"{Decimal(value).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):,f}"
