"""A simulated step as a picture: when each kind of rank worked, and what was under way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise

import numpy as np

from stretto.program.instruction import Compute, Program
from stretto.report.quantities import step
from stretto.simulate.stop import Stopped
from stretto.timeline.value import KINDS, Floats, Ints, Timeline

MOST = 12
"""How many kinds of ranks are drawn, evenly chosen among all."""

_WIDTH, _LEFT, _RIGHT, _TOP = 760, 92, 16, 62
_DEVICE, _MESSAGE, _GAP = 16, 7, 9  # heights: of a device's row, of its messages', between ranks
_PIECES = 900  # in which a row is drawn: finer ones nobody sees
_TICKS = 5
_NAMES = {
    "forward": "forward", "recompute": "recompute", "backward": "backward", "update": "update",
    "activation": "activations", "parameter": "parameters", "gradient": "gradients",
    "pipeline": "pipeline", "vote": "vote", "host": "host",
}  # fmt: skip
_COLOURS = (
    ("forward", "#3b7dc4", "#5fa2ee"), ("recompute", "#8fb6e0", "#35618f"),
    ("backward", "#2f9469", "#49b98a"), ("update", "#8a8f98", "#7d848e"),
    ("activation", "#d9962b", "#e0a94f"), ("parameter", "#9166b8", "#a884cd"),
    ("gradient", "#c75b7a", "#dc7f9a"), ("pipeline", "#c0392b", "#e8776a"),
    ("vote", "#4d535b", "#b9bfc7"), ("host", "#b08d57", "#8a6d3f"),
)  # fmt: skip


def picture(
    line: Timeline, program: Program, *, title: str, stopped: Sequence[Stopped] = ()
) -> str:
    """Give a step as SVG that needs nothing else and follows light or dark colours.

    Args:
        line: The step.
        program: What the ranks do.
        title: What stands above it.
        stopped: Ranks that stop; each is drawn, with a mark where it does.
    """
    count = len(line.alike)
    players = sorted({round(i * (count - 1) / max(1, MOST - 1)) for i in range(MOST)})
    halted = {one.rank: one for one in stopped}
    marked = {p for p, ranks in enumerate(line.alike) if ranks[0] in halted}
    players = sorted({*players, *marked}) if count > MOST else [*range(count)]
    each = _DEVICE + _MESSAGE + _GAP
    bottom = _TOP + each * len(players)
    seen: dict[str, None] = {}
    rows = "\n".join(
        row
        for i, player in enumerate(players)
        for row in _rank(line, program, player, _TOP + each * i, seen)
    )
    places = {line.alike[player][0]: _TOP + each * i for i, player in enumerate(players)}
    marks = [_mark(line, one, places[rank]) for rank, one in halted.items()]
    drawn = "".join(marks)
    body = "\n".join([_text(16, 24, title, kind="title"), *_legend(seen), *_axis(line, bottom)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 34}" '
        f'width="{_WIDTH}" role="img">\n<title>{escape(title)}</title>\n'
        f"<style>{_style()}\n</style>\n{body}\n{rows}\n{drawn}</svg>\n"
    )


def _style() -> str:
    light = " ".join(f".{name} {{ fill: {colour}; }}" for name, colour, _ in _COLOURS)
    dark = " ".join(f".{name} {{ fill: {colour}; }}" for name, _, colour in _COLOURS)
    return (
        "\n  svg { background: #fff; font: 12px system-ui, sans-serif; }"
        "\n  text { fill: #333; } .title { font-size: 15px; font-weight: 600; }"
        "\n  .stop { stroke: #d00000; stroke-width: 2.5; fill: none; }"
        f"\n  .grid {{ stroke: #e4e4e4; }} .rest {{ fill: #f1f2f4; }} {light}"
        "\n  @media (prefers-color-scheme: dark) {\n    svg { background: #14181d; } "
        "text { fill: #ccc; } .grid { stroke: #2a3038; } "
        f".rest {{ fill: #20262d; }} {dark}\n  }}"
    )


def _rank(
    line: Timeline, program: Program, player: int, top: float, seen: dict[str, None]
) -> Iterator[str]:
    """Give the rows of a rank: what its device does, and below it what is under way."""
    ranks, room = line.alike[player], _WIDTH - _LEFT - _RIGHT
    alike = f" +{len(ranks) - 1}" if len(ranks) > 1 else ""
    yield _text(_LEFT - 8, top + 13, f"rank {ranks[0]}{alike}", anchor="end")
    rows = np.arange(*np.searchsorted(line.player, (player, player + 1)))
    rows = rows[(line.kind[rows] > 0) & np.isfinite(line.stop_s[rows])]
    device = np.isin(line.kind[rows], [KINDS.index(kind) for kind in ("device", "data", "host")])
    for mine, y, height in (
        (rows[device], top, _DEVICE),
        (rows[~device], top + _DEVICE + 1, _MESSAGE),
    ):
        yield f'<rect class="rest" x="{_LEFT}" y="{y}" width="{room}" height="{height}"/>'
        names = [_name(line, program, row) for row in mine.tolist()]
        for name, first, stop in _pieces(names, line.start_s[mine], line.stop_s[mine], line.step_s):
            seen[name] = None
            x, width = _LEFT + room * first / _PIECES, room * (stop - first) / _PIECES
            yield (
                f'<rect class="{name}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}"/>'
            )


def _mark(line: Timeline, stop: Stopped, top: float) -> str:
    """Give the mark where a rank stops."""
    if stop.at_s is None:
        return ""
    x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * stop.at_s / (line.step_s or 1.0)
    told = f"rank {stop.rank} {stop.verb} before {stop.name}"
    arms = f"M{x - 5:.1f} {top + 3}l10 10m0 -10l-10 10"
    line_down = f"M{x:.1f} {top - 3}v{_DEVICE + _MESSAGE + 6}"
    return f'<path class="stop" d="{line_down}{arms}"><title>{escape(told)}</title></path>\n'


def _pieces(
    names: list[str], start_s: Floats, stop_s: Floats, step_s: float
) -> Iterator[tuple[str, int, int]]:
    """Give runs of the pieces of a row that mostly show one name: (name, first, one past last)."""
    known = [*dict.fromkeys(names)]
    edges = np.linspace(0.0, step_s, _PIECES + 1)
    held = np.zeros((len(known) + 1, _PIECES))
    held[0] = edges[1] / 2  # nothing, unless half of a piece is something
    for number, name in enumerate(known, start=1):
        mine = np.array([one == name for one in names])
        held[number] = np.diff(_until(edges, start_s[mine], stop_s[mine]))
    most: Ints = held.argmax(axis=0)
    bounds = [0, *(np.flatnonzero(np.diff(most)) + 1).tolist(), _PIECES]
    for first, stop in pairwise(bounds):
        if most[first]:
            yield known[most[first] - 1], first, stop


def _until(edges: Floats, start_s: Floats, stop_s: Floats) -> Floats:
    """Give the seconds of all intervals together up to each edge."""

    def sums(ends: Floats) -> Floats:
        ordered = np.sort(ends)
        before = np.searchsorted(ordered, edges)
        total: Floats = np.append(0.0, np.cumsum(ordered))[before]
        return before * edges - total

    return sums(start_s) - sums(stop_s)


def _name(line: Timeline, program: Program, row: int) -> str:
    kind = KINDS[line.kind[row]]
    if kind != "device":
        return kind
    rank = line.alike[int(line.player[row])][0]
    instruction = program.of(rank).instructions[int(line.instruction[row])]
    return str(instruction.phase) if isinstance(instruction, Compute) else "update"


def _legend(seen: dict[str, None]) -> Iterator[str]:
    x = float(_LEFT)
    for name in (name for name in _NAMES if name in seen):
        yield f'<rect class="{name}" x="{x:.0f}" y="38" width="10" height="10"/>'
        yield _text(x + 14, 47, _NAMES[name])
        x += 30 + 6.4 * len(_NAMES[name])


def _axis(line: Timeline, bottom: float) -> Iterator[str]:
    for i in range(_TICKS + 1):
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * i / _TICKS
        yield f'<path class="grid" d="M{x:.1f} {_TOP - 4}V{bottom}"/>'
        anchor = "end" if i == _TICKS else "middle"
        yield _text(x, bottom + 16, step(line.step_s * i / _TICKS), anchor=anchor)


def _text(x: float, y: float, words: str, *, anchor: str = "start", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
