"""Answers made beforehand, for a page that can ask nobody."""

from __future__ import annotations

import base64
import itertools
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from stretto.errors import InputError
from stretto.page.explorer.asked import Asked
from stretto.page.explorer.explore import STILL, explore, problems, searched
from stretto.page.explorer.start import Start
from stretto.search import Found, Options
from stretto.search.change import narrowed

TIMES = (0.25, 1.0, 4.0)
"""That the network is faster."""

SHAPES = (
    *((3, 3, 3, 3), (5, 3, 1, 3), (3, 3, 1, 3)),
    *((5, 1, 1, 3), (3, 1, 1, 3), (3, 1, 1, 1), (1, 1, 1, 1)),
)
"""How many values of devices, tokens, positions and network are answered for, most first."""

MOST_S = 6.5
"""That making them may take, more or less: see `_seconds`."""

_WORD = 15  # answers after which there is word of how far it is
_FEW = 27  # cells of a grid: with fewer, some axis has a single value
_PLANS_PER_S = 4e6
_CELL_S = 0.06


@dataclass(frozen=True, slots=True)
class Axes:
    """The values for which there are answers.

    Attributes:
        devices: Numbers of devices.
        tokens: Tokens of a step.
        seq: Positions of a sequence.
        network: How many times as fast some links are.
    """

    devices: tuple[int, ...]
    tokens: tuple[int, ...]
    seq: tuple[int, ...]
    network: tuple[float, ...]

    @staticmethod
    def of(start: Start, shape: Sequence[int]) -> Axes:
        """Give so many values of each, around what the page's plan has."""
        batch = start.plan.batch
        devices, tokens, seq, network = shape
        return Axes(
            _around(start.devices, start.cluster.devices, devices),
            tuple(n * batch.seq for n in _around(start.sequences, batch.sequences, tokens)),
            _around(start.seqs, batch.seq, seq),
            TIMES if network > 1 and start.links else (1.0,),
        )

    @property
    def cells(self) -> int:
        """The number of answers."""
        return math.prod(len(getattr(self, f.name)) for f in fields(self))

    def asked(self, start: Start) -> list[Asked | None]:
        """Give what each answer is for, the network varying fastest; None for broken sequences."""
        usual = Asked.of(start)
        return [
            replace(usual, devices=n, sequences=tokens // seq, seq=seq, network=network)
            if tokens % seq == 0
            else None
            for n, tokens, seq, network in itertools.product(
                self.devices, self.tokens, self.seq, self.network
            )
        ]


def grid(start: Start, *, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Give answers around what the page's plan is one to, each packed by itself.

    Where a search takes so long that only few could be made, all but the first try only what the
    best plans of the first chose.

    Args:
        start: Where exploring starts.
        progress: Told how far it is.

    Raises:
        InputError: No plan can do what the page's plan does.
    """
    usual = Asked.of(start)
    first = searched(start, usual)
    axes, options = _afforded(start, first)
    cells: list[str | None] = []
    for i, asked in enumerate(axes.asked(start), 1):
        if i % _WORD == 0:
            progress(f"the explorer's answer {i} of {axes.cells}")
        if asked is None:
            cells.append(None)
        elif asked == usual:
            cells.append(packed(explore(start, usual, whole=first, most=STILL)))
        else:
            cells.append(packed(_answer(start, asked, options)))
    own = {f.name: [*getattr(axes, f.name)] for f in fields(axes)}
    return {"axes": own, "cells": cells, "narrowed": options is not None}


def packed(tree: Mapping[str, Any]) -> str:
    """Give JSON as text that a browser unpacks: compressed by deflate, in base64."""
    text = json.dumps(tree, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def _answer(start: Start, asked: Asked, options: Options | None) -> dict[str, Any]:
    try:
        whole = searched(start, asked, options=options)
    except InputError as error:
        return {"asked": asked.tree, "problems": problems(error.problems)}
    return explore(start, asked, whole=whole, most=STILL)


def _afforded(start: Start, first: Found) -> tuple[Axes, Options | None]:
    """Give the largest grid that takes no longer than it may, and what is to be tried in it."""
    every = [Axes.of(start, shape) for shape in SHAPES]
    left_s = MOST_S - _seconds(1, first.tried)
    whole = largest(every, first.tried, left_s)
    if whole.cells >= min(_FEW, every[0].cells) or first.best is None:
        return whole, None
    options = narrowed(first)
    share = math.prod(
        len(getattr(options, name)) / len(getattr(first.options, name))
        for name in ("order", "zero", "schedule", "recompute", "tensor_overlap")
    )
    return largest(every, share * first.tried, left_s), options


def largest(every: Sequence[Axes], tried: float, left_s: float) -> Axes:
    """Give the first grid of which all answers but one take no longer than there is time."""
    fitting = (axes for axes in every if _seconds(axes.cells - 1, tried) <= left_s)
    return next(fitting, every[-1])


def _seconds(cells: int, tried: float) -> float:
    """Give about how long answers take, of searches that try so many plans each.

    It asks no clock, so that the same page is the same everywhere.
    """
    return cells * (tried / _PLANS_PER_S + _CELL_S)


def _around(values: Sequence[int], middle: int, count: int) -> tuple[int, ...]:
    """Give some values on both sides of one of them, as evenly as there are."""
    place = values.index(middle)
    first = max(0, min(place - count // 2, len(values) - count))
    return tuple(values[first : first + count])
