"""A search for a plan in a terminal: the best in full, the others in a line each, and what if."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stretto.cluster import Cluster
from stretto.cost.memory import MOMENTS
from stretto.errors import Problem
from stretto.report.bars import bars
from stretto.report.quantities import change, counted, duration, energy, money, step
from stretto.search import (
    ERROR,
    MEMORY_ERROR,
    ORDERS,
    Answer,
    Change,
    Found,
    Priced,
    Training,
    line,
    more,
    parts,
    uses,
)
from stretto.units import show_bytes, show_count

_SLIGHT = 0.004  # of a step or of a memory: too little for a line
_ROOMY = 1 - MEMORY_ERROR  # of a device's memory
_FRUGAL = 0.99  # of the energy of the best: what is worth telling
_MORE = 3  # parts that tell why a plan loses


def page(answer: Answer, *, notes: Sequence[str] = ()) -> Group:
    """Give all that there is to say of a search that found a plan.

    Args:
        answer: What was found.
        notes: What was assumed.
    """
    return Group(*_sections(answer, notes))


def _sections(answer: Answer, notes: Sequence[str]) -> Iterator[RenderableType]:
    yield heading(answer.found, notes)
    yield from _section("plan", *(Text(text) for text in stated(answer.best)), *_caveats(answer))
    yield from _section("", _numbers(answer))
    yield from _section("", anatomy(answer.best))
    yield from _section("runs today", *_running(answer))
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


def heading(found: Found, notes: Sequence[str]) -> Group:
    """Give what was searched for, and what was assumed."""
    task = found.task
    model, cluster = task.model, task.cluster
    first = Text.assemble(
        (model.name or "the model", "bold"),
        f"  {show_count(model.parameter_count)} parameters",
        "    ",
        (_devices(cluster), "bold"),
        f"  {cluster.per_node} to a node" if cluster.per_node > 1 else "",
    )
    precision = task.dtype if task.matrix == "same" else f"{task.matrix} products, {task.dtype}"
    batch = f"{counted(task.sequences, 'sequence')} × {task.seq:,} = {show_count(task.tokens)}"
    second = f"{batch} tokens a step    {precision}"
    assumed = [Text(f"assumed: {', '.join(notes)}", style="dim")] if notes else []
    return Group(first, Text(second), *assumed)


def _devices(cluster: Cluster) -> str:
    """Give how many of which device, and of what they are a part if that has a name of its own."""
    kinds = " + ".join(f"{part.devices:,} × {part.device.name}" for part in cluster.parts)
    return kinds if cluster.name == cluster.device.name else f"{cluster.name}: {kinds}"


def stated(priced: Priced) -> Iterator[str]:
    """Give a plan in lines of ``key=value`` that `stretto show` and `stretto train` take."""
    plan = priced.plan
    names = plan.words
    mesh = [f"{k}={getattr(names, k)}" for k in ("pp", "dp", "cp", "tp") if getattr(names, k) > 1]
    if names.ep > 1:
        mesh += [f"ep={names.ep}", f"etp={names.etp}"]
    mesh.append(f"zero={names.zero}")
    if names.zero and names.shard != names.dp * names.cp:
        mesh.append(f"shard={names.shard}")
    if names.tp > 1 and not names.sequence:
        mesh.append("sequence=false")
    yield " ".join(mesh)
    batch = plan.batch
    yield (
        f"batch.sequences={batch.sequences} batch.micro_batch={batch.micro_batch} "
        f"batch.seq={batch.seq}"
    )
    for section, keys in _SECTIONS.items():
        values = [(key, getattr(getattr(plan, section), key), usual) for key, usual in keys]
        own = [f"{section}.{key}={_toml(value)}" for key, value, usual in values if value != usual]
        if own:
            yield " ".join(own)
    if priced.row.order:
        axes = ", ".join(ORDERS[int(priced.row.order)])
        yield f"# axes from the outermost in: {axes}; only a file says so: --save plan.toml"


_SECTIONS: dict[str, tuple[tuple[str, object], ...]] = {
    "pipeline": (("schedule", "1f1b"), ("interleave", 1)),
    "memory": (
        ("recompute", "none"), ("recompute_layers", None), ("offload", 0.0),
        ("optimizer_offload", 0.0), ("regather", True),
    ),
    "communication": (("codec", "none"), ("hierarchy", "flat"), ("tensor_overlap", False)),
    "numerics": (("dtype", ""), ("matrix", "same")),
}  # fmt: skip


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _caveats(answer: Answer) -> Iterator[Text]:
    """Give what to know of how the plan was chosen."""
    if max(answer.found.options.offload) > 0:
        yield Text("nothing fits without the host's memory", style="yellow")
    limit = float(answer.found.task.machine.memory_bytes)
    if answer.best.memory_bytes > _ROOMY * limit:
        room = f"--constraint 'memory<={limit * _ROOMY / 2**30:.3g}GiB'"
        yield Text(f"nearly full, and memory is an estimate too: {room} leaves room", "yellow")
    few, all_ = answer.best.task.devices, answer.fleets[0].found.task.devices
    if few < all_:
        yield Text(f"{few:,} of {all_:,} devices take the least {answer.found.objective}", "yellow")
    fewer = [f.found for f in answer.fleets if f.found.task.devices < answer.best.task.devices]
    quickest = min(fewer, key=_fastest, default=answer.found)
    if _fastest(quickest) < _fastest(answer.found):
        some, seconds = f"{quickest.task.devices:,} of the devices", step(_fastest(quickest))
        yield Text(f"{some} by themselves are faster: {seconds} a step", "yellow")
    if answer.refused is not None:
        longer = change(answer.best.step_s / answer.refused.step_s)
        yield Text(
            f"the best of those that can be emitted: {longer} over the best of all, "
            f"{line(answer.refused.row)}",
            style="yellow",
        )


def _fastest(found: Found) -> float:
    return float(np.min(found.candidates.time_s))


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
    return sorted(((n, v) for n, v in rows if abs(v) > _SLIGHT * whole), key=lambda row: -row[1])


def _running(answer: Answer) -> Iterator[Text]:
    best, running = answer.best, answer.running
    model = answer.found.task.model
    lacking = (*model.unsupported, *best.plan.unsupported(model))
    if not lacking:
        yield Text("the plan above, as it is")
        return
    if running is not None:
        longer = change(running.step_s / best.step_s)
        yield Text(f"{line(running.row)}")
        yield Text(
            f"{step(running.step_s)} a step, {longer}; {show_bytes(running.memory_bytes)}", "dim"
        )
    else:
        why = model.unsupported[0].rule if model.unsupported else "of the plans that fit none does"
        yield Text(f"nothing: {why}")
    names = ", ".join(_short(p) for p in lacking)
    yield Text(f"planned and priced, but not run yet: {names}", style="dim")


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
    rows: list[tuple[str, float, float, Callable[[float], str]]]
    rows = [("step", plan.step_s, best.step_s, step)]
    rows += [
        (a.name, a.seconds, b.seconds, step)
        for a, b in zip(parts(plan), parts(best), strict=True)
        if max(a.seconds, b.seconds) > _SLIGHT * best.step_s
    ]
    rows.append(("memory", plan.memory_bytes, best.memory_bytes, show_bytes))
    rows += [
        (a[0], a[1], b[1], show_bytes)
        for a, b in zip(uses(plan), uses(best), strict=True)
        if max(a[1], b[1]) > _SLIGHT * best.memory_bytes
    ]
    for name, one, other, show in rows:
        style = "" if name in ("step", "memory") else "dim"
        sign = "+" if one >= other else "−"
        cells = (name, show(one), show(other), f"{sign}{show(abs(one - other))}")
        table.add_row(*(Text(cell, style) for cell in cells))
    asked, own = Text(f"asked  {line(plan.row)}"), Text(f"best   {line(best.row)}")
    return Group(*_verdict(plan, best), asked, own, Text(), table)


def _verdict(plan: Priced, best: Priced) -> Iterator[Text]:
    if plan.plan == best.plan:
        yield Text("the best plan is so", style="bold")
    elif plan.step_s < best.step_s and plan.estimate.fits:
        yield Text("faster than the best, for it decides what is tried only where it is demanded")
