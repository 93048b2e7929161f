"""All that somebody wants to know who asks for a plan: the best, the others, and what if."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stretto.plan import Plan
from stretto.search.candidates import Priced
from stretto.search.change import Change, fleets, sensitivity
from stretto.search.constraint import Constraint
from stretto.search.found import Found, Objective
from stretto.search.front import against_energy, against_memory, thinned
from stretto.search.row import plan_of
from stretto.search.rule import Index
from stretto.search.search import search_with_host
from stretto.search.task import Task

TOKENS_PER_PARAMETER = 20
"""Tokens of a whole training for each parameter that a token passes (Hoffmann et al., 2022)."""


@dataclass(frozen=True, slots=True)
class Training:
    """What a whole training takes, if nothing fails.

    Attributes:
        tokens: That it sees.
        steps: Their number; the last may see fewer tokens.
        seconds: How long it takes.
        money: What it costs, in the currency of the cluster.
        energy_j: The energy of all devices, in joules.
    """

    tokens: float
    steps: int
    seconds: float
    money: float
    energy_j: float

    @staticmethod
    def of(priced: Priced, tokens: float) -> Training:
        """Give what it takes with a plan."""
        steps = math.ceil(tokens / priced.task.tokens)
        each = priced.step_s, priced.money, priced.energy_j
        return Training(tokens, steps, *(steps * value for value in each))


@dataclass(frozen=True, slots=True)
class Answer:
    """A search, and what is worth telling of it.

    Attributes:
        found: What was found.
        best: The best plan, of those that are accepted.
        refused: The best of all, where it is not accepted.
        running: The best plan that the runtime runs today; None if there is none.
        tokens: That a whole training sees.
        measure: The best plans of other meshes that the estimate cannot tell from the best.
        meshes: How many of those there are.
        kinds: The best plans of other families that `measure` does not tell.
        changes: What twice of something would bring.
        fleets: What fewer devices do, all of them first.
        memory_front: Plans of which none faster needs as little memory, the fastest first, and as
            long as the slowest takes no ten times as much.
        energy_front: Likewise of energy.
    """

    found: Found
    best: Priced
    refused: Priced | None
    running: Priced | None
    tokens: float
    measure: tuple[Priced, ...]
    meshes: int
    kinds: tuple[Priced, ...]
    changes: tuple[Change, ...]
    fleets: tuple[Change, ...]
    memory_front: tuple[Priced, ...]
    energy_front: tuple[Priced, ...]


def answer(
    task: Task,
    *,
    tokens: float,
    constraints: Sequence[Constraint] = (),
    objective: Objective = "time",
    top: int = 3,
    accepts: Callable[[Plan], bool] | None = None,
) -> Answer | Found:
    """Give the best plan and all that is worth telling; what was found where no plan will do.

    With `objective` ``cost`` or ``energy``, half the devices, a quarter and so on are tried too,
    because fewer devices spend less on moves and waiting.

    Args:
        task: What to search for.
        tokens: That a whole training sees.
        constraints: What to demand.
        objective: What is best.
        top: How many others of each sort.
        accepts: Tells whether a plan will do; None for all.

    Raises:
        InputError: Constraints that contradict each other.
    """
    whole = search_with_host(task, constraints=constraints, objective=objective)
    if whole.best is None:
        return whole
    found, spare = whole, objective in ("cost", "energy")
    sizes = fleets(whole, options=whole.options if spare else None)
    if spare:
        found = min((change.found for change in sizes), key=_spent)
    first = found.best
    assert first is not None, "a fleet has a plan"
    best = first if accepts is None else _accepted(found, accepts)
    if best is None:
        return found
    candidates, measure = found.candidates, found.mesh_firsts[1 : top + 1]
    told = [found.order[0], *measure]
    kinds = [place for place in found.family_firsts if place not in told]
    memory, energy = _near(found, against_memory(found)), _near(found, against_energy(found))
    return Answer(
        found,
        best,
        first if best.plan != first.plan else None,
        found.best_running,
        tokens,
        found.all_at(measure),
        len(found.mesh_firsts) - 1,
        found.all_at(kinds[:top]),
        sensitivity(found),
        sizes,
        found.all_at(thinned(memory, by=candidates.memory_bytes, most=top + 1)),
        found.all_at(thinned(energy, by=candidates.energy_j, most=top + 1)),
    )


def _near(found: Found, places: Index) -> Index:
    """Give the places of a front that somebody may want: whoever waits longer has fewer devices."""
    seconds = found.candidates.time_s
    return places[seconds[places] <= _SLOWEST * np.min(seconds)]


def _accepted(found: Found, accepts: Callable[[Plan], bool]) -> Priced | None:
    """Give the best plan that is accepted, if one of the better ones is.

    Plans that differ in numbers alone are taken to be accepted alike.
    """
    places = found.order[:_LOOKED_AT]
    rows = found.candidates.rows(places)
    alike = [getattr(rows, name) for name in _KINDS]
    alike += [rows.interleave > 1, rows.recompute_layers > 0, rows.cp > 1, rows.ep > 1]
    alike += [rows.shard == rows.dp * rows.cp, rows.etp == rows.tp, rows.dp > 1, rows.tp > 1]
    _, firsts = np.unique(np.stack(alike), axis=1, return_index=True)
    for place in places[np.sort(firsts)]:
        if accepts(plan_of(found.candidates.rows([place]).at(0), found.task)):
            return found.at(int(place))
    return None


_SLOWEST = 10  # times as slow as the fastest
_LOOKED_AT = 2**15
_KINDS = (
    "pp", "order", "zero", "regather", "schedule", "recompute", "sequence", "tensor_overlap",
    "two_level", "codec", "offload", "optimizer_offload",
)  # fmt: skip


def _spent(found: Found) -> float:
    assert found.best is not None, "a fleet has a plan"
    return found.best.money if found.objective == "cost" else found.best.energy_j
