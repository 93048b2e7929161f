"""What cost the most extra time in a step, and why, most likely."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stretto.diagnose.compare import Costly, compare
from stretto.diagnose.diagnose import diagnose
from stretto.diagnose.finding import Cause, Finding, likely
from stretto.page.step_rows import Book, Floats, Ints, bounds, places, stage_of
from stretto.page.subject import Subject
from stretto.timeline import Timeline
from stretto.timeline.recorded import Recording

TOP = 5
"""How many instructions are named."""
ROWS = 1_000_000
"""The most rows that are compared; of more, those of the ranks that deviate most."""


def longer(subject: Subject, measured: Timeline, *, book: Book) -> Floats:
    """Give of each row that was measured how much longer it took than predicted; NaN if unknown."""
    program, predicted = subject.program, subject.predicted
    assert program is not None and predicted is not None, "a page without a program has no step"
    extra = np.full(len(measured.player), np.nan)
    taken = predicted.stop_s - predicted.start_s
    of_rank = {rank: i for i, ranks in enumerate(predicted.alike) for rank in ranks}
    theirs, mine = bounds(predicted), bounds(measured)
    for player, stage in enumerate(stage_of(program, measured)):
        sheet = book.sheets[stage]
        twin = of_rank[measured.alike[player][0]]
        expected = np.full(len(sheet.key) + 1, np.nan)  # the last stands for what no sheet has
        at, place = places(predicted, sheet, rows=slice(*theirs[twin : twin + 2]))
        expected[place] = np.where(place >= 0, taken[at], np.nan)
        at, place = places(measured, sheet, rows=slice(*mine[player : player + 2]))
        extra[at] = measured.stop_s[at] - measured.start_s[at] - expected[place]
    return np.where(np.isfinite(extra), extra, np.nan)


def why(subject: Subject, recording: Recording, *, ranks: Sequence[int]) -> dict[str, Any]:
    """Give the instructions that cost the most extra time, and the causes, as JSON.

    Instructions on the critical path cost time, and each what it takes itself: what it waits for
    other ranks, or for its host, is not its own.

    Args:
        subject: What is compared with.
        recording: The step that was recorded.
        ranks: Whose rows are compared where there are too many.
    """
    program, predicted = subject.program, subject.predicted
    assert program is not None and predicted is not None, "a page without a program has no step"
    whole = recording.timeline
    if not (predicted.finished and whole.finished):
        return {"top": [], "findings": [], "compared": 0}
    kept, leaves = recording, subject.book
    if len(whole.player) > ROWS:
        kept = only(recording, ranks)
    compared = compare(predicted, kept.timeline, program=program)
    findings = diagnose(compared, cluster=subject.cluster, stack=subject.stack, recording=kept)
    top = []
    for costly in compared.top(TOP):
        sheet = leaves.sheets[program.of(costly.rank).stage]
        rows = np.flatnonzero(sheet.instruction == costly.instruction)
        if costly.critical and len(rows):
            top.append(_named(costly, int(rows[0])) | {"cause": _cause(costly, findings)})
    return {
        "top": top,
        "findings": [
            {
                "title": f"{finding.cause}: {finding.where}",
                "extra_s": finding.extra_s,
                "share": finding.share,
                "ranks": finding.ranks[:16],
                "why": finding.why,
            }
            for finding in findings
        ],
        "compared": len(kept.timeline.alike),
    }


def _named(costly: Costly, row: int) -> dict[str, Any]:
    return {
        "name": costly.label,
        "rank": costly.rank,
        "row": row,
        "extra_s": costly.extra_s,
        "predicted_s": costly.predicted_s,
        "measured_s": costly.measured_s,
    }


def _cause(costly: Costly, findings: Sequence[Finding]) -> str:
    """Give the cause of most of what an instruction took longer, or that none is known."""
    finding = likely(costly, findings)
    if finding is None or finding.cause is Cause.UNEXPLAINED:
        return "not explained"
    # Most of it: of two factors that make one, the larger is its square root at least.
    if float(finding.longer[costly.row]) ** 2 * costly.predicted_s < costly.measured_s:
        return "not explained"
    return f"{finding.cause}: {finding.where}"


def only(recording: Recording, ranks: Collection[int]) -> Recording:
    """Give the part of a recording that is of some ranks."""
    line = recording.timeline
    mine = np.array([alike[0] in ranks for alike in line.alike])
    rows = mine[line.player]
    players: Ints = np.cumsum(mine) - 1
    index: Ints = np.cumsum(rows) - 1
    # What waited for a row that is left out waited for what that waited for, and so on.
    kept = np.append(np.where(rows, np.arange(len(rows)), line.cause), -1)
    while (kept != kept[kept]).any():
        kept = kept[kept]
    cause = kept[line.cause[rows]]
    cause = np.where(cause >= 0, index[cause], -1)
    part = replace(
        line,
        alike=tuple(alike for alike, kept in zip(line.alike, mine, strict=True) if kept),
        player=players[line.player[rows]],
        cause=cause,
        **{
            name: getattr(line, name)[rows]
            for name in (
                "instruction", "kind", "stream", "start_s", "stop_s", "work_s", "sent_bytes",
            )
        },
    )  # fmt: skip
    return replace(
        recording,
        timeline=part,
        memory_bytes=recording.memory_bytes[rows],
        resting_bytes=recording.resting_bytes[mine],
        counters=tuple(c for c in recording.counters if c.rank in ranks),
    )
