"""A search for a plan as JSON: all that the terminal is told, and the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from stretto.cost import StepTime
from stretto.errors import Problem
from stretto.presets import name_of
from stretto.search import (
    ERROR,
    Answer,
    Change,
    Found,
    Priced,
    Task,
    Training,
    WhyNot,
    family_name,
    more,
    uses,
    words,
)
from stretto.search.candidates import families

Tree = Mapping[str, Any]


def tree(answer: Answer) -> Tree:
    """Give a search that found a plan."""
    best, found = answer.best, answer.found
    return {
        "task": _task(found.task),
        "objective": found.objective,
        "constraints": [c.text for c in found.constraints],
        "error": ERROR,
        "best": _priced(best, answer),
        "runs_today": _priced(answer.running, answer) if answer.running else None,
        "not_run_yet": problems((*found.task.model.unsupported, *_lacking(best))),
        "measure": _all(answer.measure, answer),
        "meshes_within_error": answer.meshes,
        "plans_within_error": len(found.within_error),
        "kinds": _all(answer.kinds, answer),
        "memory_front": _all(answer.memory_front, answer),
        "energy_front": _all(answer.energy_front, answer),
        "devices_front": [_change(change, answer) for change in answer.fleets],
        "what_if": [_change(change, answer) for change in answer.changes],
        "search": searched(found),
    }


def why_not(asked: WhyNot, answer: Priced) -> Tree:
    """Give a plan that somebody asks about beside the best."""
    plan = asked.priced
    return {
        "asked": [c.text for c in asked.asked],
        "problems": problems(asked.problems),
        "plan": _plan(plan) if plan else None,
        "best": _plan(answer),
        "more_than_best_s": {p.name: p.seconds for p in more(plan, answer)} if plan else None,
    }


def nothing(found: Found, why: Iterable[Problem], rescues: Iterable[Change]) -> Tree:
    """Give a search that found no plan."""
    return {
        "task": _task(found.task),
        "constraints": [c.text for c in found.constraints],
        "problems": problems(why),
        "least_memory": _plan(found.least) if found.least else None,
        "would_fit": [
            {"what": c.what, "plan": _plan(c.found.best) if c.found.best else None} for c in rescues
        ],
        "search": searched(found),
    }


def problems(found: Iterable[Problem]) -> list[dict[str, str]]:
    """Give problems."""
    return [{"field": p.field, "rule": p.rule, "remedy": p.remedy} for p in found]


def searched(found: Found) -> Tree:
    """Give how many plans were tried, and why so many of them cannot be."""
    return {
        "tried": found.tried,
        "can_be": len(found.candidates),
        "seconds": found.search_s,
        "rejected": [
            {"reason": r.reason, "count": r.count, "example": r.example} for r in found.rejections
        ],
    }


def _lacking(priced: Priced) -> tuple[Problem, ...]:
    return priced.plan.unsupported(priced.task.model)


def _task(task: Task) -> Tree:
    return {
        "model": task.model.name,
        "parameters": task.model.parameter_count,
        "active_parameters": task.model.active_parameter_count,
        "cluster": task.cluster.name,
        "devices": task.devices,
        "device": task.cluster.device.name,
        "device_memory_bytes": float(task.machine.memory_bytes),
        "sequences": task.sequences,
        "seq": task.seq,
        "tokens": task.tokens,
        "dtype": task.dtype,
        "matrix": task.matrix,
    }


def _all(plans: Iterable[Priced], answer: Answer) -> list[Tree]:
    return [_priced(plan, answer) for plan in plans]


def _change(change: Change, answer: Answer) -> Tree:
    best = change.found.best
    return {
        "what": change.what,
        "devices": change.found.task.devices,
        "tokens_per_s_ratio": change.speedup(answer.found),
        "plan": _priced(best, answer) if best else None,
    }


def _priced(priced: Priced, answer: Answer) -> Tree:
    """Give a plan, what it takes, and how it compares with the best."""
    training = Training.of(priced, answer.tokens)
    return {
        **_plan(priced),
        "training": {f.name: getattr(training, f.name) for f in fields(Training)},
        "more_than_best_s": {p.name: p.seconds for p in more(priced, answer.best)},
    }


def _plan(priced: Priced) -> dict[str, Any]:
    """Give a plan and what a step of it takes."""
    estimate = priced.estimate
    bill = estimate.bill
    return {
        "words": words(priced.row),
        "kind": family_name(int(families(priced.row))),
        "toml": priced.plan.to_toml(model=name_of(priced.task.model)),
        "not_run_yet": [p.field for p in _lacking(priced)],
        "step_s": priced.step_s,
        "step_parts_s": {f.name: _number(getattr(estimate.time, f.name)) for f in fields(StepTime)},
        "memory_bytes": priced.memory_bytes,
        "memory_parts_bytes": dict(uses(priced)),
        "fits": bool(estimate.fits),
        "tokens_per_s_per_device": _number(estimate.tokens_per_s_per_device),
        "mfu": _number(estimate.mfu),
        "hfu": _number(estimate.hfu),
        "energy_j": priced.energy_j,
        "energy_parts_j": {
            n: _number(getattr(bill, n)) for n in bill.__slots__ if n.endswith("_j")
        },
        "money": priced.money,
    }


def _number(value: Any) -> float:
    return float(np.asarray(value))
