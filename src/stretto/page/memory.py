"""What the memory of a rank holds over a step, predicted beside measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stretto.cluster import Cluster
from stretto.errors import InputError, Problem
from stretto.page.packed import packed
from stretto.page.step import number, players, read_step, taken
from stretto.page.step_rows import Floats, Ints, bounds, stage_of
from stretto.page.subject import Subject
from stretto.program.instruction import Program, StageProgram
from stretto.program.render import label
from stretto.timeline import Timeline
from stretto.timeline.memory import NAMES, MemoryCurve, curve
from stretto.timeline.recorded import Recording, recorded_steps
from stretto.timeline.rows import after_vote

RANKS = 12
"""The most ranks of which a page is given curves."""
POINTS = 1200
"""The most points of a curve; of more, the fullest of each stretch of time."""
OLDER = 4, 300
"""The same of the older steps of a file: ranks and points."""

PROCESS = "process"
"""What a rank holds throughout besides the program's buffers: its interpreter and libraries."""
KEPT = "kept"
"""What else is measured and no buffer holds: most of it was freed and the allocator keeps it."""


def data(subject: Subject) -> dict[str, Any] | None:
    """Give the memory of a step that is predicted, and of the newest that was recorded."""
    program, predicted = subject.program, subject.predicted
    if program is None or predicted is None or not predicted.finished:
        return None
    steps = recorded_steps(subject.recordings) if subject.recordings else ()
    recording = None
    if steps:
        try:
            recording = read_step(subject, steps[-1])
        except InputError:  # the run had another plan then
            recording = None
    return picture(subject, recording)


