"""The head of a search for a plan: what was asked, the plan, and what to know of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Group
from rich.text import Text

from stretto.cluster import Cluster
from stretto.report.quantities import change, counted, step
from stretto.search import MEMORY_ERROR, ORDERS, Answer, Found, Priced, line
from stretto.units import show_count

_ROOMY = 1 - MEMORY_ERROR  # of a device's memory


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


def caveats(answer: Answer) -> Iterator[Text]:
    """Give what to know of how the plan was chosen."""
    demanded = {c.key for c in answer.found.constraints}
    if max(answer.found.options.offload) > 0 and not demanded & {"offload", "optimizer_offload"}:
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
