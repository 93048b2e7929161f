"""The best few plans that run today, played by the simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stretto.plan import Plan
from stretto.program.lower import lower
from stretto.search.candidates import Priced
from stretto.search.found import Found
from stretto.simulate import simulate


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A plan that was estimated and played.

    Attributes:
        estimated: The plan, and what it was estimated to take.
        step_s: The step as the simulator plays it, what is lost by chance included.
    """

    estimated: Priced
    step_s: float

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.estimated.plan

    @property
    def error(self) -> float:
        """The estimate over the simulation, less 1."""
        return self.estimated.step_s / self.step_s - 1


def confirm(
    found: Found, *, most: int, begin: Callable[[Priced], None] = lambda _: None
) -> tuple[Confirmed, ...]:
    """Play the best plan of each of the best meshes; give them the fastest first.

    A plan that does not run yet has no program, so that it cannot be played.

    Args:
        found: A search.
        most: How many plans to play.
        begin: Told of each before it is played.
    """
    places = found.order[found.candidates.runs[found.order]]
    rows = found.candidates.rows(places)
    meshes = np.stack([rows.pp, rows.dp, rows.cp, rows.tp, rows.ep])
    _, firsts = np.unique(meshes, axis=1, return_index=True)
    best = found.all_at(places[np.sort(firsts)[:most]])
    played = []
    for priced in best:
        begin(priced)
        played.append(_played(priced))
    return tuple(sorted(played, key=lambda one: one.step_s))


def _played(priced: Priced) -> Confirmed:
    task = priced.task
    line = simulate(lower(task.model, priced.plan), task.cluster, stack=task.stack)
    return Confirmed(priced, line.expected_s)
