"""One timeline of a step, predicted or measured, as a page reads it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np

from stretto.page.packed import packed
from stretto.page.step_heat import Heat
from stretto.page.step_rows import SORTS, Book, Floats, bounds, phases, places, sorts, stage_of
from stretto.program.instruction import Program
from stretto.timeline import Timeline

UNREAD = -2
"""The player of a rank that recorded a step and was not read; -1 is that of one that did not."""

FIRST = 20_000
"""The most rows of a critical path that a page is given."""


def side(
    line: Timeline,
    program: Program,
    *,
    book: Book,
    heat: Heat,
    players: Collection[int],
    extra_s: Floats | None = None,
    unread: Collection[int] = (),
) -> dict[str, Any]:
    """Give a timeline as JSON: all players from afar, and the rows of some.

    Args:
        line: The timeline.
        program: What it is of.
        book: Its rows.
        heat: Where its time goes.
        players: Those whose rows are given.
        extra_s: Of each row what it took beyond what was predicted, if anything was.
        unread: Ranks that recorded it and whose rows the timeline does not have.
    """
    of_rank = np.full(program.placement.mesh.size, -1)
    for player, ranks in enumerate(line.alike):
        of_rank[list(ranks)] = player
    of_rank[list(unread)] = UNREAD
    return {
        "step_s": line.step_s,
        "finished": line.finished,
        "player": packed(of_rank, dtype="int32"),
        "heat": {"bins": heat.seconds.shape[1], "bin_s": heat.bin_s}
        | {"cells": packed(heat.dominant)},
        "usage": packed(heat.usage),
        "path": _path(line, program, book),
        **rows(line, program, book=book, players=players, extra_s=extra_s),
    } | ({} if extra_s is None else {"late": _late(line, extra_s, heat)})


def rows(
    line: Timeline,
    program: Program,
    *,
    book: Book,
    players: Collection[int],
    extra_s: Floats | None = None,
) -> dict[str, Any]:
    """Give the rows of some players: by stage as columns of its sheet; what no sheet has, apart."""
    stages, limits = stage_of(program, line), bounds(line)
    found: list[dict[str, Any]] = []
    others: list[tuple[int, str, float, float]] = []
    for sheet in book.sheets:
        device = phases(program.stages[sheet.stage])
        mine = [player for player in sorted(players) if stages[player] == sheet.stage]
        begin, length, extra = (np.full((len(mine), len(sheet.key)), np.nan) for _ in range(3))
        for i, player in enumerate(mine):
            at, place = places(line, sheet, rows=slice(*limits[player : player + 2]))
            known = np.isfinite(line.start_s[at]) & np.isfinite(line.stop_s[at])
            inside = at[known & (place >= 0)]
            where = place[known & (place >= 0)]
            begin[i, where] = line.start_s[inside]
            length[i, where] = line.stop_s[inside] - line.start_s[inside]
            if extra_s is not None:
                extra[i, where] = extra_s[inside]
            outside = at[known & (place < 0)]
            sort = sorts(device, line.instruction[outside], kind=line.kind[outside])
            others += _others(line, outside, player, [SORTS[s] for s in sort])
        found.append(
            {"players": mine}
            | {"begin": packed(begin, dtype="float32"), "length": packed(length, dtype="float32")}
            | ({} if extra_s is None else {"extra": packed(extra, dtype="float32")})
        )
    return {"stages": found, "others": others}


def _others(
    line: Timeline, at: Iterable[int], player: int, names: Iterable[str]
) -> Iterator[tuple[int, str, float, float]]:
    """Give player, sort, begin and length of rows."""
    for row, name in zip(at, names, strict=True):
        begin = float(line.start_s[row])
        yield player, name, begin, float(line.stop_s[row]) - begin


def _path(line: Timeline, program: Program, book: Book) -> dict[str, Any]:
    """Give the critical path: its last rows, as ranks, places in sheets, begins and lengths."""
    chosen = np.array(line.critical() if line.finished else [], dtype=np.int64)
    chosen = chosen[line.kind[chosen] > 0][-FIRST:]
    limits, stages = bounds(line), stage_of(program, line)
    place = np.full(len(chosen), -1)
    for player in np.unique(line.player[chosen]):
        sheet = book.sheets[stages[player]]
        at, where = places(line, sheet, rows=slice(*limits[player : player + 2]))
        order = np.argsort(at)
        mine = line.player[chosen] == player
        place[mine] = where[order[np.searchsorted(at[order], chosen[mine])]]
    begin = line.start_s[chosen]
    return {
        "rank": packed(line.rank[chosen], dtype="int32"),
        "row": packed(place, dtype="int32"),
        "begin": packed(begin, dtype="float32"),
        "length": packed(line.stop_s[chosen] - begin, dtype="float32"),
    }


def _late(line: Timeline, extra_s: Floats, heat: Heat) -> dict[str, Any]:
    """Give by player and bin how much longer than predicted a row took that is under way in it.

    It is the row of which that is most, on the scale of single rows, and a cell is its root in
    127ths: small differences remain to be seen.
    """
    players, count = heat.seconds.shape[:2]
    known = np.flatnonzero(
        np.isfinite(line.start_s) & np.isfinite(line.stop_s) & np.isfinite(extra_s)
    )
    row_s = float(np.quantile(np.abs(extra_s[known]), 0.99)) if len(known) else 0.0
    known = known[np.argsort(np.abs(extra_s[known]), kind="stable")]  # the largest is written last
    first, last = (
        np.clip((edge[known] / heat.bin_s).astype(np.int64), 0, count - 1)
        for edge in (line.start_s, line.stop_s)
    )
    long = last - first + 1
    inside = np.arange(long.sum()) - np.repeat(np.cumsum(long) - long, long)
    cells = np.zeros(players * count)
    share = np.clip(extra_s[known] / (row_s or 1.0), -1.0, 1.0)
    place = np.repeat(line.player[known] * count + first, long) + inside
    cells[place] = np.repeat(np.rint(127 * np.sign(share) * np.sqrt(np.abs(share))), long)
    return {"row_s": row_s, "cells": packed(cells.reshape(players, count), dtype="int8")}
