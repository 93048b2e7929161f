"""A step on a clock: what was predicted above what was measured, and where they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from stretto.errors import InputError, Problem
from stretto.page.packed import packed
from stretto.page.step_heat import heat
from stretto.page.step_rows import SORTS, Book, Floats
from stretto.page.step_side import rows, side
from stretto.page.step_why import longer, why
from stretto.page.subject import Subject
from stretto.timeline import Timeline
from stretto.timeline.chrome import OWN_NAMES
from stretto.timeline.recorded import Recording, read, recorded_steps
from stretto.timeline.track import files

RANKS = 64
"""The most ranks of which a page is given every row."""
ROWS = 250_000
"""The most rows that a page is given of a timeline, and of all older steps together."""
STEPS = 8
"""The most steps that a page is given."""


def data(subject: Subject) -> dict[str, Any] | None:
    """Give a predicted step and the newest that was recorded; None without a program."""
    if subject.program is None or subject.predicted is None:
        return None
    steps = _steps(subject)
    return picture(subject, _read_some(subject, steps[-1:]), steps=steps)


def still(subject: Subject, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Give the same with some older steps and with causes, for a page that can ask for none."""
    if subject.program is None or subject.predicted is None:
        return None
    say("reading recorded steps")
    recordings = taken(subject)
    found = picture(subject, recordings, steps=_steps(subject))
    for recording, one in zip(recordings, found["recordings"], strict=True):
        say(f"comparing step {recording.step:,} with what was predicted")
        one |= _why(subject, recording, one["ranks"])
    return found


def answer(subject: Subject, query: Mapping[str, str]) -> dict[str, Any]:
    """Give a recorded step, the rows of a rank, or causes.

    Args:
        subject: What it is of.
        query: ``step``: which, the newest if it is not said; ``rank``: whose rows are asked for;
            ``why``: that causes are.

    Raises:
        InputError: There is no such step or rank.
    """
    program, predicted = subject.program, subject.predicted
    if program is None or predicted is None:
        raise InputError(Problem("step", "has no program", "choose a plan that can be run"))
    steps, size = _steps(subject), program.placement.mesh.size
    step = number(query, "step", default=steps[-1] if steps else 0)
    if "rank" in query:
        rank = number(query, "rank", default=0)
        if rank >= size:
            raise InputError(Problem("rank", f"there are {size} ranks", f"use 0 to {size - 1}"))
        ranks = beside(subject, rank)
        line = read_step(subject, step, ranks=ranks).timeline if steps else None
        return one_rank(subject, line, rank)
    if not steps:
        return {"steps": steps}
    recording, leaves = read_step(subject, step), subject.book
    if "why" in query:
        line = recording.timeline
        ranks = chosen(leaves, predicted, line, extra_s=longer(subject, line, book=leaves))
        return _why(subject, recording, ranks)
    return {"steps": steps, **recorded(subject, recording, leaves)}


def one_rank(subject: Subject, measured: Timeline | None, rank: int) -> dict[str, Any]:
    """Give the rows of one rank, predicted and measured, as JSON."""
    program, predicted = subject.program, subject.predicted
    assert program is not None and predicted is not None, "a page without a program has no step"
    leaves = subject.book
    found = {"predicted": rows(predicted, program, book=leaves, players=players(predicted, [rank]))}
    if measured is not None:
        extra_s = longer(subject, measured, book=leaves)
        mine = players(measured, [rank])
        found["measured"] = rows(measured, program, book=leaves, players=mine, extra_s=extra_s)
    return found


def picture(
    subject: Subject, recordings: Sequence[Recording] = (), *, steps: Sequence[int] = ()
) -> dict[str, Any]:
    """Give a step as JSON: what was predicted, and what was recorded of some steps.

    Args:
        subject: What it is of; it has a program.
        recordings: Steps that were recorded, in order.
        steps: All steps that were recorded.
    """
    program, predicted = subject.program, subject.predicted
    assert program is not None and predicted is not None, "a page without a program has no step"
    mesh, leaves = program.placement.mesh, subject.book
    found = [recorded(subject, one, leaves) for one in recordings]
    ranks = found[-1]["ranks"] if found else chosen(leaves, predicted)
    return {
        "mesh": mesh.axes,
        "ranks": mesh.size,
        "sorts": SORTS,
        "own": OWN_NAMES,
        "stage": packed(np.array([program.of(r).stage for r in range(mesh.size)]), dtype="uint16"),
        **leaves.packed(mesh),
        "predicted": side(
            predicted,
            program,
            book=leaves,
            heat=heat(predicted, program, until_s=predicted.step_s),
            players=players(predicted, ranks),
        ),
        "steps": steps,
        "recordings": found,
    }


