"""The curve of a run: training and held-out loss over tokens, as an SVG file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stretto.units import show_count

Point = tuple[float, float]
"""(tokens, loss)."""

_WIDTH, _HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 48, 52
_STYLE = """
  svg { background: #fff; font: 13px system-ui, sans-serif; }
  text { fill: #333; } .title { font-size: 15px; font-weight: 600; }
  .grid { stroke: #e4e4e4; } .axis { stroke: #888; }
  .train { fill: none; stroke: #9db8d9; stroke-width: 1.2; }
  .held { fill: none; stroke: #1b5fa8; stroke-width: 2.2; } .dot { fill: #1b5fa8; }
  .base { stroke: #c0392b; stroke-dasharray: 6 4; stroke-width: 1.4; } .red { fill: #c0392b; }
  .blue { fill: #1b5fa8; } .pale { fill: #6f8fb5; }
  @media (prefers-color-scheme: dark) {
    svg { background: #14181d; } text { fill: #ccc; } .grid { stroke: #2a3038; }
    .held { stroke: #6fb1ff; } .dot, .blue { fill: #6fb1ff; } .train { stroke: #4a6a91; }
  }"""


def curve(records: Sequence[Mapping[str, Any]], *, baseline: float, title: str) -> str:
    """Give the picture of a run.

    Args:
        records: Lines of ``metrics.jsonl``; see `report.metrics`.
        baseline: A unigram model's held-out loss in nats per token.
        title: What stands above it.

    Returns:
        SVG that needs nothing else and follows the reader's light or dark colours.
    """
    train = [(r["tokens"], r["loss"]) for r in records if r.get("loss") is not None]
    held = [(r["tokens"], r["valid_loss"]) for r in records if r.get("valid_loss") is not None]
    losses = [loss for _, loss in (*train, *held)] + [baseline]
    scale = _Scale(max((t for t, _ in train), default=1.0), min(losses), max(losses))
    parts = [f'<text class="title" x="{_LEFT}" y="26">{_escaped(title)}</text>']
    parts += scale.frame()
    parts.append(f'<path class="train" d="{scale.path(train)}"/>')
    parts.append(f'<path class="held" d="{scale.path(held)}"/>')
    parts += [
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in map(scale.at, held)
    ]
    parts += _baseline(scale, baseline)
    parts += _legend(held[-1][1] if held else None)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" role="img">\n<style>{_STYLE}\n</style>\n{body}\n</svg>\n'
    )


class _Scale:
    """Where tokens and losses lie in the picture."""

    def __init__(self, tokens: float, low: float, high: float) -> None:
        self.tokens = tokens
        self.step = next(s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 1e9) if (high - low) / s <= 8)
        self.low = self.step * int(low / self.step)
        self.high = self.step * (int(high / self.step) + 1)

    def at(self, point: Point) -> Point:
        tokens, loss = point
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * tokens / self.tokens
        share = (loss - self.low) / (self.high - self.low)
        return x, _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    def path(self, points: Iterable[Point]) -> str:
        return " ".join(
            f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(map(self.at, points))
        )

    def frame(self) -> list[str]:
        parts = []
        count = round((self.high - self.low) / self.step)
        for loss in (self.low + i * self.step for i in range(count + 1)):
            _, y = self.at((0, loss))
            parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{loss:g}</text>')
        for share in (0, 0.25, 0.5, 0.75, 1):
            x, _ = self.at((share * self.tokens, self.low))
            label = show_count(float(f"{share * self.tokens:.3g}"))
            y = _HEIGHT - _BOTTOM + 18
            parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{label}</text>')
        x, y = (_WIDTH + _LEFT - _RIGHT) / 2, _HEIGHT - 12
        parts.append(f'<text x="{x}" y="{y}" text-anchor="middle">tokens trained on</text>')
        parts.append(f'<text x="{_LEFT}" y="{_TOP - 6}">loss, nats per token</text>')
        return parts


def _baseline(scale: _Scale, baseline: float) -> list[str]:
    _, y = scale.at((0, baseline))
    x = _LEFT + 90
    return [
        f'<path class="base" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>',
        f'<text class="red" x="{x}" y="{y - 6:.1f}">unigram model, held out: {baseline:.2f}</text>',
    ]


def _legend(last: float | None) -> list[str]:
    held = "held out" if last is None else f"held out: {last:.2f} at the end"
    x = _WIDTH - _RIGHT
    return [
        f'<text class="blue" x="{x}" y="{_TOP + 62}" text-anchor="end">{held}</text>',
        f'<text class="pale" x="{x}" y="{_TOP + 80}" text-anchor="end">training</text>',
    ]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
