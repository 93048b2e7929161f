"""One thing that is wrong with a step, of random kind, place and size, and how it must be named.

What is drawn can be told in principle: it changes a step without noise by two hundredths or more,
and there is something to compare it with. The least that is drawn: ranks that are slow 1.2 times,
computes that are slow 1.3 times while memory is full, links that carry 1.5 times less, numbers that
are wrong 1.25 times, waits of 0.05 of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
from tests.diagnose.injected import Pause, Scene, Slow, drawn, measured, realistic

from stretto.cluster import Cluster, Device
from stretto.cost.instruction import level_of, messages
from stretto.cost.machine import Machine
from stretto.diagnose.finding import Cause, Finding
from stretto.program.instruction import Compute
from stretto.program.memory import memory
from stretto.simulate import SlowLink, SlowRank, simulate
from stretto.timeline import Timeline
from stretto.timeline.recorded import Counters, Recording

CHANGES = 0.02
"""By how much of a step without noise whatever is wrong changes it at least."""


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a step.

    Attributes:
        scene: What was predicted.
        cause: Of which kind; None if nothing is wrong.
        named: Whether a finding names it.
        told: What it is, for people.
        how: How the step is played.
        really: The cluster as it really is.
        pressed: The rank that has too little memory.
    """

    scene: Scene
    cause: Cause | None
    named: Callable[[Finding], bool] = lambda _: False
    told: str = "nothing"
    how: Mapping[str, Any] = field(default_factory=dict)
    really: Cluster | None = None
    pressed: int | None = None

    def play(self, *, seed: int, noise: float) -> Timeline:
        """Give the step as it was measured."""
        scene = replace(self.scene, cluster=self.really or self.scene.cluster)
        return measured(scene, seed=seed, noise=noise, **self.how)

    def predicted(self) -> Timeline:
        """Give the step as it was predicted."""
        scene = self.scene
        return simulate(scene.program, scene.cluster, stack=scene.stack)

    def recording(self, line: Timeline, *, seed: int) -> Recording:
        """Give what else was recorded of a step: memory, and faults that some ranks count."""
        program, random = self.scene.program, np.random.default_rng(seed)
        held = [np.array(memory(s, program.placement).held_bytes) for s in program.stages]
        stage = np.array([program.of(rank).stage for rank in line.rank.tolist()])
        memory_bytes = np.zeros(len(line.kind), dtype=np.int64)
        for number, held_bytes in enumerate(held):
            rows = np.flatnonzero((stage == number) & (line.instruction >= 0))
            memory_bytes[rows] = held_bytes[line.instruction[rows]]
        counters = tuple(
            Counters(rank, f"h{rank // self.scene.cluster.per_node}",
                     int(random.poisson(2)) + 200 * (rank == self.pressed), 1000, 0, 0.0, 0.0)
            for rank in range(self.scene.size)
        )  # fmt: skip
        return Recording(5, line, memory_bytes, np.zeros(self.scene.size, dtype=np.int64), counters)


KINDS: tuple[str, ...] = ("nothing", "rank", "link", "data", "memory", "constant", "host")


def wrong(kind: str, seed: int) -> Wrong:
    """Draw what is wrong with a step."""
    random = Random(f"{kind} {seed}")
    draw = {
        "nothing": lambda scene, _: Wrong(scene, None), "rank": _rank, "link": _link,
        "data": _wait, "memory": _memory, "constant": _constant, "host": _host,
    }[kind]  # fmt: skip
    while True:
        scene = realistic(random.randrange(100)) if random.random() < 0.5 else drawn(
            random.randrange(400)
        )  # fmt: skip
        found = draw(scene, random) if scene.size >= 4 else None
        if found is None:
            continue
        if kind == "nothing" or _changes(found):
            return found


def _changes(found: Wrong) -> bool:
    before = found.predicted().step_s
    return abs(found.play(seed=0, noise=0.0).step_s - before) > CHANGES * before


def _alike(scene: Scene) -> bool:
    """Say whether every rank has others that do the same."""
    return scene.size > len(scene.program.stages)


def _rank(scene: Scene, random: Random) -> Wrong | None:
    rank, factor = random.randrange(scene.size), random.uniform(1.2, 2)
    return Wrong(
        scene, Cause.SLOW_RANK, lambda f: f.ranks == (rank,), f"rank {rank} {factor:.2f}×",
        {"faults": (SlowRank(rank, factor),)},
    ) if _alike(scene) else None  # fmt: skip


def _wait(scene: Scene, random: Random, *, kind: str = "data") -> Wrong:
    everyone = tuple(range(scene.size))
    ranks = everyone if random.random() < 0.5 else (random.randrange(scene.size),)
    step_s = simulate(scene.program, scene.cluster, stack=scene.stack).step_s
    seconds = random.uniform(0.05, 0.3) * step_s
    cause = Cause.DATA_WAIT if kind == "data" else Cause.HOST
    return Wrong(
        scene, cause, lambda f: f.ranks == ranks, f"{kind} of {len(ranks)} {seconds / step_s:.0%}",
        {"pause": Pause(ranks, kind, seconds)},
    )  # fmt: skip


def _host(scene: Scene, random: Random) -> Wrong:
    return _wait(scene, random, kind="host")


