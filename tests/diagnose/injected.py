"""Steps as they might have been measured: played with noise, and with one thing wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from tests.simulate.toy import cluster as toy
from tests.simulate.toy import modern

from stretto.cluster import Cluster, find
from stretto.cost.stack import Stack
from stretto.mesh import Mesh
from stretto.plan import Batch, Numerics, Pipeline, Plan
from stretto.presets import preset
from stretto.program.draw import draw
from stretto.program.instruction import Program
from stretto.program.lower import lower
from stretto.simulate import Fault
from stretto.simulate.graph import Graph, graph
from stretto.simulate.play import play
from stretto.simulate.site import Site
from stretto.simulate.timeline import timeline
from stretto.timeline import KINDS, Timeline
from stretto.timeline.rows import after_vote
from stretto.timeline.value import Floats


@dataclass(frozen=True)
class Scene:
    """What is run, where, and with what."""

    name: str
    program: Program
    cluster: Cluster
    stack: Stack

    @cached_property
    def size(self) -> int:
        return self.program.placement.mesh.size

    @cached_property
    def mesh(self) -> Mesh:
        return self.program.placement.mesh


class _Apart(Site):
    """Every rank is played, for each is off by chance in its own way."""

    @cached_property
    def marks(self) -> list[Any]:
        return [*range(self.program.placement.mesh.size)]


@dataclass(frozen=True)
class Slow:
    """Instructions of a rank that take longer, so many times; a message does so for all in it."""

    rank: int
    times: dict[int, float]


@dataclass(frozen=True)
class Pause:
    """Ranks that do nothing for a while between two steps."""

    ranks: tuple[int, ...]
    kind: Literal["data", "host"]
    seconds: float


def measured(
    scene: Scene,
    *,
    seed: int,
    noise: float,
    faults: Sequence[Fault] = (),
    slow: Sequence[Slow] = (),
    pause: Pause | None = None,
) -> Timeline:
    """Play a step in which everything takes a little more or less, each in its own way.

    What is delayed delays others: nothing is changed after it was played but for the rows of a
    pause, which a simulated step has not.
    """
    whole = graph(_Apart(scene.program, scene.cluster, scene.stack, tuple(faults)))
    random = np.random.default_rng(seed)
    whole = replace(
        whole, work_s=whole.work_s * np.exp(noise * random.standard_normal(len(whole.work_s)))
    )
    for one in slow:
        player = next(p for p in whole.players if p.ranks == (one.rank,))
        for task, instruction in enumerate(player.tasks.instruction):
            whole.work_s[player.place[task]] *= one.times.get(instruction, 1.0)
    if pause is None:
        return _line(whole, scene)
    count = len(whole.device)
    whole = _paused(whole, pause)
    return _with_rows(_line(whole, scene), pause, *_played(whole, scene), count)


def _played(whole: Graph, scene: Scene) -> tuple[Floats, Floats]:
    return play(whole, contention=float(scene.stack.contention))


def _line(whole: Graph, scene: Scene) -> Timeline:
    return timeline(whole, *_played(whole, scene), straggle=0.0, waits=())


def _paused(whole: Graph, pause: Pause) -> Graph:
    """Let some ranks pause between what follows their vote and the rest: nothing runs beside it."""
    count, port = len(whole.device), whole.ports
    ends, before, after = list(whole.ends), [whole.before], [whole.after]
    for i, rank in enumerate(pause.ranks):
        number = next(n for n, p in enumerate(whole.players) if p.ranks == (rank,))
        place, tasks = whole.players[number].place, whole.players[number].tasks
        voted = after_vote(tasks.stage)
        earlier = [place[t] for t, at in enumerate(tasks.instruction) if at >= voted]
        later = [place[t] for t, at in enumerate(tasks.instruction) if at < voted]
        earlier = [t for t in earlier if whole.device[t] >= 0]
        ends.append(((number, port, port),))
        before += [np.array(earlier, dtype=np.int64), np.full(len(later), count + i)]
        after += [np.full(len(earlier), count + i), np.array(later, dtype=np.int64)]
    more = len(pause.ranks)
    return replace(
        whole,
        device=np.append(whole.device, np.full(more, -1)),
        work_s=np.append(whole.work_s, np.full(more, pause.seconds)),
        floor_s=np.append(whole.floor_s, np.zeros(more)),
        hides=np.append(whole.hides, np.zeros(more)),
        ends=ends,
        before=np.concatenate(before),
        after=np.concatenate(after),
        ports=port + 1,
    )


def _with_rows(line: Timeline, pause: Pause, begun: Floats, done: Floats, count: int) -> Timeline:
    """Give a timeline with a row for each pause, before the others of its rank."""
    number = {ranks[0]: i for i, ranks in enumerate(line.alike)}
    player = np.array([number[rank] for rank in pause.ranks])
    more = len(player)
    order = np.lexsort((np.arange(more + len(line.kind)) >= more, np.append(player, line.player)))
    place = np.empty(len(order) + 1, dtype=np.int64)
    place[order], place[-1] = np.arange(len(order)), -1
    cause = place[np.append(np.full(more, -1), np.where(line.cause < 0, -1, line.cause + more))]

    def column(new: Any, old: Any) -> Any:
        return np.append(np.broadcast_to(new, more), old)[order]

    return replace(
        line,
        player=column(player, line.player),
        instruction=column(-1, line.instruction),
        kind=column(KINDS.index(pause.kind), line.kind),
        stream=column(0, line.stream),
        start_s=column(begun[count:], line.start_s),
        stop_s=column(done[count:], line.stop_s),
        work_s=column(done[count:] - begun[count:], line.work_s),
        sent_bytes=column(0, line.sent_bytes),
        cause=cause[order],
    )


# ── scenes ───────────────────────────────────────────────────────────────────────────────────────

REALISTIC: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("llama-3-8b", "dgx-h100", 16, {"pp": 2, "dp": 4, "tp": 2}),
    ("llama-3.1-8b", "dgx-h100", 32, {"pp": 4, "dp": 2, "tp": 4}),
    ("llama-3.1-8b", "dgx-h100", 32, {"dp": 8, "tp": 4, "zero": 3, "shard": 2}),
    ("llama-3-8b", "ethernet", 32, {"pp": 4, "dp": 8}),
    ("gpt2-medium", "ethernet", 16, {"pp": 2, "dp": 4, "tp": 2}),
    ("smollm2-135m", "a100-80gb", 16, {"dp": 16, "zero": 1, "shard": 4}),
    ("llama-2-7b", "a100-80gb", 32, {"pp": 4, "dp": 4, "tp": 2, "sequence": True}),
)
"""Model, cluster, devices, plan."""


def realistic(index: int) -> Scene:
    """Give a plan as people run them, of a few layers."""
    name, where, devices, words = REALISTIC[index % len(REALISTIC)]
    model = replace(preset(name), layers=4)
    dp = words.get("dp", 1)
    plan = Plan.of(
        **({"pp": 1, "dp": 1, "tp": 1, "zero": 0} | words),
        pipeline=Pipeline("1f1b"),
        numerics=Numerics("bfloat16"),
        batch=Batch(dp * 4, 1, 1024),
    )
    cluster = find(where, devices=devices)
    return Scene(f"{name} on {where}x{devices}", lower(model, plan), cluster, modern())


def drawn(seed: int) -> Scene:
    """Give a random small plan on a cluster with numbers for which it takes a while."""
    model, plan = draw(seed)
    program = lower(model, plan)
    size = program.placement.mesh.size
    return Scene(f"draw {seed}", program, toy(size, node=2 + seed % 3), modern())
