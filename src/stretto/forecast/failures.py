"""What fails, how often, how that is noticed, and what it needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from stretto.errors import InputError, Problem

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


class Per(StrEnum):
    """What a rate grows with."""

    DEVICE = "device"
    NODE = "node"
    RUN = "run"


class Shows(StrEnum):
    """How a failure is noticed."""

    CRASH = "crash"
    HANG = "hang"
    CORRUPTION = "corruption"
    PLANNED = "planned"


class Needs(StrEnum):
    """What brings a run back: its processes again, or another node while this one is away."""

    RESTART = "restart"
    RESET = "reset"
    REPAIR = "repair"


@dataclass(frozen=True, slots=True)
class Component:
    """One thing that fails.

    Attributes:
        name: What it is called.
        mean_s: Seconds from one failure to the next of one device, of one node or of the run.
        per: Of which of them.
        shows: How it is noticed. What is planned waits for the next checkpoint.
        needs: What brings the run back.
    """

    name: str
    mean_s: float
    per: Per
    shows: Shows
    needs: Needs

    def rate_per_s(self, *, devices: int, nodes: int) -> float:
        """Give the failures per second of a whole run."""
        match self.per:
            case Per.DEVICE:
                return devices / self.mean_s
            case Per.NODE:
                return nodes / self.mean_s
            case Per.RUN:
                return 1 / self.mean_s


@dataclass(frozen=True, slots=True)
class Failures:
    """All that fails, independently and without memory of the past: each a Poisson process.

    Attributes:
        name: What they are called.
        about: Where they were counted.
        source: Who published them.
        components: What fails; empty for nothing.
    """

    name: str
    about: str = ""
    source: str = ""
    components: tuple[Component, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that stand twice, and times that cannot be.

        Raises:
            InputError: All that is wrong.
        """
        if problems := [*_problems(self)]:
            raise InputError(problems)

    @property
    def unplanned(self) -> Failures:
        """Those that come without notice, and so lose work."""
        kept = tuple(c for c in self.components if c.shows is not Shows.PLANNED)
        return Failures(self.name, self.about, self.source, kept)

    def rate_per_s(self, *, devices: int, nodes: int) -> float:
        """Give the failures per second of a whole run."""
        return sum(c.rate_per_s(devices=devices, nodes=nodes) for c in self.components)

    def mtbf_s(self, *, devices: int, nodes: int) -> float:
        """Give the mean seconds of running between two failures of a run; infinite for none."""
        rate = self.rate_per_s(devices=devices, nodes=nodes)
        return 1 / rate if rate else math.inf


def _problems(failures: Failures) -> Iterator[Problem]:
    names = [c.name for c in failures.components]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield Problem(f"component {name}", "stands twice", "add their events up")
    for c in failures.components:
        if not 0 < c.mean_s < math.inf:
            rule = f"fails every {c.mean_s:g} s"
            yield Problem(f"component {c.name}", rule, "state events and time above 0")
