"""Plans in full as JSON, many priced at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from stretto.cost import Estimate, MemoryUse, Number, Pricing, StepTime, estimate
from stretto.errors import Problem
from stretto.model import Model
from stretto.plan import Plan
from stretto.presets import name_of
from stretto.search import PARTS, USES, Row, Task, choice_of, families, family_name, line, plan_of

TIMES = tuple(f.name for f in fields(StepTime))
"""Parts of a step."""

BYTES = tuple(f.name for f in fields(MemoryUse) if f.name.endswith("_bytes"))
"""Parts of a rank's memory."""

MOMENTS = ("in a block", "at the loss", "in the update")
"""When the fullest rank is, as `stretto.cost.memory.MOMENTS` counts them."""

NAMES = {"time": [PARTS[name] for name in TIMES], "memory": [USES[name] for name in BYTES]}
"""What the parts are called, in the order in which a plan tells them."""


@dataclass(frozen=True, slots=True)
class Told:
    """A plan and what it takes.

    Attributes:
        plan: The plan.
        model: The preset that it trains; empty if it is none.
        devices: That it is for.
        row: What the search decided; None for a plan that no search made.
        time: Seconds, by `TIMES`.
        memory: Bytes, by `BYTES`.
        rates: What else it takes and reaches, by its name in JSON.
        lacks: What of it the runtime does not run today.
    """

    plan: Plan
    model: str
    devices: int
    row: Row | None
    time: Number
    memory: Number
    rates: dict[str, float]
    lacks: tuple[Problem, ...]

    @property
    def step_s(self) -> float:
        """Seconds of a step."""
        return float(self.time.sum())

    @property
    def memory_bytes(self) -> float:
        """Bytes on the fullest rank."""
        return float(self.memory.sum())

    @property
    def tree(self) -> dict[str, Any]:
        """The same as JSON, but for what is said of it."""
        kind = family_name(int(families(self.row))) if self.row is not None else None
        return {
            "words": line(self.row) if self.row is not None else words_of(self.plan),
            "kind": kind,
            "devices": self.devices,
            "toml": self.plan.to_toml(model=self.model),
            "lacks": [{"field": p.field, "rule": p.rule} for p in self.lacks],
            "step_s": short(self.step_s),
            "memory_bytes": short(self.memory_bytes),
            **{name: short(value) for name, value in self.rates.items()},
            "time": [short(value) for value in self.time],
            "memory": [short(value) for value in self.memory],
        }


def told(rows: Row, task: Task) -> tuple[Told, ...]:
    """Give several plans of a search and what they take.

    Args:
        rows: The plans, in arrays of one axis.
        task: What was searched for.
    """
    priced = estimate(Pricing(task.shape, choice_of(rows, task), task.machine, task.stack))
    count = rows.pp.size
    plans = [plan_of(rows.at(i), task) for i in range(count)]
    return tuple(
        _told(plan, task.model, task.devices, rows.at(i), columns)
        for i, (plan, columns) in enumerate(zip(plans, _columns(priced, count), strict=True))
    )


def shares(rows: Row, task: Task) -> tuple[Number, Number, Number]:
    """Give what the steps and the memory of several plans consist of, and when memory is fullest.

    Args:
        rows: The plans, in arrays of one axis.
        task: What was searched for.

    Returns:
        Thousandths of each step by `TIMES`, thousandths of each memory by `BYTES`, and `MOMENTS`.
    """
    priced = estimate(Pricing(task.shape, choice_of(rows, task), task.machine, task.stack))
    time, memory = (
        np.rint(1000 * parts / parts.sum(axis=0))
        for parts in (
            _stacked([getattr(priced.time, name) for name in TIMES], rows.pp.size),
            _stacked([getattr(priced.memory, name) for name in BYTES], rows.pp.size),
        )
    )
    return time, memory, np.broadcast_to(priced.memory.moment, rows.pp.size)


def told_one(plan: Plan, model: Model, *, devices: int, priced: Estimate) -> Told:
    """Give a plan that no search made and what it takes.

    Args:
        plan: The plan.
        model: What it trains.
        devices: That it is for.
        priced: What it takes.
    """
    return _told(plan, model, devices, None, next(_columns(priced, 1)))


def words_of(plan: Plan) -> str:
    """Give a plan that no search made in a line."""
    words, decided = plan.words, plan
    shown = [f"{n}={getattr(words, n)}" for n in ("pp", "dp", "cp", "tp", "ep")
             if getattr(words, n) > 1]  # fmt: skip
    shown += [f"zero={words.zero}"] if words.zero else []
    shown += [f"schedule={decided.pipeline.schedule}"] if words.pp > 1 else []
    shown += [f"interleave={decided.pipeline.interleave}"] * (decided.pipeline.interleave > 1)
    shown += [f"micro_batch={decided.batch.micro_batch}"]
    shown += [f"recompute={decided.memory.recompute}"] * (decided.memory.recompute != "none")
    return " ".join(shown)


def short(value: float) -> float:
    """Give a number to six digits, which is more than any estimate is worth."""
    return float(f"{float(value):.6g}")


Columns = tuple[Number, Number, dict[str, float]]


def _columns(priced: Estimate, count: int) -> Iterator[Columns]:
    """Give what each of several plans takes."""
    time = _stacked([getattr(priced.time, name) for name in TIMES], count)
    memory = _stacked([getattr(priced.memory, name) for name in BYTES], count)
    rates = {
        "tokens_per_s_per_device": priced.tokens_per_s_per_device,
        "mfu": priced.mfu,
        "hfu": priced.hfu,
        "energy_j": priced.bill.energy_j,
        "money": priced.bill.money,
        "moment": priced.memory.moment,
    }
    columns = _stacked([*rates.values()], count)
    for i in range(count):
        own = zip(rates, map(float, columns[:, i]), strict=True)
        yield time[:, i], memory[:, i], dict(own)


def _stacked(columns: Sequence[Number], count: int) -> Number:
    return np.stack([np.broadcast_to(column, count) for column in columns])


def _told(plan: Plan, model: Model, devices: int, row: Row | None, columns: Columns) -> Told:
    time, memory, rates = columns
    lacks = (*model.unsupported, *plan.unsupported(model))
    return Told(plan, name_of(model), devices, row, time, memory, rates, lacks)
