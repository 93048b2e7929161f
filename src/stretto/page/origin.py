"""Where the predicted numbers of a page come from, where several parts of it show one each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stretto.page.metrics import Table
from stretto.page.subject import Subject
from stretto.quantities import seconds, share, size


def predicted_mfu(subject: Subject, recent: Table) -> float:
    """Give the MFU of a step that takes as long as predicted.

    Args:
        subject: Whose step.
        recent: What was measured of it: its MFU is of the peak that the run counts by.
    """
    each_s = recent["mfu"] * recent["step_s"]
    if np.isfinite(each_s).any():
        return float(np.nanmedian(each_s)) / subject.predicted_s
    return float(subject.estimate.mfu * subject.estimate.time.total_s) / subject.predicted_s


def predicted_bytes(subject: Subject) -> float:
    """Give what the fullest rank is to hold: what is played, and what libraries and gaps take.

    Without a step that was played it is what the closed form says.
    """
    played = played_bytes(subject)
    return float(subject.estimate.memory.total_bytes) if played is None else sum(played)


def played_bytes(subject: Subject) -> tuple[float, float] | None:
    """Give what the played step holds on the fullest rank, and what no program knows of."""
    if subject.program is None or subject.predicted is None or not subject.predicted.finished:
        return None
    use = subject.estimate.memory
    return float(subject.peak_bytes), float(use.reserve_bytes + use.fragment_bytes)


def lost(subject: Subject) -> float:
    """Give the share of a step that is lost by chance, where a step was played."""
    line = subject.predicted
    return line.straggle if line is not None and line.finished else 0.0


def origins(subject: Subject) -> Iterator[tuple[str, str]]:
    """Give (what, where it comes from) of the predicted numbers that differ over the page."""
    line, played = subject.predicted, played_bytes(subject)
    if line is None or played is None:
        return
    expected, closed = seconds(subject.predicted_s), seconds(float(subject.estimate.time.total_s))
    form = f"; in closed form {closed}" if closed != expected else ""
    if chance := lost(subject):
        yield (
            "a step",
            f"{expected} expected: {seconds(line.step_s)} played and {share(chance)} lost to the "
            f"slowest of many ranks by chance{form}",
        )
    elif form:
        yield "a step", f"{expected} as it is played{form}"
    peak, rest = played
    total = size(float(subject.estimate.memory.total_bytes))
    form = f"; in closed form {total}" if total != size(sum(played)) else ""
    yield (
        "memory",
        f"{size(sum(played))} on the fullest rank: {size(peak)} that the played step holds, as "
        f"under Memory, and {size(rest)} for libraries and gaps between buffers{form}",
    )
