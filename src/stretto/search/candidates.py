"""The plans that a search found, as arrays, and single ones of them in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from stretto.cost import Estimate, Number, Pricing, estimate
from stretto.plan import Plan
from stretto.search.row import Row, choice_of, plan_of
from stretto.search.rule import Index, Mask
from stretto.search.task import Task


@dataclass(frozen=True, slots=True)
class Priced:
    """A plan of a search, and what it takes.

    Attributes:
        task: What was searched for.
        row: What the search decided.
        plan: The plan.
        estimate: What it takes.
    """

    task: Task
    row: Row
    plan: Plan
    estimate: Estimate

    @staticmethod
    def of(row: Row, task: Task) -> Priced:
        """Price a single row."""
        pricing = Pricing(task.shape, choice_of(row, task), task.machine, task.stack)
        return Priced(task, row, plan_of(row, task), estimate(pricing))

    @property
    def step_s(self) -> float:
        """Seconds of a step."""
        return float(self.estimate.time.total_s)

    @property
    def memory_bytes(self) -> float:
        """Bytes on the fullest rank."""
        return float(self.estimate.memory.total_bytes)

    @property
    def energy_j(self) -> float:
        """Joules of a step on all devices."""
        return float(self.estimate.bill.energy_j)

    @property
    def money(self) -> float:
        """What a step costs on all devices, in the currency of the cluster."""
        return float(self.estimate.bill.money)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Plans that keep all rules, fit and meet all constraints, one to a place.

    Attributes:
        grids: The plans that were priced, rules kept or not.
        grid: In which of them each lies.
        cell: Where in it.
        time_s: Seconds of a step.
        memory_bytes: Bytes on the fullest rank.
        energy_j: Joules of a step on all devices.
        family: What kind of plan each is: see `families`.
        runs: Whether the runtime runs it today.
    """

    grids: tuple[Row, ...]
    grid: Index
    cell: Index
    time_s: Number
    memory_bytes: Number
    energy_j: Number
    family: Index
    runs: Mask

    def __len__(self) -> int:
        return len(self.cell)

    def rows(self, places: Sequence[int] | Index) -> Row:
        """Give the decisions of some of them, in the order given."""
        places = np.asarray(places, dtype=np.int64)
        found = {f.name: np.empty(places.shape) for f in fields(Row)}
        for number in np.unique(self.grid[places]):
            here = self.grid[places] == number
            part = self.grids[number].at(self.cell[places[here]])
            for name, column in found.items():
                column[here] = getattr(part, name)
        return Row(**found)

    def priced(self, place: int, task: Task) -> Priced:
        """Give one of them in full."""
        row = self.grids[self.grid[place]].at(self.cell[place])
        return Priced.of(row, task)


_WORDS = ("PP", "TP", "CP", "EP")


def families(row: Row) -> Index:
    """Give the kind of each plan as a number: which axes it has, and what rests in shards."""
    axes = [row.pp > 1, row.tp > 1, row.cp > 1, row.ep > 1]
    bits = sum((2**i * has for i, has in enumerate(axes)), np.zeros((), dtype=np.int64))
    sharding = np.where(row.zero >= 3, 3, np.where(row.zero > 0, 2, row.dp * row.cp > 1))
    return np.asarray(bits + 16 * sharding, dtype=np.int64)


def family_name(number: int) -> str:
    """Give the name of a kind of plan: ``PP + TP + ZeRO-1``."""
    words = [word for i, word in enumerate(_WORDS) if number >> i & 1]
    words += {0: [], 1: ["DP"], 2: ["ZeRO-1/2"], 3: ["ZeRO-3"]}[number >> 4]
    return " + ".join(words) or "one device"
