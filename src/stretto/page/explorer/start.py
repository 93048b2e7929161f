"""Where exploring starts: the plan and the cluster of a page, and how far one can go from them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from stretto.cluster import LEVELS, Cluster, Level, find
from stretto.cost import Machine, Stack, stack, stacks
from stretto.errors import ClusterError
from stretto.model import Model
from stretto.page.subject import Subject
from stretto.plan import Plan
from stretto.presets import PRESETS
from stretto.search import OBJECTIVES, Objective

Links = Literal["between", "within", "all"]
"""Which links a change of the network is of: those between nodes, those within them, or all."""

MOST_DEVICES = 2**16
MOST_POSITIONS = 2**20
MOST_SEQUENCES = 2**20
MOST_TOKENS = 2**30
"""Of a step: more than anybody trains on at once."""
MOST_TIMES = 64.0
"""That the network is faster, or slower."""

_DOUBLINGS = 7
_LEAST_POSITIONS = 128


@dataclass(frozen=True, slots=True)
class Start:
    """What exploring starts from; two that are equal give equal answers.

    Attributes:
        model: What is trained.
        plan: The plan of the page.
        cluster: What it is for.
        system: What the cluster is a part of; itself, if it is all that there is.
        preset: Whether ``stretto plan`` knows the system by its name.
        word: The model as ``stretto plan`` takes it.
        software: The constants of `stack`.
        stack: The software with which plans are priced.
    """

    model: Model
    plan: Plan
    cluster: Cluster
    system: Cluster
    preset: bool
    word: str
    software: tuple[float, ...]
    stack: Stack = field(compare=False)

    @staticmethod
    def of(subject: Subject) -> Start:
        """Give what the page of a subject starts from."""
        model, plan, software = subject.model, subject.plan, subject.stack
        cluster, ranks = subject.cluster, subject.plan.mesh.size
        cluster = cluster if cluster.devices == ranks else cluster.at(ranks)
        whole, word = _system(cluster), _word(model, subject.run)
        return Start(
            model,
            plan,
            cluster,
            whole or cluster,
            whole is not None,
            word,
            _constants(software),
            software,
        )

    @property
    def devices(self) -> tuple[int, ...]:
        """Numbers of devices to choose from."""
        most = min(self.system.devices, MOST_DEVICES)
        return _steps(self.cluster.devices, least=1, most=most)

    @property
    def sequences(self) -> tuple[int, ...]:
        """Sequences of a step to choose from."""
        batch = self.plan.batch
        most = min(MOST_SEQUENCES, MOST_TOKENS // batch.seq)
        return _steps(batch.sequences, least=1, most=most)

    @property
    def most_positions(self) -> int:
        """The most positions that a sequence can have."""
        return self.model.positions if self.model.rope is None else MOST_POSITIONS

    @property
    def seqs(self) -> tuple[int, ...]:
        """Positions of a sequence to choose from."""
        seq = self.plan.batch.seq
        return _steps(seq, least=min(seq, _LEAST_POSITIONS), most=self.most_positions)

    @property
    def links(self) -> tuple[Links, ...]:
        """The links whose speed can be chosen, those that most depends on first."""
        names = [level.name for level in self.system.levels]
        found: list[Links] = []
        if any(_outside(name) for name in names):
            found.append("between")
        if not all(_outside(name) for name in names):
            found.append("within")
        return (*found, "all") if len(found) == len(get_args(Links)) - 1 else tuple(found)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What can be best: nothing costs what has no price."""
        machine = Machine.of(self.cluster)
        lacking = {"cost": machine.price_per_s, "energy": machine.compute_w}
        return tuple(name for name in OBJECTIVES if np.all(lacking.get(name, 1.0)))

    @property
    def notes(self) -> Iterator[str]:
        """What to know of all answers."""
        if len(self.cluster.parts) > 1:
            yield (
                "devices are unlike, and all are taken for the slowest here: stretto plan sizes "
                "stages to each part"
            )
        if self.cluster.links:
            yield (
                "links were measured, and all are taken for what data sheets say here: stretto "
                "plan puts nodes in the order that is fastest"
            )
        if self.precision is None:
            yield f"stretto plan knows no precision {self.plan.numerics.dtype}"
        if self.generation is None:
            yield "stretto plan prices with other software: its seconds differ"

    @property
    def precision(self) -> str | None:
        """The precision as ``stretto plan`` takes it; None if it does not."""
        numerics = self.plan.numerics
        word = numerics.dtype if numerics.matrix == "same" else numerics.matrix
        return None if word == "float64" else word

    @property
    def generation(self) -> str | None:
        """The name of the software; None where it has none."""
        return _generations().get(self.software)


def linked(cluster: Cluster, times: float, *, links: Links) -> Cluster:
    """Give a cluster whose links are so many times as fast.

    Args:
        cluster: The cluster.
        times: How much faster; below 1, slower.
        links: Which.
    """

    def meant(name: str) -> bool:
        return links == "all" or (links == "between") == _outside(name)

    def faster(levels: tuple[Level, ...]) -> tuple[Level, ...]:
        return tuple(
            replace(level, bytes_per_s=times * level.bytes_per_s) if meant(level.name) else level
            for level in levels
        )

    parts = tuple(replace(part, levels=faster(part.levels)) for part in cluster.parts)
    return replace(cluster, parts=parts, levels=faster(cluster.levels))


def _outside(level: str) -> bool:
    return LEVELS.index(level) > LEVELS.index("node")


def _word(model: Model, run: Path | None) -> str:
    if PRESETS.get(model.name) == model:
        return model.name
    return shlex.quote(str(run)) if run is not None else "config.json"


@lru_cache(maxsize=8)  # all presets are read to find one
def _system(cluster: Cluster) -> Cluster | None:
    """Give the preset that a cluster is a part of: a system, or any number of accelerators."""
    for whole in (
        _attempt(lambda: find(cluster.name)),
        _attempt(lambda: find(cluster.name, devices=MOST_DEVICES)),
    ):
        if whole is not None and whole.at(cluster.devices) == cluster:
            return whole
    return None


def _attempt(named: Callable[[], Cluster]) -> Cluster | None:
    try:
        return named()
    except ClusterError:
        return None


@cache
def _generations() -> Mapping[tuple[float, ...], str]:
    """Give the name of each generation of software, by its constants."""
    return {_constants(stack(name)): name for name in stacks.names()}


def _constants(software: Stack) -> tuple[float, ...]:
    return tuple(float(getattr(software, f.name)) for f in fields(Stack))


def _steps(start: int, *, least: int, most: int) -> tuple[int, ...]:
    """Give whole numbers, each twice the one before, of which `start` is one."""
    down = [start // 2**i for i in range(_DOUBLINGS, 0, -1) if start % 2**i == 0]
    up = [start * 2**i for i in range(_DOUBLINGS + 1)]
    return tuple(n for n in (*down, *up) if least <= n <= most or n == start)