def _memory(scene: Scene, random: Random) -> Wrong | None:
    rank, factor = random.randrange(scene.size), random.uniform(1.3, 4)
    stage = scene.program.of(rank)
    held = memory(stage, scene.program.placement).held_bytes
    computes = [i for i, x in enumerate(stage.instructions) if isinstance(x, Compute)]
    least, most = min(held[i] for i in computes), max(held[i] for i in computes)
    line = least + random.uniform(0.3, 0.8) * (most - least)
    slow = Slow(rank, {i: factor for i in computes if held[i] > line})
    return Wrong(
        scene, Cause.MEMORY_PRESSURE, lambda f: f.ranks == (rank,),
        f"memory of rank {rank} {factor:.2f}×", {"slow": (slow,)}, pressed=rank,
    ) if _alike(scene) else None  # fmt: skip


# ── links ────────────────────────────────────────────────────────────────────────────────────────

Talk = tuple[str, int, int, tuple[int, ...]]
"""Kind, number of ranks, index of the level that joins them, and the ranks of messages."""


def talks(scene: Scene) -> set[Talk]:
    """Give between whom messages go, but for votes."""
    machine, mesh, last = Machine.of(scene.cluster), scene.mesh, len(scene.cluster.levels) - 1
    found: set[Talk] = set()
    for stage in scene.program.stages:
        ranks = [r for r in range(scene.size) if scene.program.of(r) is stage]
        for x in stage.instructions:
            for m in messages(x, stage, scene.program):
                if m.kind == "send":
                    groups = {(r, mesh.shift(r, "pp", by=x.by)) for r in ranks}  # type: ignore[union-attr]
                elif m.kind == "vote":
                    continue
                else:
                    groups = {mesh.group(r, m.axes) for r in ranks}
                for g in groups:
                    if len(g) > 1:
                        level = min(level_of(g, machine), last)
                        found.add((str(m.kind), len(g), level, tuple(sorted(g))))
    return found


def _link(scene: Scene, random: Random) -> Wrong | None:
    talk = talks(scene)
    at = random.choice(sorted({level for _, _, level, _ in talk}) or [0])
    size = scene.cluster.levels[at - 1].devices if at else 1
    block = random.randrange(-(-scene.size // size))
    ranks = tuple(range(block * size, min(scene.size, (block + 1) * size)))
    there = [(kind, n, frozenset(g)) for kind, n, level, g in talk if level == at]
    hit = [x for x in there if x[2] & set(ranks)]
    missed = {x[:2] for x in there if not x[2] & set(ranks)}
    if not any(x[:2] in missed for x in hit):  # nothing to compare it with
        return None
    factor, level = random.uniform(1.5, 8), scene.cluster.levels[at].name
    groups = [g for _, _, g in there]
    return Wrong(
        scene, Cause.SLOW_LINK, lambda f: _names(f, set(ranks), groups, size),
        f"{size} ranks from {ranks[0]} into {level} {factor:.2f}×",
        {"faults": (SlowLink(ranks, level, factor),)},
    )  # fmt: skip


def _names(finding: Finding, ranks: set[int], groups: Sequence[frozenset[int]], size: int) -> bool:
    """Say whether a finding names the link of some ranks, as closely as their messages allow."""
    named = set(finding.ranks)
    if not (ranks <= named or named <= ranks):
        return False
    others = named - ranks
    if "–" in finding.where:  # all that uses the link goes to that other end
        return all(g & others for g in groups if g & ranks)
    blocks = {frozenset(r for r in named if r // size == b) for b in {r // size for r in others}}
    return all(g & ranks for b in blocks for g in groups if g & b)


# ── constants ────────────────────────────────────────────────────────────────────────────────────


def _constant(scene: Scene, random: Random) -> Wrong | None:
    """Let something take longer, or shorter, than the file says, everywhere."""
    times = random.uniform(1.25, 2.5)
    factor = times if random.random() < 0.5 else 1 / times
    options = [*_of_devices(scene, factor), *_of_links(scene, factor)]
    where, really = random.choice(options)
    return Wrong(
        scene, Cause.WRONG_CONSTANT, lambda f: f.where == where, f"{where} {factor:.2f}×",
        really=really,
    ) if really else None  # fmt: skip


def _of_devices(scene: Scene, factor: float) -> Iterator[tuple[str, Cluster | None]]:
    device, (part,) = scene.cluster.device, scene.cluster.parts

    def with_(device: Device) -> Cluster:
        return replace(scene.cluster, parts=(replace(part, device=device),))

    used = "bfloat16" if scene.program.plan.numerics.dtype == "bfloat16" else "float32"
    rates = tuple((n, e / factor if n == used else e) for n, e in device.efficiency)
    fits = all(e <= 1 for _, e in rates)
    yield f"efficiency.{used}", with_(replace(device, efficiency=rates)) if fits else None
    slower = replace(device, memory_bytes_per_s=device.memory_bytes_per_s / factor)
    yield "memory_bandwidth", with_(slower)


def _of_links(scene: Scene, factor: float) -> Iterator[tuple[str, Cluster]]:
    """Give the levels over which more than one pair of hosts talks, which may just be slow."""
    talk, levels = talks(scene), scene.cluster.levels
    for i, level in enumerate(levels):
        size = levels[i - 1].devices if i else 1
        pairs = {frozenset(r // size for r in g) for _, _, at, g in talk if at == i}
        if not pairs or (len(pairs) == 1 and len(next(iter(pairs))) == 2):
            continue
        thin = replace(level, bytes_per_s=level.bytes_per_s / factor)
        far = replace(level, latency_s=level.latency_s * factor)
        for name, other in (("one_way_bandwidth", thin), ("latency", far)):
            changed = (*levels[:i], other, *levels[i + 1 :])
            yield f"{level.name}.{name}", replace(scene.cluster, levels=changed)