def still(subject: Subject, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Give the same with the older steps that a file holds, in less detail."""
    predicted = subject.predicted
    if subject.program is None or predicted is None or not predicted.finished:
        return None
    say("reading the memory of recorded steps")
    recordings = taken(subject)
    found = picture(subject, recordings[-1] if recordings else None)
    order = dict.fromkeys([found["fullest"], *(one["rank"] for one in found["curves"])])
    ranks = [*order][: OLDER[0]]
    return found | {"older": [_older(subject, one, ranks) for one in recordings[:-1]]}


def _older(subject: Subject, recording: Recording, ranks: list[int]) -> dict[str, Any]:
    """Give what differs from the newest step in an older one."""
    assert subject.predicted is not None and subject.program is not None, "it was recorded"
    size = subject.program.placement.mesh.size
    return {
        "step": recording.step,
        "step_s": [subject.predicted.step_s, recording.timeline.step_s],
        "measured": packed(measured_peaks(recording, size), dtype="float32"),
        "process": packed(processes(subject, recording), dtype="float32"),
        "curves": [
            {"rank": rank, "measured": line}
            for rank in sorted(ranks)
            if (line := _measured(subject, recording, rank, points=OLDER[1])) is not None
        ],
    }


def answer(subject: Subject, query: Mapping[str, str]) -> dict[str, Any]:
    """Give the memory of a ``rank`` in a recorded ``step``, or without a rank that of all.

    Raises:
        InputError: There is no such step or rank.
    """
    program = subject.program
    if program is None:
        raise InputError(Problem("memory", "has no program", "choose a plan that can be run"))
    steps = recorded_steps(subject.recordings) if subject.recordings else ()
    step, size = (
        number(query, "step", default=steps[-1] if steps else 0),
        program.placement.mesh.size,
    )
    if "rank" not in query:
        return picture(subject, read_step(subject, step) if steps else None)
    rank = number(query, "rank", default=0)
    if rank >= size:
        raise InputError(Problem("rank", f"there are {size} ranks", f"use 0 to {size - 1}"))
    recording = read_step(subject, step, ranks=[rank]) if steps else None
    return {"curves": [curves(subject, recording, rank)]}


def picture(subject: Subject, recording: Recording | None) -> dict[str, Any]:
    """Give the peaks of all ranks, and the curves of some, as JSON.

    Args:
        subject: What it is of; it has a program.
        recording: A step that was recorded, if any was.
    """
    program, predicted = subject.program, subject.predicted
    assert program is not None and predicted is not None, "a page without a program has no memory"
    size = program.placement.mesh.size
    foretold = predicted_peaks(subject)
    seen = None if recording is None else measured_peaks(recording, size)
    highest = foretold if seen is None else seen
    own = None if recording is None else processes(subject, recording)
    firsts = [ranks[0] for ranks in predicted.alike]  # the fullest, then one of each kind
    order = [int(np.nanargmax(highest)), int(np.nanargmax(foretold)), *firsts, *range(size)]
    known = [rank for rank in dict.fromkeys(order) if np.isfinite(highest[rank])]
    return {
        "ranks": size,
        "kinds": [PROCESS, *NAMES, KEPT],
        "step": None if recording is None else recording.step,
        "step_s": [predicted.step_s, *([recording.timeline.step_s] if recording else [])],
        "player": packed(_players(predicted, size), dtype="int32"),
        "capacity": packed(capacities(subject.cluster, size), dtype="float64"),
        "predicted": packed(foretold, dtype="float64"),
        "measured": None if seen is None else packed(seen, dtype="float64"),
        "process": None if own is None else packed(own, dtype="float64"),
        "fullest": known[0],
        "curves": [curves(subject, recording, rank) for rank in sorted(known[:RANKS])],
    }


def curves(subject: Subject, recording: Recording | None, rank: int) -> dict[str, Any]:
    """Give what the memory of a rank holds, predicted and measured, as JSON."""
    program, predicted = subject.program, subject.predicted
    assert program is not None and predicted is not None, "a page without a program has no memory"
    found: dict[str, Any] = {"rank": rank}
    (player,) = players(predicted, [rank])
    found["predicted"] = _packed(subject.held(player), program, rank)
    if recording is not None and (seen := _measured(subject, recording, rank)) is not None:
        found["measured"] = seen
    return found


def _measured(
    subject: Subject, recording: Recording, rank: int, *, points: int = POINTS
) -> dict[str, Any] | None:
    """Give what a rank held as JSON; None of one that was not recorded."""
    program, line, held = subject.program, recording.timeline, recording.memory_bytes
    assert program is not None, "a page without a program has no memory"
    for player in players(line, [rank]):
        whole = curve(line, program, player, measured_bytes=held)
        ours = curve(line, program, player)
        return _packed(whole, program, rank, ours=ours, points=points)
    return None


def _players(predicted: Timeline, size: int) -> Ints:
    """Give of each rank the player: ranks of one are predicted alike."""
    found = np.zeros(size, dtype=np.int64)
    for player, ranks in enumerate(predicted.alike):
        found[list(ranks)] = player
    return found


def predicted_peaks(subject: Subject) -> Floats:
    """Give the most that each rank is to hold: ranks of a stage hold the same."""
    program, predicted = subject.program, subject.predicted
    assert program is not None and predicted is not None, "a page without a program has no memory"
    stages = stage_of(program, predicted)
    peaks = np.full(program.placement.mesh.size, np.nan)
    for stage in np.unique(stages):
        first = int(np.flatnonzero(stages == stage)[0])
        most = subject.held(first).total_bytes.max()
        for player in np.flatnonzero(stages == stage):
            peaks[list(predicted.alike[player])] = most
    return peaks


def measured_peaks(recording: Recording, size: int) -> Floats:
    """Give the most that each rank held; NaN for one that was not recorded."""
    line, peaks = recording.timeline, np.full(size, np.nan)
    limits = bounds(line)
    most = np.maximum.reduceat(recording.memory_bytes, limits[:-1])
    most = np.maximum(most, recording.resting_bytes)
    peaks[[ranks[0] for ranks in line.alike]] = most
    return peaks


def processes(subject: Subject, recording: Recording) -> Floats:
    """Give what each rank holds throughout besides the program's buffers; NaN where unknown."""
    program, predicted = subject.program, subject.predicted
    assert program is not None and predicted is not None, "a page without a program has no memory"
    line, least = recording.timeline, np.full(program.placement.mesh.size, np.nan)
    stages, limits, held = stage_of(program, line), bounds(line), {}
    foretold = stage_of(program, predicted)
    for player, stage in enumerate(stages):
        if stage not in held:
            first = int(np.flatnonzero(foretold == stage)[0])
            held[stage] = _after(subject.held(first), program.stages[stage])
        rows = np.arange(*limits[player : player + 2])
        rows = rows[line.instruction[rows] >= 0]
        rest = recording.memory_bytes[rows] - held[stage][line.instruction[rows]]
        least[line.alike[player][0]] = max(0, rest.min())
    return least


def _after(line: MemoryCurve, stage: StageProgram) -> Ints:
    """Give what is held after each instruction of a stage."""
    count, first = len(stage.instructions), after_vote(stage)
    changed = (line.made[1:] - first) % count  # in the order of the step
    at = np.searchsorted(changed, (np.arange(count) - first) % count, side="right")
    return line.total_bytes[at]


def capacities(cluster: Cluster, size: int) -> Floats:
    """Give the bytes of memory of each rank's device."""
    each = [(part.device.memory_bytes, part.devices) for part in cluster.parts]
    return np.repeat([one for one, _ in each], [n for _, n in each])[:size]


def thinned(line: MemoryCurve, points: int) -> Ints:
    """Give the indices of at most `points` of a curve: of each stretch of time the fullest.

    Where an allocator keeps all that it ever had, much is equally full: then the one counts at
    which the program's buffers hold most.
    """
    order = _fullest(line)
    if len(order) <= points:
        return np.arange(len(order))
    edges = np.linspace(0.0, line.times_s[-1], points)
    stretch = np.searchsorted(edges, line.times_s, side="right") - 1
    first = np.unique(stretch[order], return_index=True)[1]
    return np.sort(order[first])


def _fullest(line: MemoryCurve) -> Ints:
    """Give the indices of a curve, the fullest first."""
    total = line.total_bytes
    return np.lexsort((line.held_bytes["other"] - total, -total))


def _packed(
    line: MemoryCurve,
    program: Program,
    rank: int,
    *,
    ours: MemoryCurve | None = None,
    points: int = POINTS,
) -> dict[str, Any]:
    """Give a curve as JSON; `ours` is what of a measured one the program's buffers hold."""
    stage, at = program.of(rank), thinned(line, points)
    names: dict[str, int] = {}
    made = [
        names.setdefault(label(program, stage, stage.instructions[i]) if i >= 0 else "", len(names))
        for i in line.made[at]
    ]
    buffers = line if ours is None else ours
    rest = line.total_bytes - buffers.total_bytes
    throughout = np.full(len(at), rest.min())
    held = np.stack(
        [throughout, *(buffers.held_bytes[n][at] for n in NAMES), rest[at] - rest.min()]
    )
    return {
        "seconds": packed(line.times_s[at], dtype="float32"),
        "bytes": packed(held, dtype="float64" if points == POINTS else "float32"),
        "made": packed(np.array(made), dtype="int32"),
        "names": list(names),
        "peak": int(np.searchsorted(at, _fullest(line)[0])),
        "changes": len(line.times_s),
    }
