"""Stages of unlike size: where the ends weigh much, and where devices are not alike.

A cluster of several parts, with devices or networks of their own and slow links between, is given a
pipeline whose stages never straddle parts: data and tensors are exchanged within, and only
activations cross (Yang et al., 2023). Stages are sized to the speed and the memory of their
devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stretto.cost import SCHEDULES
from stretto.search.candidates import Priced
from stretto.search.constraint import Constraint
from stretto.search.found import Found
from stretto.search.frame import Frame
from stretto.search.layerwise import better, fastest, fastest_meshes, same
from stretto.search.options import Options
from stretto.search.search import search
from stretto.search.split import split
from stretto.search.staged import Staged, priced

_SCHEDULES = tuple(float(SCHEDULES.index(name)) for name in ("1f1b", "zb-1p"))
"""Of pipelines whose stages may be of any size, and whose ranks exchange with neighbours only."""

_LOOKED_AT = 32  # meshes that would be fastest if all devices were of a part's kind, for each
_TRIED = 96  # of them


def uneven(plan: Priced) -> Staged:
    """Give a plan with its stages cut where it is fastest; as it is where ranks have several."""
    task = plan.task
    as_is = priced(plan.plan, task.model, cluster=task.cluster, stack=task.stack)
    frame = Frame(task, plan.row)
    if not frame.free:
        return as_is
    best = split(frame, mix=same(frame))
    return better(as_is, best.priced()) if best else as_is


@dataclass(frozen=True)
class Across:
    """Plans for a cluster of several parts.

    Attributes:
        plan: The fastest whose stages lie each in one part; None if none fits.
        alike: The best of a search that takes all devices for the slowest and all links for the
            slow ones, with what it takes on the devices that there are; None if none fits.
        alone: The best on each part alone; None where none fits.
    """

    plan: Staged | None
    alike: Staged | None
    alone: tuple[Priced | None, ...]

    @property
    def best_alone(self) -> bool:
        """Whether a part alone is faster than all of them."""
        alone = [one.step_s for one in self.alone if one is not None]
        return min(alone, default=np.inf) < (self.plan.step_s if self.plan else np.inf)


def across(found: Found) -> Across:
    """Give the best plan over the parts of a cluster, and what it is to be compared with.

    Args:
        found: A search on the whole cluster, as if all its devices were the slowest.
    """
    task = found.task
    frames = sorted(_frames(found), key=lambda frame: frame.least_s)[:_TRIED]
    splits = [*fastest(frames, below_s=np.inf)]
    alike = found.best.plan if found.best else None
    return Across(
        splits[-1].priced() if splits else None,
        priced(alike, task.model, cluster=task.cluster, stack=task.stack) if alike else None,
        tuple(_alone(found)),
    )


def _alone(found: Found) -> Iterator[Priced | None]:
    task = found.task
    for i in range(len(task.cluster.parts)):
        part = task.on(task.cluster.part(i))
        yield search(part, constraints=found.constraints, objective=found.objective).best


def _frames(found: Found) -> Iterator[Frame]:
    """Give the plans that would be fastest if all devices were of a part's kind, for each."""
    task, cluster = found.task, found.task.cluster
    within = math.gcd(*(part.devices for part in cluster.parts))
    ranks = [cluster.devices // d for d in range(1, within + 1) if within % d == 0]
    whole = Constraint("pp", "=", tuple(map(float, ranks)), "stages within parts")
    for i in range(len(cluster.parts)):
        proxy = task.on(cluster.part(i).at(cluster.devices))
        like = search(
            proxy,
            options=Options(order=(0,), schedule=_SCHEDULES),
            constraints=(*found.constraints, whole),
        )
        for row in fastest_meshes(like, most=_LOOKED_AT):
            yield Frame(task, row)
