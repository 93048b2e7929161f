"""Pictures of the page: predicted against measured, and the errors of each source, as SVG files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from stretto.fidelity.predict import Prediction
from stretto.fidelity.score import by_source

KINDS = (
    ("A100", ("A100", "A800")),
    ("H100", ("H100", "H800")),
    ("H200", ("H200",)),
    ("B200, GB200", ("B200", "GB200", "B300")),
    ("other", ("",)),
)
"""(name in the legend, beginnings of the hardware's names)."""

_WIDTH = 760
_STYLE = """
  svg { background: #fff; font: 13px system-ui, sans-serif; }
  text { fill: #333; } .title { font-size: 15px; font-weight: 600; } .small { font-size: 11px; }
  .grid { stroke: #e4e4e4; } .same { stroke: #888; } .band { fill: #888; opacity: 0.12; }
  .mark { stroke: #222; stroke-width: 2; }
  circle { opacity: 0.55; }
  .k0 { fill: #1b5fa8; } .k1 { fill: #c8641a; } .k2 { fill: #b3368f; } .k3 { fill: #1f8a4c; }
  .k4 { fill: #666; }
  @media (prefers-color-scheme: dark) {
    svg { background: #14181d; } text { fill: #ccc; } .grid { stroke: #2a3038; }
    .mark { stroke: #eee; } circle { opacity: 0.65; }
    .k0 { fill: #6fb1ff; } .k1 { fill: #ffa45c; } .k2 { fill: #f08ad3; } .k3 { fill: #5fd48f; }
    .k4 { fill: #aaa; }
  }"""


def scatter(predictions: Sequence[Prediction]) -> str:
    """Give predicted over measured tokens per second, on logarithmic axes.

    Args:
        predictions: Those without a measured throughput are left out.
    """
    points = [
        (p.row.tokens_per_s, p.throughput / p.row.measured.per_token, _kind(p))
        for p in predictions
        if p.error is not None and p.row.tokens_per_s is not None
    ]
    left, top, size = 84, 48, 520
    values = [math.log10(v) for x, y, _ in points for v in (x, y)]
    low, high = min(values) - 0.1, max(values) + 0.1

    def at(value: float) -> float:
        return size * (math.log10(value) - low) / (high - low)

    parts = [f'<text class="title" x="{left}" y="26">Tokens per second of a device</text>']
    for power in range(math.ceil(low), math.floor(high) + 1):
        place = at(10**power)
        x, y = left + place, top + size - place
        parts.append(f'<path class="grid" d="M{x:.1f} {top}V{top + size}M{left} {y:.1f}h{size}"/>')
        label = f"{10**power:,}"
        parts.append(f'<text x="{x:.1f}" y="{top + size + 18}" text-anchor="middle">{label}</text>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    shift = size * math.log10(1.15) / (high - low)
    bottom, right = top + size, left + size
    parts.append(
        f'<path class="band" d="M{left} {bottom}V{bottom - shift:.1f}L{right - shift:.1f} {top}'
        f'H{right}V{top + shift:.1f}L{left + shift:.1f} {bottom}Z"/>'
    )
    parts.append(f'<path class="same" d="M{left} {bottom}L{right} {top}"/>')
    parts += [
        f'<circle class="k{kind}" cx="{left + at(x):.1f}" cy="{bottom - at(y):.1f}" r="2.8"/>'
        for x, y, kind in points
    ]
    parts.append(
        f'<text x="{left + size / 2}" y="{bottom + 40}" text-anchor="middle">measured</text>'
    )
    parts.append(
        f'<text transform="translate(18 {top + size / 2}) rotate(-90)" '
        'text-anchor="middle">predicted</text>'
    )
    for i, (kind, count) in enumerate(_counts(points)):
        y = top + 14 + 22 * i
        parts.append(f'<circle class="k{kind}" cx="{right + 22}" cy="{y - 4}" r="5"/>')
        parts.append(f'<text x="{right + 34}" y="{y}">{KINDS[kind][0]}: {count}</text>')
    parts.append(f'<text class="small" x="{right + 16}" y="{bottom - 6}">grey: within 15 %</text>')
    return _svg(parts, height=bottom + 56)


def strips(predictions: Sequence[Prediction]) -> str:
    """Give the errors of each source in a strip: every row, their median, and 8 % of bias."""
    scores = {k: v for k, v in by_source(predictions).items() if v.throughput.n}
    left, right, top, each = 176, 24, 56, 26
    span = _WIDTH - left - right
    bottom = top + each * len(scores)

    def at(error: float) -> float:
        return left + span * (min(max(error, -0.5), 0.6) + 0.5) / 1.1

    parts = ['<text class="title" x="16" y="26">Error of every row, by source</text>']
    parts.append(f'<path class="band" d="M{at(-0.08):.1f} {top}V{bottom}H{at(0.08):.1f}V{top}Z"/>')
    for tick in (-0.4, -0.2, 0.0, 0.2, 0.4):
        x = at(tick)
        line = "same" if tick == 0 else "grid"
        parts.append(f'<path class="{line}" d="M{x:.1f} {top}V{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:+.0%}</text>')
    for i, (name, one) in enumerate(scores.items()):
        y = top + each * (i + 0.5)
        parts.append(f'<text x="{left - 12}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
        own = [p for p in predictions if p.row.source == name and p.error is not None]
        for j, p in enumerate(own):
            spread = (j * 0.618034 % 1 - 0.5) * (each - 10)
            error = p.error or 0.0
            parts.append(
                f'<circle class="k{_kind(p)}" cx="{at(error):.1f}" cy="{y + spread:.1f}" r="2.4"/>'
            )
        bias = at(one.throughput.bias or 0.0)
        parts.append(f'<path class="mark" d="M{bias:.1f} {y - 9:.1f}v18"/>')
    x, y = left + span / 2, bottom + 40
    parts.append(
        f'<text class="small" x="{x}" y="{y}" text-anchor="middle">predicted over measured '
        "throughput, less 1; bar: median; grey: within 8 %; beyond the edges drawn on them</text>"
    )
    return _svg(parts, height=bottom + 54)


def _kind(p: Prediction) -> int:
    name = p.row.tree["hardware"]
    return next(i for i, (_, heads) in enumerate(KINDS) if name.startswith(heads))


def _counts(points: Sequence[tuple[float, float, int]]) -> Iterator[tuple[int, int]]:
    kinds = [kind for _, _, kind in points]
    yield from ((kind, kinds.count(kind)) for kind in range(len(KINDS)) if kind in kinds)


def _svg(parts: Sequence[str], *, height: float) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" role="img">\n<style>{_STYLE}\n</style>\n{body}\n</svg>\n'
    )
