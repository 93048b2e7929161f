"""A forecast as a picture: goodput against the checkpoint interval, and when the runs are done."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stretto.forecast import quantiles
from stretto.forecast.failures import DAY_S
from stretto.forecast.interval import Intervals
from stretto.forecast.lanes import GIVE_UP
from stretto.report.forecast_told import Told
from stretto.units import show_seconds

_WIDTH, _LEFT, _RIGHT = 760, 64, 24
_TOP, _PANEL, _GAP = 56, 200, 112  # above the first panel, height of one, between the two
_HEIGHT = _TOP + 2 * _PANEL + _GAP + 56
_BINS = 40
_LEAST = 0.01  # of goodput, from the bottom to the top of the panel: noise shall not look large
_MOST_DAYS = 6  # that have room below a panel
_STYLE = """
  svg { background: #fff; font: 13px system-ui, sans-serif; }
  text { fill: #333; } .title { font-size: 15px; font-weight: 600; }
  .grid { stroke: #e4e4e4; } .mark { stroke: #c0392b; stroke-dasharray: 6 4; stroke-width: 1.4; }
  .line { fill: none; stroke: #1b5fa8; stroke-width: 2.2; } .dot { fill: #1b5fa8; }
  .bar { fill: #9db8d9; } .red { fill: #c0392b; } .blue { fill: #1b5fa8; }
  @media (prefers-color-scheme: dark) {
    svg { background: #14181d; } text { fill: #ccc; } .grid { stroke: #2a3038; }
    .line { stroke: #6fb1ff; } .dot, .blue { fill: #6fb1ff; } .bar { fill: #4a6a91; }
    .mark { stroke: #e8776a; } .red { fill: #e8776a; }
  }"""

_MARKS = (("10 %", "end", 6), ("half", "middle", 20), ("90 %", "start", 6))
_TIMES_S = (
    1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Panel:
    """Where values lie in one panel.

    Attributes:
        top: Of the panel in the picture.
        x: The values at its left and right edge.
        y: At its bottom and top.
    """

    top: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * across, self.top + _PANEL * (1 - up)

    def rows(self, values: Iterable[tuple[float, str]]) -> Iterator[str]:
        """Give horizontal lines with their words."""
        for value, words in values:
            _, y = self.at(self.x[0], value)
            yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
            yield _text(_LEFT - 8, y + 4, words, anchor="end")

    def columns(self, values: Iterable[tuple[float, str]]) -> Iterator[str]:
        """Give words below."""
        for value, words in values:
            x, y = self.at(value, self.y[0])
            yield f'<path class="grid" d="M{x:.1f} {y:.1f}v5"/>'
            yield _text(x, y + 20, words, anchor="middle")


def picture(told: Told) -> str:
    """Give a forecast as SVG that needs nothing else and follows light or dark colours."""
    body = "\n".join([*_curve(told), *_ends(told)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" role="img">\n<style>{_STYLE}\n</style>\n{body}\n</svg>\n'
    )


def _curve(told: Told) -> Iterator[str]:
    """Give goodput against the interval between checkpoints."""
    curve = told.answer.intervals
    logs = [math.log10(every) for every in curve.every_s]
    high = max(curve.goodput)
    low = min(*curve.goodput, high - _LEAST)
    ticks = _round(low, high)
    wide = max(logs[-1] - logs[0], 0.1)
    panel = _Panel(_TOP, (logs[0] - 0.02 * wide, logs[0] + 1.02 * wide), (ticks[0], ticks[-1]))
    yield _text(_LEFT, 22, told.title, kind="title")
    yield _text(_LEFT, _TOP - 10, "goodput, by the time from one checkpoint to the next")
    digits = 0 if ticks[1] - ticks[0] >= 0.00999 else 1 if ticks[1] - ticks[0] >= 0.000999 else 2
    yield from panel.rows((t, f"{t:.{digits}%}") for t in ticks)
    yield from panel.columns(_times(panel))
    points = [panel.at(x, y) for x, y in zip(logs, curve.goodput, strict=True)]
    yield f'<path class="line" d="{_path(points)}"/>'
    yield from _closed(curve, panel)
    x, y = panel.at(math.log10(curve.best_s), high)
    yield f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    words = f"best: {show_seconds(curve.best_s)}, {high:.1%}"
    yield _text(*_beside(x, _TOP + _PANEL - 10), words, anchor=_side(x), kind="blue")


def _closed(curve: Intervals, panel: _Panel) -> Iterator[str]:
    """Give where the closed form has the best interval, if that is in the picture."""
    if not 0 < curve.daly_s < math.inf or not panel.x[0] <= math.log10(curve.daly_s) <= panel.x[1]:
        return
    x, _ = panel.at(math.log10(curve.daly_s), panel.y[0])
    yield f'<path class="mark" d="M{x:.1f} {panel.top}v{_PANEL}"/>'
    words = f"Daly: {show_seconds(curve.daly_s)}"
    yield _text(*_beside(x, _TOP + _PANEL - 28), words, anchor=_side(x), kind="red")


def _times(panel: _Panel) -> Iterator[tuple[float, str]]:
    """Give round times, with room between them."""
    room = (panel.x[1] - panel.x[0]) / 8
    before = -math.inf
    for seconds in _TIMES_S:
        log = math.log10(seconds)
        if panel.x[0] <= log <= panel.x[1] and log - before >= room:
            before = log
            yield log, _short(seconds)


def _short(seconds: int) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _ends(told: Told) -> Iterator[str]:
    """Give in how many of the runs training is done on which day."""
    ends = told.answer.forecast.finish_s
    done = ends[np.isfinite(ends)]
    top = _TOP + _PANEL + _GAP
    if not len(done):
        yield _text(
            _LEFT, top, f"no run is done in {GIVE_UP:g} times what it takes without failures"
        )
        return
    low, high = float(done.min()), float(done.max())
    margin = max(0.1 * (high - low), 0.005 * high)
    counts, edges = np.histogram(done, bins=_BINS, range=(low - margin, high + margin))
    panel = _Panel(top, (float(edges[0]), float(edges[-1])), (0.0, float(counts.max())))
    given_up = f"; {told.answer.forecast.given_up} are not" if len(done) < len(ends) else ""
    yield _text(_LEFT, top - 40, f"when {len(done)} of {len(ends)} runs are done{given_up}")
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        (x, y), (stop, floor) = panel.at(float(left), float(count)), panel.at(float(right), 0.0)
        yield (
            f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{stop - x - 1:.1f}" '
            f'height="{floor - y:.1f}"/>'
        )
    yield from panel.rows([(0.0, "0"), (panel.y[1], f"{counts.max()}")])
    yield from panel.columns(_days(panel, told))
    for (name, anchor, up), seconds in zip(_MARKS, quantiles(ends), strict=True):
        if math.isfinite(seconds):
            x, _ = panel.at(seconds, 0.0)
            yield f'<path class="mark" d="M{x:.1f} {top - up + 3}V{top + _PANEL}"/>'
            yield _text(x, top - up, name, anchor=anchor, kind="red")


def _days(panel: _Panel, told: Told) -> Iterator[tuple[float, str]]:
    """Give days, or what has passed of a day or two, with room between them."""
    first, last = panel.x
    apart = math.ceil((last - first) / _MOST_DAYS / DAY_S) * DAY_S
    begin = math.ceil(first / DAY_S) * DAY_S
    days = [begin + i * apart for i in range(_MOST_DAYS + 1) if begin + i * apart <= last]
    if len(days) < 2:
        places = [first + (last - first) * i / 4 for i in range(5)]
        yield from ((place, f"{place / DAY_S:.2f} days") for place in places[1:-1])
        return
    for place in days:
        day = told.date(place)
        yield place, f"{day.day} {day:%b %Y}" if day else "later"


def _round(low: float, high: float) -> list[float]:
    """Give round values that enclose some, few enough to be lines."""
    spread = max(high - low, 1e-4)
    size = next(s for e in range(-6, 2) for m in (1, 2, 5) if spread / (s := m * 10.0**e) <= 6)
    first, last = math.floor(low / size), math.ceil(high / size + 1e-9)
    return [i * size for i in range(first, max(last, first + 1) + 1)]


def _side(x: float) -> str:
    return "start" if x < _WIDTH / 2 else "end"


def _beside(x: float, y: float) -> tuple[float, float]:
    """Give a place for words beside a line, where there is more room."""
    return x + (8 if _side(x) == "start" else -8), y


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))


def _text(x: float, y: float, words: str, *, anchor: str = "start", kind: str = "") -> str:
    safe = words.replace("&", "&amp;").replace("<", "&lt;")
    own = f' class="{kind}"' if kind else ""
    return f'<text{own} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{safe}</text>'
