"""A recorded step as a page reads it: whole, or of as many ranks as somebody can wait for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stretto.page.step_rows import Book
from stretto.program.instruction import Program
from stretto.timeline import KINDS
from stretto.timeline.recorded import Recording, read
from stretto.timeline.track import files, load

WHOLE = 1_000_000
"""The most rows of a step that are all read."""
PART = 250_000
"""The most rows that are read of a step of more: those of the ranks that deviate most."""


def recording(directory: Path, step: int, *, program: Program, book: Book) -> Recording:
    """Give a step that was recorded, of all ranks or of those that are worth it.

    Raises:
        InputError: It was not recorded, or under another plan; a file is damaged.
    """
    found = files(directory, step)
    count = {rank: _rows(rank, program, book) for rank in found if rank < _size(program)}
    ranks = None if sum(count.values()) <= WHOLE else worth(found, count, program=program)
    return read(directory, step, program=program, ranks=ranks)


def written(directory: Path, step: int) -> object:
    """Give something that changes when a step is recorded anew."""
    found = files(directory, step)
    return len(found), max((path.stat().st_mtime for path in found.values()), default=0.0)


def worth(found: Mapping[int, Path], rows: Mapping[int, int], *, program: Program) -> list[int]:
    """Give the ranks whose rows are read where there are too many.

    They are whole replicas, for in those messages meet but for gradients: first that of the rank
    whose device worked the longest or shortest beside the others of its stage, and so on.

    Args:
        found: The file of each rank that recorded the step.
        rows: How many rows a rank has.
        program: What they did.
    """
    mesh = program.placement.mesh
    own = mesh.expand(("dp",)) if "dp" in mesh.names else ()
    within = [axis for axis, _ in mesh.axes if axis not in own]
    ranks = np.array(list(rows))
    busy = np.array([_busy_s(found[rank]) for rank in rows])
    stage = np.array([program.of(rank).stage for rank in rows])
    usual = {one: np.median(busy[stage == one]) for one in np.unique(stage)}
    off = np.abs(busy - [usual[one] for one in stage])
    taken: dict[int, None] = {}
    left = PART
    for rank in ranks[np.argsort(-off, kind="stable")].tolist():
        if rank in taken:
            continue
        members = dict.fromkeys((rank, *mesh.group(rank, within)))
        replica = [one for one in members if one in rows]
        if taken and sum(rows[one] for one in replica) > left:
            break
        for one in replica:  # the first may be too large by itself
            if rows[one] > left:
                return sorted(taken)
            left -= rows[one]
            taken[one] = None
    return sorted(taken)


def _busy_s(path: Path) -> float:
    """Give how long the device of a rank worked."""
    track = load(path)
    mine = track.kind == KINDS.index("device")
    return float(np.nansum(track.stop_s[mine] - track.start_s[mine]))


def _rows(rank: int, program: Program, book: Book) -> int:
    return len(book.sheets[program.of(rank).stage].key)


def _size(program: Program) -> int:
    return program.placement.mesh.size
