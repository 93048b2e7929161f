"""Times, money and energy of a training for people."""

from __future__ import annotations

from stretto.units import show_count, show_seconds

_DAY_S = 86_400.0


def step(seconds: float) -> str:
    """Give the time of a step, or of a part of one: ``58.3 s``, ``1,240 s``, ``17.5 ms``."""
    if 0 < seconds < 5e-6:
        return f"{seconds * 1e6:.3g} us"
    short = seconds < 0.9995
    value = seconds * 1e3 if short else seconds
    digits = 0 if value == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{digits}f} {'ms' if short else 's'}"


def duration(seconds: float) -> str:
    """Give the time of a training: ``227 days``, ``3.4 days``, ``5 h 12 min``."""
    days = seconds / _DAY_S
    if days >= 9.95:
        return f"{days:,.0f} days"
    return f"{days:.1f} days" if days >= 2 else show_seconds(seconds)


def money(value: float) -> str:
    """Give what it costs: ``2.37 M USD``, ``6.80 USD``, ``0.0042 USD``."""
    if value <= 0:
        return "price unknown"
    if value < 0.0995:
        return f"{value:.2g} USD"
    return f"{show_count(value)} USD" if value >= 1e3 else f"{value:.2f} USD"


def energy(joules: float) -> str:
    """Give energy: ``219 MWh``."""
    hours = joules / 3600
    return f"{show_count(hours)}Wh" if hours >= 1e3 else f"{hours:.3g} Wh"


def counted(number: int, one: str, many: str = "") -> str:
    """Give how many there are of something: ``1 step``, ``336,427 steps``, ``6 meshes``."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def change(ratio: float) -> str:
    """Give a ratio as a difference: ``+7.2 %``, ``−0.4 %``."""
    percent = (ratio - 1) * 100
    sign = "+" if percent >= 0 else "−"
    size = abs(percent)
    return f"{sign}{size:.0f} %" if size >= 99.5 else f"{sign}{size:.1f} %"
