"""Why no plan can be: what contradicts the devices, a rule, a demand, or is too little."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from stretto.errors import Problem
from stretto.search.candidates import Priced
from stretto.search.constraint import Constraint
from stretto.search.found import Found
from stretto.search.needs import unmet
from stretto.search.rule import LAYOUT, REST, Rule
from stretto.search.search import demanded, search
from stretto.search.words import line
from stretto.units import show_bytes, show_seconds

_MESH = ("pp", "dp", "cp", "tp")
_SHOWN = 3  # rules, where none of all plans keeps them


def nothing(found: Found) -> tuple[Problem, ...]:
    """Give why a search found no plan, and how far the nearest is from being one.

    Args:
        found: The search; one that found a plan has nothing to explain.
    """
    least = found.least
    if found.best is not None:
        return ()
    if least is None:
        several = (*_reasons(found), *_excluding(found))
        return _not_running(found) or several or _untried(found)
    if least.memory_bytes > float(found.task.machine.memory_bytes):
        return (_too_large(least),)
    return (_beyond(found, least),)


def impossible(found: Found) -> tuple[Problem, ...]:
    """Give why every plan breaks a rule or a demand, where a search found not even one too large.

    Args:
        found: The search.
    """
    return _not_running(found) or _reasons(found) or _untried(found)


def _reasons(found: Found) -> tuple[Problem, ...]:
    mesh = tuple(_mesh_problems(found))
    return mesh or unmet(found.task, found.constraints) or tuple(_broken(found))


def _untried(found: Found) -> tuple[Problem, ...]:
    text = " ".join(c.text for c in found.constraints)
    return (Problem("plan", f"no plan that is tried has {text}", "demand less"),)


def _too_large(least: Priced) -> Problem:
    limit, need = float(least.task.machine.memory_bytes), least.memory_bytes
    rule = (
        f"the plan that needs least, {line(least.row)}, takes {show_bytes(need)} on its fullest "
        f"rank, but a device has {show_bytes(limit)}: {show_bytes(need - limit)} too little"
    )
    return Problem("memory", rule, "use more devices, or devices with more memory")


def _beyond(found: Found, least: Priced) -> Problem:
    """Give what is demanded of what a plan takes, and comes of none of those that fit."""
    decisions = [c for c in found.constraints if c.before]
    fitting = search(found.task, options=found.options, constraints=decisions)
    best = fitting.best
    assert best is not None, "a plan that fits was found before"
    own = [c for c in found.constraints if not c.before]
    rule = (
        f"none of {len(fitting.candidates):,} plans that fit meets "
        f"{' and '.join(c.text for c in own)}: {''.join(_nearest(c, fitting, best) for c in own)}"
        f"the fastest takes {show_seconds(best.step_s)} and {show_bytes(best.memory_bytes)}, the "
        f"smallest {show_seconds(least.step_s)} and {show_bytes(least.memory_bytes)}"
    )
    return Problem("constraint", rule, "demand less")


def _nearest(constraint: Constraint, fitting: Found, best: Priced) -> str:
    """Give what comes nearest to a demand that neither the fastest nor the smallest plan tells."""
    seconds = fitting.candidates.time_s / best.step_s
    match constraint.key:
        case "energy":
            values, show = fitting.candidates.energy_j / 3600, "{:.4g} Wh"
        case "cost":  # as many devices cost the same an hour
            values, show = best.money * seconds, "{:.4g} USD"
        case "mfu":
            values, show = float(best.estimate.mfu) / seconds, "{:.1%}"
        case _:
            return ""
    wanted = constraint.values[0] / (3600 if constraint.key == "energy" else 1)
    near = values[np.argmin(np.abs(values - wanted))]
    return f"the nearest {constraint.key} is {show.format(near)}; "


def _mesh_problems(found: Found) -> Iterator[Problem]:
    """Ranks of the axes that are demanded, and that do not make the devices."""
    stated = {
        c.key: int(c.values[0])
        for c in found.constraints
        if c.key in _MESH and c.sign == "=" and len(c.values) == 1
    }
    devices, product = found.task.devices, math.prod(stated.values())
    whole = len(stated) == len(_MESH)
    if product < 1 or devices % product or (whole and product != devices):
        shape = " × ".join(f"{name} {extent}" for name, extent in stated.items())
        made = f" = {product}" if len(stated) > 1 else ""
        rule = f"{shape}{made} {'is not' if whole else 'does not divide'} {devices} devices"
        yield Problem("mesh", rule, "choose divisors of the number of devices")


def _not_running(found: Found) -> tuple[Problem, ...]:
    """Give what of the model no plan makes run, where running is demanded."""
    text = "".join(c.text for c in found.constraints if c.key == "runs")
    why = found.task.model.unsupported if text else ()
    return tuple(Problem("constraint", f"{text}: {p.rule}", "leave it out") for p in why)


def _excluding(found: Found) -> Iterator[Problem]:
    """Constraints on decisions that together leave no plan."""
    decisions = [c for c in found.constraints if c.before]
    if len(decisions) > 1:
        counts = [len(search(found.task, constraints=[c]).candidates) for c in decisions]
        alone = ", ".join(f"{c.text} {count:,}" for c, count in zip(decisions, counts, strict=True))
        rule = f"no plan meets all of them; alone they leave, of plans that fit: {alone}"
        yield Problem("constraint", rule, "leave one out")


def _broken(found: Found) -> Iterator[Problem]:
    """Rules that plans break: one that all break, or else those that most break first."""
    own = [rule.reason for rule in (*LAYOUT, *REST) if not _kept(rule, found)]
    rules = [r for r in found.rejections if r.example]
    for rule in [r for r in rules if r.reason in own][:1] or rules[:_SHOWN]:
        yield Problem("plan", f"{rule.example} ({rule.count:,} plans)", _remedy(found))


def _kept(rule: Rule, found: Found) -> bool:
    """Tell whether any of the plans that are demanded keeps a rule, whatever others it breaks."""
    for grid in demanded(found.task, found.constraints, found.options):
        kept = np.asarray(rule.holds(grid.rows, found.task))
        for mask in grid.own:
            kept = kept & mask
        if kept.any():
            return True
    return False


def _remedy(found: Found) -> str:
    devices, batch = found.task.devices, found.task.sequences
    if batch % devices == 0:
        return "choose otherwise"
    near = sorted({max(1, batch // devices) * devices, (batch // devices + 1) * devices})
    return f"choose otherwise; {' or '.join(map(str, near))} sequences divide by all devices"
