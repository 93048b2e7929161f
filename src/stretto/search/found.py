"""What a search found: the best plan, the others that can be, and why the rest cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from stretto.cost import Number
from stretto.search.candidates import Candidates, Priced
from stretto.search.constraint import Constraint
from stretto.search.options import Options
from stretto.search.rule import Index
from stretto.search.task import Task

Objective = Literal["time", "cost", "energy", "memory-headroom"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

ERROR = 0.05
"""Relative error of the estimate of a step; two thirds of what was measured lie within it: see
docs/fidelity.md."""

MEMORY_ERROR = 0.07
"""Relative error of the estimate of memory, the median of what was measured: see there."""

_LOOKED_AT = 2**14  # of the best plans, for meshes to measure


@dataclass(frozen=True, slots=True)
class Rejection:
    """Plans that were ruled out for one reason, the first that was met.

    Attributes:
        reason: Why.
        count: How many.
        example: The numbers of one of them, where the reason has any.
    """

    reason: str
    count: int
    example: str = ""


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        task: What was searched for.
        options: What was tried.
        constraints: What was demanded.
        objective: What is best.
        candidates: All plans that can be.
        rejections: Why the others cannot, most first.
        least: The plan that needs least memory of all that keep the rules and the constraints on
            decisions, whether it fits or not; None if none keeps them.
        search_s: Seconds that the search took.
    """

    task: Task
    options: Options
    constraints: tuple[Constraint, ...]
    objective: Objective
    candidates: Candidates
    rejections: tuple[Rejection, ...]
    least: Priced | None
    search_s: float

    @property
    def tried(self) -> int:
        """The number of plans that were tried."""
        return len(self.candidates) + sum(r.count for r in self.rejections)

    @cached_property
    def value(self) -> Number:
        """What is to be small, of each candidate."""
        found = self.candidates
        match self.objective:
            case "time" | "cost":  # the same number of devices costs the same an hour
                return found.time_s
            case "energy":
                return found.energy_j
            case "memory-headroom":  # of those that the estimate cannot tell from the fastest
                slow = found.time_s > np.min(found.time_s, initial=np.inf) * (1 + ERROR)
                return np.where(slow, np.inf, found.memory_bytes)

    @cached_property
    def order(self) -> Index:
        """Places of all candidates, the best first; of equals the simplest."""
        return np.argsort(self.value, kind="stable")

    @cached_property
    def best(self) -> Priced | None:
        """The best plan, if any can be."""
        return self.at(int(np.argmin(self.value))) if len(self.candidates) else None

    @cached_property
    def best_running(self) -> Priced | None:
        """The best plan that the runtime runs today, if there is one."""
        places = self.order[self.candidates.runs[self.order]]
        return self.at(places[0]) if len(places) else None

    @cached_property
    def within_error(self) -> Index:
        """Places of the candidates that the estimate cannot tell from the fastest, best first."""
        seconds = self.candidates.time_s[self.order]
        return self.order[seconds <= np.min(seconds, initial=np.inf) * (1 + ERROR)]

    @cached_property
    def mesh_firsts(self) -> Index:
        """Places of the best plan of each mesh within the error, best first."""
        places = self.within_error[:_LOOKED_AT]
        rows = self.candidates.rows(places)
        meshes = np.stack([rows.pp, rows.dp, rows.cp, rows.tp, rows.ep])
        _, firsts = np.unique(meshes, axis=1, return_index=True)
        return places[np.sort(firsts)]

    @cached_property
    def family_firsts(self) -> Index:
        """Places of the best plan of each family, best first."""
        families = self.candidates.family[self.order]
        firsts = np.full(np.max(families, initial=0) + 1, -1, dtype=np.int64)
        firsts[families[::-1]] = np.arange(len(families))[::-1]  # of equals the last one stays
        return self.order[np.sort(firsts[firsts >= 0])]

    def at(self, place: int) -> Priced:
        """Give a candidate in full."""
        return self.candidates.priced(place, self.task)

    def all_at(self, places: Sequence[int] | Index) -> tuple[Priced, ...]:
        """Give several candidates in full."""
        return tuple(self.at(int(place)) for place in places)
