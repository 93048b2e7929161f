"""Plans whose layers, devices or links differ, and what to go on with when devices fail."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Literal

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stretto.plan import Plan
from stretto.report.quantities import change, step
from stretto.search import Task, line
from stretto.search.assign import Assignment
from stretto.search.confirm import Confirmed
from stretto.search.layerwise import Layerwise
from stretto.search.staged import Staged
from stretto.search.survivors import Survivors, tokens_per_s
from stretto.search.task import RECOMPUTES
from stretto.search.uneven import Across
from stretto.units import show_bytes

_SLIGHT = 1.001  # times as fast: too little to tell
_LONG = 64  # nodes


def layerwise(found: Layerwise) -> Group:
    """Give the best plan whose layers differ beside the best whose do not."""
    title, uniform = "layers that differ", found.uniform
    if not uniform.fits and found.best.fits:
        over = (uniform.memory_bytes - uniform.limit_bytes).max()
        advice = f"the plan above lacks {show_bytes(over)} where layers are larger than the mean"
        return _section(title, _headline(found.best, advice), stages(found.best))
    if found.speedup < _SLIGHT:
        return _section(title, Text("none is faster than the plan above: all layers alike"))
    ratio = change(found.best.step_s / uniform.step_s)
    return _section(title, _headline(found.best, f"{ratio} than alike"), stages(found.best))


def across(found: Across, task: Task) -> Group:
    """Give the best plan over the parts of a cluster, and what else could be done with them."""
    title = "stages sized to the devices of each part"
    rows = []
    if found.alike is not None:
        rows.append(("all, as if they were the slowest", found.alike.step_s))
    for part, alone in zip(task.cluster.parts, found.alone, strict=True):
        if alone is not None:
            rows.append((f"{part.devices:,} × {part.device.name} alone", alone.step_s))
    table = _table("left", "right", "right")
    for name, seconds in rows:
        ratio = change(seconds / found.plan.step_s) if found.plan else ""
        table.add_row(Text(name, "dim"), step(seconds), ratio)
    if found.plan is None:
        return _section(title, Text("no plan fits whose stages lie each in one part"), table)
    advice = "a part alone is faster" if found.best_alone else ""
    content = (_headline(found.plan, advice), stages(found.plan, task=task), Text(), table)
    return _section(title, *content)


def assignment(found: Assignment) -> Group:
    """Give the order of nodes with which a plan is fastest over measured links."""
    order = ", ".join(str(node) for node in found.order[:_LONG])
    order += ", …" if len(found.order) > _LONG else ""
    table = _table("left", "right", "right")
    for name, seconds in (("in this order", found.plan.step_s), ("as numbered", found.as_is_s),
                          ("at random", found.random_s)):  # fmt: skip
        table.add_row(Text(name, "dim"), step(seconds), change(seconds / found.plan.step_s))
    how = "the best of all orders" if found.exact else "exchanged as long as that helped"
    return _section(
        "nodes over measured links",
        _headline(found.plan, ""),
        Text(f"start ranks on nodes {order}"),
        Text(how, "dim"),
        table,
    )


def survivors(found: Sequence[Survivors]) -> Group:
    """Give what to go on with for each number of devices that are left."""
    table = _table("right", "right", "right", "right", "right", "left")
    heads = ("left", "working", "spare", "step", "tokens/s", "plan")
    table.add_row(*(Text(word, style="dim") for word in heads))
    first = found[0].best
    all_, known = tokens_per_s(first), first.row if first else None
    for one in found:
        if one.best is None:
            table.add_row(f"{one.devices:,}", "", "", "", "", Text("no plan fits", "dim"))
            continue
        table.add_row(
            f"{one.devices:,}", f"{one.best.task.devices:,}", f"{one.spares:,}",
            step(one.best.step_s), f"{tokens_per_s(one.best) / all_:.0%}",
            Text(line(one.best.row, beside=known), "dim"),
        )  # fmt: skip
        if one.other is not None:
            rate = f"{tokens_per_s(one.other) / all_:.0%}"
            text = f"with {one.other.task.sequences:,} sequences a step: {line(one.other.row)}"
            table.add_row("", f"{one.other.task.devices:,}", "", step(one.other.step_s), rate,
                          Text(text, "yellow"))  # fmt: skip
    note = Text("a step keeps its sequences, but where it says otherwise", "dim")
    return _section("when devices fail", table, note)


def confirmed(found: Sequence[Confirmed]) -> Group:
    """Give what the simulator makes of the best plans that run today."""
    title = "confirmed by simulation: the best plans that run today"
    if not found:
        return _section(title, Text("there is none to simulate"))
    best = found[0]
    table = _table("right", "right", "right", "left")
    table.add_row(*(Text(word, style="dim") for word in ("simulated", "", "estimate", "")))
    for one in found:
        table.add_row(
            step(one.step_s), change(one.step_s / best.step_s), change(1 + one.error),
            line(one.estimated.row, beside=None if one is best else best.estimated.row),
        )  # fmt: skip
    return _section(title, table)


def overtaken(found: Sequence[Confirmed], running: Plan) -> tuple[str, ...]:
    """Say so where another plan is fastest when played than the one that the estimate has first.

    Args:
        found: The plans that were played, the fastest first.
        running: The best of those that run today, as estimated.
    """
    if not found or found[0].plan == running:
        return ()
    own = next((one for one in found if one.plan == running), None)
    beside = f" instead of {step(own.step_s)}" if own else ""
    words = line(found[0].estimated.row)
    return (f"simulated, another is faster, {step(found[0].step_s)}{beside}: {words}",)


def stages(plan: Staged, *, task: Task | None = None) -> Table:
    """Give what each pipeline rank has and takes, ranks that are alike in one line."""
    table = _table("right", "right", "left", "right", "right", "left")
    heads = ("stage", "layers", "run again", "micro-batch", "memory", "")
    table.add_row(*(Text(word, style="dim") for word in heads))
    rows = [_cells(plan, rank, task) for rank in range(len(plan.wires.parts))]
    first = 0
    for cells, alike in groupby(rows):
        stop = first + len([*alike])
        number = f"{first}" if stop == first + 1 else f"{first}–{stop - 1}"
        table.add_row(number, *cells)
        first = stop
    return table


def _cells(plan: Staged, rank: int, task: Task | None) -> tuple[str, ...]:
    ways = plan.share.layers[rank].sum(-1)
    again = [f"{n:g} {RECOMPUTES[way]}" for way, n in enumerate(ways) if way and n]
    if other := plan.share.other[rank]:
        again.append(f"{other:g} by another ZeRO stage")
    part = plan.wires.parts[rank]
    where = task.cluster.parts[part].device.name if task and part >= 0 else ""
    seconds, limit = plan.cost.load.total_s[rank], plan.limit_bytes[rank]
    held = f"{show_bytes(plan.memory_bytes[rank])} of {show_bytes(limit)}"
    return f"{ways.sum():.3g}", ", ".join(again) or "none", step(float(seconds)), held, where


def _headline(plan: Staged, advice: str) -> Text:
    text = Text(f"{step(plan.step_s)} a step", "bold")
    text.append(f"  {advice}" if advice else "", "bold yellow")
    return text.append(f"\n{_words(plan.plan)}", "not bold")


def _words(plan: Plan) -> str:
    words = plan.words
    found = [f"{n}={getattr(words, n)}" for n in ("pp", "dp", "cp", "tp", "ep")
             if getattr(words, n) > 1]  # fmt: skip
    found += [f"zero={words.zero}", f"schedule={plan.pipeline.schedule}"]
    return " ".join([*found, f"micro_batch={plan.batch.micro_batch}"])


def _section(title: str, *content: RenderableType) -> Group:
    return Group(Text(), Text(title, style="bold"), Padding(Group(*content), (0, 0, 0, 2)))


def _table(*columns: Literal["left", "right"]) -> Table:
    """Give an empty table; only the last column may be broken into lines."""
    table = Table.grid(padding=(0, 2))
    for i, justify in enumerate(columns, 1):
        table.add_column(justify=justify, no_wrap=i < len(columns), overflow="fold")
    return table
