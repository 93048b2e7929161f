"""The best way to give the layers of a model to the ranks of one plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stretto.cost import Number
from stretto.search.frame import Frame, Split
from stretto.search.front import staircase
from stretto.search.partition import Choices, Index, cheapest
from stretto.search.ranks import Share, rank_cost
from stretto.search.staged import ends, sends_s

Content = tuple[int, ...]
"""The kinds of some layers, in order."""

Mix = Callable[[Content], Number]
"""Gives what may run again of some layers: how many by way and kind, a mixture to a place."""

LEAST, MOST = 0.5, 1.5
"""Of the layers that a rank had if all were equally busy, what it has at least and at most, but for
two layers."""

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of a rank's layers, what may rest by another ZeRO stage than the plan's."""


def split(frame: Frame, *, mix: Mix) -> Split | None:
    """Give the best way in which a plan's ranks may share the layers; None if none fits.

    Where a rank has one stage, stages are cut anywhere between layers; else they are even.

    Args:
        frame: What else is decided.
        mix: What may run again.
    """
    spans = _Spans.of(frame)
    shares = (0.0,) if frame.zero is None else SHARES
    rows = _Rows.of_spans(spans.contents, mix, shares)
    spread, peak = _terms(frame, rows)
    places = [[_best(spread, peak, rows.of == g, r) for g in spans.ids] for r in range(frame.ranks)]
    most = max((len(found) for row in places for found in row), default=0)
    if most == 0:
        return None
    # Of spans with fewer ways the others cannot be.
    table = np.array([[[*found, *[-1] * (most - len(found))] for found in row] for row in places])
    ranks = np.arange(frame.ranks)[:, None, None]
    picked = cheapest(
        Choices(
            np.where(table >= 0, spread[table, ranks], np.inf),
            np.where(table >= 0, peak[table, ranks], np.inf),
            spans.sizes,
            spans.kinds,
        )
    )
    if not picked:
        return None
    taken = [table[rank, pick.kind, pick.way] for rank, pick in enumerate(picked)]
    free = tuple(tuple(range(pick.first, pick.stop)) for pick in picked)
    return Split(
        frame, free if spans.free else frame.own_layers, rows.again[taken], rows.other[taken]
    )


@dataclass(frozen=True, slots=True)
class _Spans:
    """The spans of layers that a rank may have.

    Attributes:
        free: Whether they are cut anywhere; otherwise the span of a rank is its own.
        contents: What they have, once each.
        sizes: See `Choices`.
        kinds: See `Choices`: indices into `contents`.
    """

    free: bool
    contents: tuple[Content, ...]
    sizes: Index
    kinds: Index

    @property
    def ids(self) -> range:
        return range(len(self.contents))

    @staticmethod
    def of(frame: Frame) -> _Spans:
        of_layer = frame.kinds.of_layer
        if frame.free:
            sizes = _sizes(frame)
            layers = range(len(of_layer) + 1)
            found = [
                [of_layer[i : i + n] if i + n in layers else None for n in sizes] for i in layers
            ]
        else:
            sizes = range(1, 2)
            own = [tuple(of_layer[i] for i in layers) for layers in frame.own_layers]
            found = [[content] for content in [*own, None]]
        contents = dict.fromkeys(c for row in found for c in row if c is not None)
        ids = {content: i for i, content in enumerate(contents)} | {None: -1}
        kinds = np.array([[ids[content] for content in row] for row in found])
        return _Spans(frame.free, tuple(contents), np.array(sizes), kinds)


def _sizes(frame: Frame) -> range:
    """Give the numbers of layers that a rank may have."""
    layers = len(frame.kinds.of_layer)
    seconds = np.broadcast_to(frame.layer_s, frame.ranks)
    busy = layers / seconds / (1 / seconds).sum()
    low, high = math.floor(LEAST * busy.min()), math.ceil(MOST * busy.max()) + 2
    return range(max(0, low - 2), min(layers, high) + 1)


@dataclass(frozen=True, slots=True)
class _Rows:
    """All that a rank may have.

    Attributes:
        of: The span, by number.
        again: What runs again, by way and kind.
        other: Layers that rest by the other ZeRO stage.
    """

    of: Index
    again: Number
    other: Number

    @staticmethod
    def of_spans(contents: Sequence[Content], mix: Mix, shares: Sequence[float]) -> _Rows:
        parts = [
            (number, mixed, count)
            for number, kinds in enumerate(contents)
            for mixed in [mix(kinds)]
            for count in sorted({round(share * len(kinds)) for share in shares})
        ]
        return _Rows(
            np.concatenate([np.full(len(mixed), number) for number, mixed, _ in parts]),
            np.concatenate([mixed for _, mixed, _ in parts]),
            np.concatenate([np.full(len(mixed), float(count)) for _, mixed, count in parts]),
        )


def _terms(frame: Frame, rows: _Rows) -> tuple[Number, Number]:
    """Give what each row adds to a step on each rank: see `Choices`; ∞ where it does not fit."""
    p, ranks = frame.pricing, frame.ranks
    embeds, predicts = ends(frame.schedule, ranks)
    index = np.arange(ranks, dtype=np.float64)
    share = Share(index, rows.again[:, None], rows.other[:, None], embeds, predicts)
    cost = rank_cost(share, frame.pieces)
    seconds, filled = cost.load.total_s, frame.filled
    once = sends_s(p, frame.on) + cost.tail_s
    inner = (index > 0) & (index < ranks - 1)
    empty = inner & (rows.again.sum((-2, -1)) == 0)[:, None]
    fits = (cost.memory.total_bytes <= p.machine.memory_bytes) & ~empty
    spread = np.where(fits, filled * seconds, np.inf)
    return spread, np.where(fits, (p.choice.micro_batches - filled) * seconds + once, np.inf)


def _best(spread: Number, peak: Number, mine: Index, rank: int) -> list[int]:
    """Give the rows of a span that no other beats on a rank in both terms."""
    rows = np.flatnonzero(mine & np.isfinite(spread[:, rank]))
    return [int(i) for i in rows[staircase(spread[rows, rank], peak[rows, rank])]]
