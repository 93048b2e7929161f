"""What a diagnosis finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from stretto.diagnose.compare import Costly
from stretto.timeline.value import Floats


class Cause(StrEnum):
    """Why a step took longer than predicted."""

    SLOW_RANK = "slow rank"
    """Devices compute slower than others that do the same work."""
    SLOW_LINK = "slow link"
    """Messages over some links take longer than others like them, with all their ranks there."""
    MEMORY_PRESSURE = "memory pressure"
    """Devices compute slower, and counters of their memory say why."""
    DATA_WAIT = "data wait"
    """Ranks wait for micro-batches."""
    HOST = "host"
    """Devices wait for their host: between two steps, or between instructions."""
    WRONG_CONSTANT = "wrong constant"
    """What depends on a number of the cluster's file takes longer, or shorter, everywhere."""
    UNEXPLAINED = "unexplained"
    """Something takes longer, or shorter, everywhere, and no number of the file says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause and what it costs.

    Attributes:
        cause: Of which kind.
        where: Which rank, link or constant: ``rank 5``, ``h2–h3``, ``efficiency.float32``.
        ranks: The ranks that it is of; empty for all.
        factor: How many times longer what it touches takes; 1 where something is waited for.
        extra_s: By how much the step would be shorter without it; below 0, by how much longer.
        share: Of the measured step.
        why: What was seen and what to do, in a sentence with numbers.
        longer: Of each measured row how many times longer it takes for it.
    """

    cause: Cause
    where: str
    ranks: tuple[int, ...]
    factor: float
    extra_s: float
    share: float
    why: str
    longer: Floats = field(compare=False, repr=False)


def likely(costly: Costly, findings: Sequence[Finding]) -> Finding | None:
    """Give the finding for which an instruction most likely took longer; None if none touches it.

    Args:
        costly: The instruction.
        findings: What was found of the same step.
    """
    touch = [f for f in findings if f.longer[costly.row] > 1.0]
    return max(touch, key=lambda f: float(f.longer[costly.row]), default=None)
