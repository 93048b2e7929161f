"""A search for a plan in a terminal: the best in full, the others in a line each, and what if."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stretto.cost import cost
from stretto.cost.memory import MOMENTS
from stretto.cost.stacks import own
from stretto.errors import Problem
from stretto.report.bars import bars
from stretto.report.plan_head import caveats, heading, stated
from stretto.report.quantities import change, counted, duration, energy, money, step
from stretto.search import (
    ERROR,
    MEMORY_ERROR,
    Answer,
    Change,
    Found,
    Priced,
    Task,
    Training,
    line,
    more,
    parts,
    uses,
)
from stretto.units import show_bytes, show_count

_SLIGHT = 0.004  # of a step or of a memory: too little for a line
_NOTHING = 1e-9  # of it: what rounding leaves
_FRUGAL = 0.99  # of the energy of the best: what is worth telling
_MORE = 3  # parts that tell why a plan loses


def page(answer: Answer, *, notes: Sequence[str] = (), running: Sequence[str] = ()) -> Group:
    """Give all that there is to say of a search that found a plan.

    Args:
        answer: What was found.
        notes: What was assumed.
        running: What else is known of the best plan that runs today.
    """
    return Group(*_sections(answer, notes, running))


def _sections(
    answer: Answer, notes: Sequence[str], running: Sequence[str]
) -> Iterator[RenderableType]:
    yield heading(answer.found, notes)
    yield from _section("plan", *(Text(text) for text in stated(answer.best)), *caveats(answer))
    yield from _section("", _numbers(answer))
    yield from _section("", anatomy(answer.best))
    more_known = (Text(text, "yellow") for text in running)
    yield from _section("runs today", *_running(answer), *more_known)
    if answer.measure:
        others = counted(answer.meshes, "other mesh", "other meshes")
        title = f"measure these: {others} within the error of the estimate"
        yield from _section(title, _others(answer.measure, answer.best))
    if answer.kinds:
        yield from _section("other kinds of plan", _others(answer.kinds, answer.best))
    if len(answer.memory_front) > 1:
        front = _others(answer.memory_front[1:], answer.best, reasons=False)
        yield from _section("less memory", front)
    frugal = [p for p in answer.energy_front if p.energy_j < _FRUGAL * answer.best.energy_j]
    if frugal:
        yield from _section("less energy", _others(frugal, answer.best, reasons=False))
    if len(answer.fleets) > 1:
        yield from _section("fewer devices", _fleets(answer))
    yield from _section("what if", _changes(answer.changes, answer.found))
    yield from _section("", counts(answer.found))


def _section(title: str, *content: RenderableType) -> Iterator[RenderableType]:
    yield Text()
    if title:
        yield Text(title, style="bold")
    yield Padding(Group(*content), (0, 0, 0, 2))


def _numbers(answer: Answer) -> Table:
    """Give what a step and a whole training take."""
    best, found = answer.best, answer.found
    estimate = best.estimate
    rate = float(estimate.tokens_per_s_per_device)
    whole = Training.of(best, answer.tokens)
    limit = float(found.task.machine.memory_bytes)
    rows = (
        ("step", f"{step(best.step_s)} ± {ERROR:.0%}", "training",
         f"{show_count(whole.tokens)} tokens in {counted(whole.steps, 'step')}"),
        ("throughput", f"{rate:,.0f} tokens/s a device", "",
         f"{duration(whole.seconds)} if nothing fails"),
        ("MFU, HFU", f"{float(estimate.mfu):.1%}, {float(estimate.hfu):.1%}", "",
         f"{money(whole.money)}, {energy(whole.energy_j)}"),
        ("memory", f"{show_bytes(best.memory_bytes)} ± {MEMORY_ERROR:.0%} of {show_bytes(limit)}",
         "", ""),
    )  # fmt: skip
    table = Table.grid(padding=(0, 2))
    for left, value, right, other in rows:
        table.add_row(Text(left, style="dim"), value, "  ", Text(right, style="dim"), other)
    return table


def anatomy(priced: Priced) -> Columns:
    """Give where the time and the memory of a step go, side by side where there is room."""
    limit = float(priced.task.machine.memory_bytes)
    times = [(p.name, p.seconds) for p in parts(priced)]
    free = limit - priced.memory_bytes
    filled = [*_large(uses(priced), limit), ("free", free)] if free > 0 else uses(priced)
    moment = _MOMENTS[int(priced.estimate.memory.moment)]
    left = bars("where the step goes", _large(times, priced.step_s), whole=priced.step_s, show=step)
    right = bars(f"what fills the fullest rank {moment}", filled, whole=limit, show=show_bytes)
    return Columns((left, right), padding=(0, 3))


_MOMENTS = ("in a block", "at the loss", "in the update")
assert len(_MOMENTS) == len(MOMENTS)


def _large(rows: Iterable[tuple[str, float]], whole: float) -> list[tuple[str, float]]:
    """Give what is worth a line, the largest first, and the rest together: they sum to all."""
    every = list(rows)
    large = sorted((row for row in every if abs(row[1]) > _SLIGHT * whole), key=lambda row: -row[1])
    rest = sum(value for _, value in every) - sum(value for _, value in large)
    return [*large, ("rest", rest)] if abs(rest) > _NOTHING * whole else large


def _running(answer: Answer) -> Iterator[Text]:
    best, running = answer.best, answer.running
    model = answer.found.task.model
    lacking = (*model.unsupported, *best.plan.unsupported(model))
    if not lacking:
        yield Text("the plan above, as it is")
        yield from _crowded(best, answer.found.task)
        return
    if running is not None:
        longer = change(running.step_s / best.step_s)
        yield Text(f"{line(running.row)}")
        yield Text(
            f"{step(running.step_s)} a step, {longer}; {show_bytes(running.memory_bytes)}", "dim"
        )
        yield from _crowded(running, answer.found.task)
    else:
        why = model.unsupported[0].rule if model.unsupported else "of the plans that fit none does"
        yield Text(f"nothing: {why}")
    names = ", ".join(_short(p) for p in lacking)
    yield Text(f"planned and priced, but not run yet: {names}", style="dim")


def _crowded(running: Priced, task: Task) -> Iterator[Text]:
    """Say so where a plan that fits with other software does not fit with ours."""
    own_use = cost(task.model, running.plan, cluster=task.cluster, stack=own(task.cluster)).memory
    needed, there = float(own_use.total_bytes), float(task.machine.memory_bytes)
    if needed > there:
        rule = f"with our own software it needs {show_bytes(needed)} of {show_bytes(there)}"
        yield Text(f"{rule}; runs=true without --stack finds what fits", style="dim")


def _short(problem: Problem) -> str:
    return problem.field.replace("rules.compute.time", "cp").replace("rules.compute.expert", "ep")


def _others(plans: Sequence[Priced], best: Priced, *, reasons: bool = True) -> Table:
    """Give plans in two lines each: what it takes and what it is, and why it loses."""
    table = _table("right", "right", "right", "left")
    for plan in plans:
        text = Text(line(plan.row, beside=best.row))
        if reasons:
            text.append(f"\n{why(plan, best)}", style="dim")
        longer = change(plan.step_s / best.step_s)
        table.add_row(step(plan.step_s), longer, show_bytes(plan.memory_bytes), text)
    return table


def _table(*columns: Literal["left", "right"]) -> Table:
    """Give an empty table; only the last column may be broken into lines."""
    table = Table.grid(padding=(0, 2))
    for i, justify in enumerate(columns, 1):
        table.add_column(justify=justify, no_wrap=i < len(columns), overflow="fold")
    return table


def why(plan: Priced, best: Priced) -> str:
    """Give the parts of which a plan has most more than the best, or less."""
    large = [p for p in more(plan, best) if abs(p.seconds) > _SLIGHT * best.step_s][:_MORE]
    signed = (f"{'+' if p.seconds > 0 else '−'}{step(abs(p.seconds))} {p.name}" for p in large)
    return ", ".join(signed) or "no part differs much"


def _fleets(answer: Answer) -> Table:
    table = _table("right", "right", "right", "right", "right", "left")
    head = ("devices", "step", "training", "money", "energy", "plan")
    table.add_row(*(Text(word, style="dim") for word in head))
    for fleet in answer.fleets:
        best = fleet.found.best
        assert best is not None, "a fleet has a plan"
        whole, text = Training.of(best, answer.tokens), line(best.row, beside=answer.best.row)
        table.add_row(
            f"{fleet.found.task.devices:,}", step(best.step_s), duration(whole.seconds),
            money(whole.money), energy(whole.energy_j), Text(text, style="dim"),
        )  # fmt: skip
    return table


def _changes(changes: Sequence[Change], found: Found) -> Table:
    table = _table("left", "right", "left")
    for each in changes:
        best = each.found.best
        speed = each.speedup(found)
        table.add_row(
            each.what,
            f"{change(speed)} tokens/s" if best else "no plan",
            Text(line(best.row, beside=found.best.row) if best and found.best else "", "dim"),
        )
    return table


def counts(found: Found) -> Table:
    """Give how many plans were tried, and why so many of them cannot be."""
    table = _table("right", "left")
    table.add_row(f"{found.tried:,}", Text(f"plans tried in {step(found.search_s)}"))
    table.add_row(f"{len(found.candidates):,}", "can be")
    for rejection in found.rejections:
        table.add_row(Text(f"{rejection.count:,}", "dim"), Text(rejection.reason, "dim"))
    return table


def comparison(plan: Priced, best: Priced) -> Group:
    """Give the plan that somebody asks about beside the best, part by part."""
    table = _table("left", "right", "right", "right")
    table.add_row("", *(Text(word, style="bold") for word in ("asked", "best", "difference")))
    times = [(a.name, a.seconds, b.seconds) for a, b in zip(parts(plan), parts(best), strict=True)]
    held = [(name, a, b) for (name, a), (_, b) in zip(uses(plan), uses(best), strict=True)]
    rows: list[tuple[str, float, float, Callable[[float], str]]] = [
        *((*row, step) for row in _both("step", times)),
        *((*row, show_bytes) for row in _both("memory", held)),
    ]
    for name, one, other, show in rows:
        style = "" if name in ("step", "memory") else "dim"
        sign = "+" if one >= other else "−"
        cells = (name, show(one), show(other), f"{sign}{show(abs(one - other))}")
        table.add_row(*(Text(cell, style) for cell in cells))
    asked, own = Text(f"asked  {line(plan.row)}"), Text(f"best   {line(best.row)}")
    return Group(*_verdict(plan, best), asked, own, Text(), table)


def _both(
    whole: str, rows: Sequence[tuple[str, float, float]]
) -> Iterator[tuple[str, float, float]]:
    """Give the sums of two columns, what is worth a line, and the rest together."""
    one, other = sum(row[1] for row in rows), sum(row[2] for row in rows)
    yield whole, one, other
    large = [row for row in rows if max(row[1], row[2]) > _SLIGHT * other]
    yield from large
    left = one - sum(row[1] for row in large), other - sum(row[2] for row in large)
    if max(map(abs, left)) > _NOTHING * other:
        yield "rest", *left


def _verdict(plan: Priced, best: Priced) -> Iterator[Text]:
    if plan.plan == best.plan:
        yield Text("the best plan is so", style="bold")
    elif plan.step_s < best.step_s and plan.estimate.fits:
        yield Text("faster than the best, for it decides what is tried only where it is demanded")
