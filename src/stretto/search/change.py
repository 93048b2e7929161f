"""What would be if: more or faster hardware, another batch, and what would make a plan fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from stretto.cluster import LEVELS, Cluster, Level
from stretto.search.found import Found
from stretto.search.options import Options
from stretto.search.search import search
from stretto.search.task import RECOMPUTES, Task

_MOST = 10  # doublings of what there is
_LEAST_POSITIONS = 256
_LOOKED_AT = 8
_FULL = RECOMPUTES.index("full")
_SPARING = Options(
    zero=(3, 0), regather=(1,), recompute=(_FULL,), recompute_layers=(0,),
    micro_batch=(1,), tensor_overlap=(0,), order=(0,),
)  # fmt: skip
"""What takes little memory: to tell quickly whether anything fits."""


@dataclass(frozen=True, slots=True)
class Change:
    """A task that differs in one thing, and what a search for it found.

    Attributes:
        what: What differs.
        found: What was found.
    """

    what: str
    found: Found

    def speedup(self, before: Found) -> float:
        """Give the tokens of a second over those of `before`; 0 where no plan can be."""
        after = self.found
        assert before.best is not None, "a change is of something"
        rate = before.task.tokens / before.best.step_s
        return after.task.tokens / after.best.step_s / rate if after.best else 0.0


def sensitivity(found: Found) -> tuple[Change, ...]:
    """Give what twice the network, memory, devices or batch would bring.

    Each is searched with what the best plans of all kinds chose, so that it brings this much at
    least.
    """
    task, cluster = found.task, found.task.cluster
    changes: list[tuple[str, Task]] = []
    if cluster.nodes > 1:
        changes.append(("2 × bandwidth between nodes", task.on(_linked(cluster, within=False))))
    if cluster.per_node > 1:
        changes.append(("2 × bandwidth within nodes", task.on(_linked(cluster, within=True))))
    changes.append(("2 × device memory", task.on(_larger(cluster))))
    if (twice := task.sized(2 * cluster.devices)) is not None:
        changes.append(("2 × devices", twice))
    changes.append(("2 × batch", replace(task, sequences=2 * task.sequences)))
    options = narrowed(found)
    return tuple(Change(what, _again(found, other, options)) for what, other in changes)


def fleets(found: Found, *, options: Options | None = None) -> tuple[Change, ...]:
    """Give what all devices do, half of them, a quarter and so on, while a plan can be.

    Args:
        found: What all do.
        options: What to try for fewer; None for what the best plans of all chose, and full
            recomputation.
    """
    kept = [Change(f"{found.task.devices} devices", found)]
    if options is None:
        chosen = narrowed(found)
        options = replace(chosen, recompute=tuple({*chosen.recompute, _FULL}))
    while kept[-1].found.best is not None and kept[-1].found.task.devices % 2 == 0:
        half = found.task.on(found.task.cluster.at(kept[-1].found.task.devices // 2))
        kept.append(Change(f"{half.devices} devices", _again(found, half, options)))
    return tuple(change for change in kept if change.found.best is not None)


def rescues(found: Found) -> tuple[Change, ...]:
    """Give what would make a plan fit where none does: the least of each kind that would.

    More devices are told twice where the host's memory was tried: without it, and with it.
    """
    task, options = found.task, found.options
    if found.least is not None and found.least.estimate.fits and not _speedy(found):
        return ()
    plain = replace(options, offload=(0.0,), optimizer_offload=(0.0,))
    some = {*options.offload, *options.optimizer_offload} - {0.0}
    sizes = [t for i in range(1, _MOST) if (t := task.sized(task.devices * 2**i)) is not None]
    more = [(f"{t.devices:,} devices", t) for t in sizes]
    hosted = [(f"{what} and the host's memory", t) for what, t in more]
    shorter = [
        (f"sequences of {task.seq // n:,} positions", _shorter(task, n))
        for n in (2**i for i in range(1, _MOST))
        if task.seq % n == 0 and task.seq // n >= _LEAST_POSITIONS
    ]
    helped = [*_first(found, more, plain)]
    if some:
        fewest = min((change.found.task.devices for change in helped), default=math.inf)
        hosts = _first(found, [(what, t) for what, t in hosted if t.devices < fewest], options)
        helped += hosts
    return (*helped, *_first(found, shorter, options))


def _speedy(found: Found) -> bool:
    """Tell whether all that is demanded of what a plan takes is speed, which devices bring."""
    return all(c.key == "time" for c in found.constraints if not c.before)


def narrowed(found: Found) -> Options:
    """Give the options that the best plans of several families and meshes chose."""
    places = [*found.family_firsts[:_LOOKED_AT], *found.mesh_firsts[:_LOOKED_AT]]
    rows, options = found.candidates.rows(places), found.options
    kept = {
        name: tuple(v for v in getattr(options, name) if v in getattr(rows, name))
        for name in ("order", "zero", "regather", "schedule", "recompute", "tensor_overlap")
    }
    return replace(options, **kept)


def _again(found: Found, task: Task, options: Options) -> Found:
    return search(task, options=options, constraints=found.constraints, objective=found.objective)


def _first(found: Found, tasks: Iterable[tuple[str, Task]], options: Options) -> Iterator[Change]:
    """Give the first task for which a plan fits."""
    shares = {name: (max(getattr(options, name)),) for name in ("offload", "optimizer_offload")}
    for what, task in tasks:
        if len(_again(found, task, replace(_SPARING, **shares)).candidates):
            yield Change(what, _again(found, task, options))
            return


def _shorter(task: Task, times: int) -> Task:
    return replace(task, seq=task.seq // times, sequences=task.sequences * times)


def _linked(cluster: Cluster, *, within: bool) -> Cluster:
    """Give a cluster with twice the bandwidth within its nodes, or between them."""

    def faster(levels: Iterable[Level]) -> tuple[Level, ...]:
        return tuple(
            replace(level, bytes_per_s=2 * level.bytes_per_s)
            if (LEVELS.index(level.name) <= LEVELS.index("node")) == within
            else level
            for level in levels
        )

    parts = tuple(replace(part, levels=faster(part.levels)) for part in cluster.parts)
    return replace(cluster, parts=parts, levels=faster(cluster.levels))


def _larger(cluster: Cluster) -> Cluster:
    """Give a cluster with twice the memory on every device."""
    parts = tuple(
        replace(part, device=replace(part.device, memory_bytes=2 * part.device.memory_bytes))
        for part in cluster.parts
    )
    return replace(cluster, parts=parts)
