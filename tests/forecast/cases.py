"""Trainings and failures for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stretto.forecast import (
    Checkpoint,
    Component,
    Failures,
    Forecast,
    Job,
    Needs,
    Per,
    Recovery,
    Setup,
    Shows,
    play,
)

HOUR, DAY = 3600.0, 86400.0


def crashes(mean_s: float, needs: Needs = Needs.RESTART) -> Failures:
    """A run that crashes so often."""
    return Failures("crashes", components=(component(mean_s, needs=needs),))


def component(
    mean_s: float,
    *,
    name: str = "crash",
    per: Per = Per.RUN,
    shows: Shows = Shows.CRASH,
    needs: Needs = Needs.RESTART,
) -> Component:
    return Component(name, mean_s, per, shows, needs)


def training(
    work_s: float,
    checkpoint: Checkpoint,
    recovery: Recovery = Recovery(),  # noqa: B008 — it is frozen
    **more: Any,
) -> Setup:
    """A training of so many steps of a second, on 4 nodes of 8."""
    return Setup(Job(round(work_s), 1.0, 32), checkpoint, recovery, **more)


@dataclass
class Script:
    """Draws that are written down: times between failures in mean times, then never again."""

    when: Sequence[float]
    which: Sequence[float] = ()
    repair: Sequence[float] = ()

    def at(self, run: np.ndarray, failure: np.ndarray) -> tuple[np.ndarray, ...]:
        columns = ((self.when, 1e18), (self.which, 0.0), (self.repair, 1.0))
        return tuple(
            np.asarray([c[i] if i < len(c) else rest for i in failure]) for c, rest in columns
        )

    def triples(self) -> Iterator[tuple[float, float, float]]:
        for i in range(len(self.when) + 1):
            when, which, repair = self.at(np.zeros(1), np.asarray([i]))
            yield float(when[0]), float(which[0]), float(repair[0])


def scripted(script: Script, setup: Setup, failures: Failures) -> Forecast:
    """One run whose failures come as a script says."""
    (forecast,) = play([setup], failures, runs=1, draws=script)
    return forecast


def spent(forecast: Forecast) -> dict[str, float]:
    """What a single run spent its time on, without what it spent none on."""
    from stretto.forecast import PARTS

    pairs = zip(PARTS, forecast.parts_s[0].tolist(), strict=True)
    return {name: round(seconds, 6) for name, seconds in pairs if abs(seconds) > 1e-6}
