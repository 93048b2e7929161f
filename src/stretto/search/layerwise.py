"""Different choices for different layers: what runs again, what rests in shards, who has how many.

As Galvatron chooses for each layer under the memory of a device (Miao et al., 2022), by dynamic
programming; and, since ranks of a pipeline hold unlike numbers of micro-batches, together with
where its stages are cut (Sun et al., 2024).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from stretto.cost import Number, Pricing
from stretto.cost.step import step_time
from stretto.search.found import Found
from stretto.search.frame import Frame, Split
from stretto.search.mixture import mixtures
from stretto.search.row import Row, choice_of
from stretto.search.split import Content, Mix, split
from stretto.search.staged import Staged, priced

_LOOKED_AT = 2**15  # of the best plans, for meshes
_TRIED = 24  # meshes of each sort
_MESH = ("pp", "dp", "cp", "tp", "ep", "etp", "micro_batch", "schedule", "interleave")

OTHER_ZERO = ((2, 3), (2, 3), (1, 3), (1, 2))
"""By the plan's ZeRO stage, those that some of its layers may rest by."""


@dataclass(frozen=True)
class Layerwise:
    """A plan whose layers differ, beside the best whose do not.

    Attributes:
        uniform: The best plan of a search, priced rank by rank.
        best: The best with layers that differ; the same if none is better.
    """

    uniform: Staged
    best: Staged

    @property
    def speedup(self) -> float:
        """How many times as fast the best is."""
        return self.uniform.step_s / self.best.step_s


def layerwise(found: Found) -> Layerwise:
    """Give the best plan whose layers may differ: never worse than the best whose do not.

    The meshes are tried that are fastest, and those that would be if nothing had to run again.

    Args:
        found: A search that found a plan.
    """
    task = found.task
    assert found.best is not None, "a search that found no plan has nothing to differ from"
    uniform = priced(found.best.plan, task.model, cluster=task.cluster, stack=task.stack)
    free = not _names(found, "recompute", "recompute_layers")
    tried = [
        *fastest(_frames(found), below_s=uniform.step_s if uniform.fits else np.inf, free=free)
    ]
    best = better(uniform, tried[-1].priced()) if tried else uniform
    return Layerwise(uniform, best)


def fastest(frames: Iterable[Frame], *, below_s: float, free: bool = True) -> Iterator[Split]:
    """Give ever faster ways to share out layers, the fastest of all last.

    Args:
        frames: What else may be decided.
        below_s: Seconds of a step that the first must be below.
        free: Whether anything may run again; otherwise what the plan of a search does.
    """
    for frame in frames:
        if frame.least_s < below_s:
            found = split(frame, mix=mixed(frame) if free else same(frame))
            if found is not None and found.step_s < below_s:
                below_s = found.step_s
                yield found


def better(one: Staged, other: Staged) -> Staged:
    """Give the plan that fits, and of two the faster; the first of equals."""
    return min(one, other, key=lambda plan: (not plan.fits, plan.step_s))


def _frames(found: Found) -> Iterator[Frame]:
    for row in fastest_meshes(found, most=_TRIED):
        alone = row.dp * row.cp == 1 or _names(found, "zero")
        for zero in (None,) if alone else OTHER_ZERO[int(row.zero)]:
            yield Frame(found.task, row, zero)


def _names(found: Found, *keys: str) -> bool:
    """Tell whether a constraint names one of some decisions, which all layers then share."""
    return any(c.key in keys for c in found.constraints)


def mixed(frame: Frame) -> Mix:
    """Give all mixtures of what may run again."""
    known: dict[tuple[int, ...], Number] = {}

    def mix(kinds: Content) -> Number:
        counts = tuple(kinds.count(kind) for kind in range(len(frame.kinds)))
        if counts not in known:
            known[counts] = mixtures(counts, frame.pieces)
        return known[counts]

    return mix


def same(frame: Frame) -> Mix:
    """Give what the plan of a search runs again, whatever the layers."""
    way, some = int(frame.row.recompute), int(frame.row.recompute_layers)

    def mix(kinds: Content) -> Number:
        found = np.zeros((1, *frame.pieces.kept_bytes.shape))
        for place, kind in enumerate(kinds):
            found[0, way if some == 0 or place < some else 0, kind] += 1
        return found

    return mix


def fastest_meshes(found: Found, *, most: int) -> Iterator[Row]:
    """Give the plans of some meshes that are fastest, and that would be if nothing ran again."""
    task, rows = found.task, found.candidates.rows(found.order[:_LOOKED_AT])
    none = np.zeros_like(rows.recompute)
    bare = replace(rows, recompute=none, recompute_layers=none)
    p = Pricing(task.shape, choice_of(bare, task), task.machine, task.stack)
    would_be = np.argsort(step_time(p).total_s, kind="stable")
    meshes = np.stack([getattr(rows, name) for name in _MESH])
    firsts = []
    for order in (np.arange(len(would_be)), would_be):
        _, places = np.unique(meshes[:, order], axis=1, return_index=True)
        firsts += [int(place) for place in order[np.sort(places)[:most]]]
    for place in dict.fromkeys(firsts):
        yield rows.at(place)