def recorded(subject: Subject, recording: Recording, book: Book) -> dict[str, Any]:
    """Give a step that was recorded as JSON."""
    program, predicted, line = subject.program, subject.predicted, recording.timeline
    assert program is not None and predicted is not None, "a page without a program has no step"
    extra_s = longer(subject, line, book=book)
    ranks = chosen(book, predicted, line, extra_s=extra_s)
    return {
        "step": recording.step,
        "ranks": ranks,
        "read": len(line.alike),
        "measured": side(
            line,
            program,
            book=book,
            heat=heat(line, program, until_s=line.step_s),
            players=players(line, ranks),
            extra_s=extra_s,
            unread=_unread(subject, recording),
        ),
    }


def _why(subject: Subject, recording: Recording, ranks: Sequence[int]) -> dict[str, Any]:
    """Give causes; none of a step that was read in part: they are looked for among all ranks."""
    if _unread(subject, recording):
        return {"top": [], "findings": [], "compared": 0}
    return why(subject, recording, ranks=ranks)


def _unread(subject: Subject, recording: Recording) -> list[int]:
    """Give the ranks that recorded a step and were not read."""
    there = files(subject.recordings, recording.step) if subject.recordings else ()
    here = {ranks[0] for ranks in recording.timeline.alike}
    return [rank for rank in there if rank not in here]


def chosen(
    book: Book,
    predicted: Timeline,
    measured: Timeline | None = None,
    *,
    extra_s: Floats | None = None,
) -> list[int]:
    """Give the ranks whose rows a page is given: one of each kind, then those that deviate most."""
    size = sum(len(ranks) for ranks in predicted.alike)
    limit = min(RANKS, max(1, ROWS // max(len(sheet.key) for sheet in book.sheets)))
    kinds = [ranks[0] for ranks in predicted.alike]
    if measured is None or extra_s is None:
        return sorted(list(dict.fromkeys([*kinds, *range(size)]))[:limit])
    known = {ranks[0] for ranks in measured.alike}
    total = np.bincount(
        measured.player, np.abs(np.nan_to_num(extra_s)), minlength=len(measured.alike)
    )
    most = [measured.alike[player][0] for player in np.argsort(-total, kind="stable")]
    order = dict.fromkeys([*kinds[: limit // 2], *most[: limit // 2], *kinds, *range(size)])
    return sorted([rank for rank in order if rank in known][:limit])


def players(line: Timeline, ranks: Sequence[int]) -> list[int]:
    """Give the players of ranks, those that a timeline has."""
    of_rank = {rank: i for i, alike in enumerate(line.alike) for rank in alike}
    return sorted({of_rank[rank] for rank in ranks if rank in of_rank})


def beside(subject: Subject, rank: int) -> list[int]:
    """Give a rank and all that it exchanges messages with, but for votes."""
    mesh, found = subject.plan.mesh, {rank}
    for queue in subject.book.queues:
        if queue.way == "group":
            found.update(mesh.group(rank, queue.axes))
        elif queue.way in ("to", "from"):
            found.add(mesh.shift(rank, "pp", by=queue.by))
    return sorted(found)


def spread(steps: Sequence[int], count: int) -> list[int]:
    """Give `count` of some steps or all of fewer, evenly, the newest first."""
    at = np.unique(np.linspace(0, len(steps) - 1, min(count, len(steps))).astype(np.int64))
    return [steps[i] for i in at[::-1]]


def taken(subject: Subject) -> list[Recording]:
    """Give the recorded steps that a file holds: the newest and some older ones, in order."""
    steps = _steps(subject)
    return _read_some(subject, (*steps[-1:], *spread(steps[:-1], STEPS - 1)))


def _steps(subject: Subject) -> tuple[int, ...]:
    return recorded_steps(subject.recordings) if subject.recordings else ()


def _read_some(subject: Subject, steps: Iterable[int]) -> list[Recording]:
    """Give the first of some steps, and as many others as a page is given rows; in order."""
    kept: list[Recording] = []
    for step in steps:
        if kept and (len(kept) + 1) * len(kept[0].timeline.player) > 2 * ROWS:
            break
        with suppress(InputError):  # the run had another plan then
            kept.append(read_step(subject, step))
    return sorted(kept, key=lambda one: one.step)


def read_step(subject: Subject, step: int, *, ranks: Sequence[int] | None = None) -> Recording:
    """Give a recorded step of a run, of some ranks or of all that a page reads.

    Raises:
        InputError: It was not recorded, or under another plan.
    """
    assert subject.recordings is not None and subject.program is not None, "it is of a run"
    if ranks is None:
        return subject.recorded(step)
    return read(subject.recordings, step, program=subject.program, ranks=ranks)


def number(query: Mapping[str, str], name: str, *, default: int) -> int:
    """Give a number that a page asks with.

    Raises:
        InputError: It is none.
    """
    text = query.get(name, "")
    if text and not text.isdecimal():
        raise InputError(Problem(name, f"{text!r} is no number", "use one of digits only"))
    return int(text) if text else default
