"""The answer to what is asked: the best plan, the front, the cloud, and where the page's own is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stretto.cost import Number, cost
from stretto.errors import InputError, Problem
from stretto.page.explorer.asked import Asked
from stretto.page.explorer.pins import DECISIONS, columns, constraints
from stretto.page.explorer.plans import Told, shares, short, told, told_one
from stretto.page.explorer.points import Points
from stretto.page.explorer.start import Start
from stretto.page.explorer.why import equals, gains, gives, longer, wins
from stretto.search import (
    Found,
    Options,
    family_name,
    fleets,
    nothing,
    search,
    search_with_host,
)

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Most:
    """How much is told at most.

    Attributes:
        front: Plans of the front that are told in full; the others are told as the cloud is.
        cloud: Other plans.
    """

    front: int
    cloud: int


LIVE = Most(front=32, cloud=1500)
STILL = Most(front=8, cloud=80)


def searched(start: Start, asked: Asked, *, options: Options | None = None) -> Found:
    """Give all plans for what is asked.

    Args:
        start: Where exploring starts.
        asked: What is asked.
        options: What to try; None for all that is sensible, and the host's memory where nothing
            fits without.

    Raises:
        InputError: No plan can do it.
    """
    task = asked.task(start)
    if options is None:
        return search_with_host(task, objective=asked.objective)
    return search(task, options=options, objective=asked.objective)


def explore(start: Start, asked: Asked, *, whole: Found, most: Most = LIVE) -> Tree:
    """Give the best plan for what is asked, and what else can be had for what, as JSON.

    With `objective` ``cost`` or ``energy``, half the devices, a quarter and so on are tried too, as
    ``stretto plan`` does.

    Args:
        start: Where exploring starts.
        asked: What is asked.
        whole: All plans for it: see `searched`.
        most: How much to tell.
    """
    head = _head(start, asked, whole)
    if whole.best is None:
        return head | {"problems": problems(nothing(whole))}
    return head | {"problems": []} | _Answer.of(start, asked, whole).tree(most)


def detail(start: Start, asked: Asked, *, plan: str) -> Tree:
    """Give a plan of the cloud in full.

    Args:
        start: Where exploring starts.
        asked: What is asked.
        plan: The numbers of its decisions, after its devices.

    Raises:
        InputError: They are no plan.
    """
    devices, _, numbers = plan.partition(",")
    own = Asked.read({**{k: str(v) for k, v in asked.tree.items()}, "devices": devices}, start)
    demands = constraints(numbers)
    found = search(own.task(start), constraints=demands)
    if found.best is None:
        raise InputError(nothing(found))
    (one,) = told(found.candidates.rows([0]), found.task)
    return {"plan": one.tree | {"command": own.command(start, *(c.text for c in demands))}}


def problems(found: Iterable[Problem]) -> list[Tree]:
    """Give problems as JSON."""
    return [{"field": p.field, "rule": p.rule, "remedy": p.remedy} for p in found]


def _head(start: Start, asked: Asked, found: Found) -> Tree:
    """Give what was asked, and how much was tried for it."""
    objective = () if asked.objective == "time" else (f"--objective {asked.objective}",)
    return {
        "asked": asked.tree,
        "tokens": asked.tokens,
        "tried": found.tried,
        "can_be": len(found.candidates),
        "search_s": short(found.search_s),
        "limit_bytes": float(found.task.machine.memory_bytes),
        "command": asked.command(start, *objective),
        "cluster_toml": asked.file(start),
        "host": max(found.options.offload) > 0,
    }


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer while it is put together.

    Attributes:
        start: Where exploring starts.
        asked: What is asked.
        points: All plans that can be.
        best: The best of them.
        running: The fastest on as many devices that runs today, if there is one.
    """

    start: Start
    asked: Asked
    points: Points
    best: int
    running: int | None

    @staticmethod
    def of(start: Start, asked: Asked, whole: Found) -> _Answer:
        """Give the answer of a search that found a plan."""
        founds = _sizes(whole)
        best = min(founds, key=_spent)
        points = Points.of(founds, asked.objective)
        return _Answer(start, asked, points, points.best(best), points.running(best))

    def tree(self, most: Most) -> Tree:
        """Give it as JSON; `front`, `best`, `running` and `here` are places in `plans`.

        What the front has beside these is in `cloud`, and its places there are its `front`.
        """
        whole = self.points.front()
        front = self.points.told(whole, most.front)
        front = [p for p in whole if p in {*front, self.best, self.running}]
        sides = zip([None, *whole[:-1]], [*whole[1:], None], strict=True)
        beside = dict(zip(whole, sides, strict=True))
        rivals = {point: self.points.rival(point) for point in front}
        shown = [*dict.fromkeys(p for p in (*front, self.best, self.running) if p is not None)]
        named = (*shown, *rivals.values(), *(p for point in front for p in beside[point]))
        full = self._told({p for p in named if p is not None})
        said = {point: self._beside(point, front, full) for point in shown}
        for point in front:
            said[point] = self._on_front(point, full, rivals[point], *beside[point])
        here = self._here(full[self.best])
        same = [i for i, p in enumerate(shown) if here and full[p].plan == self.start.plan]
        plans = [
            {**full[p].tree, **said[p], "command": self._command(p), "numbers": self._numbers(p)}
            for p in shown
        ]
        return {
            "plans": [*plans, *(here if not same else [])],
            "front": [*range(len(front))],
            "best": shown.index(self.best),
            "running": None if self.running is None else shown.index(self.running),
            "here": (same or [len(plans)])[0] if here else None,
            "cloud": self._cloud(most.cloud, front=whole, told=front),
        }

    def _told(self, points: Iterable[int]) -> dict[int, Told]:
        full: dict[int, Told] = {}
        for found, own, rows in self.points.rows([*points]):
            full |= zip(own, told(rows, found.task), strict=True)
        return full

    def _on_front(
        self,
        point: int,
        full: dict[int, Told],
        rival: int | None,
        faster: int | None,
        smaller: int | None,
    ) -> Tree:
        objective, among = self.asked.objective, self.points.beaten(point)
        one, other, before, after = (
            None if p is None else full[p] for p in (point, rival, faster, smaller)
        )
        assert one is not None, "a point of the front is told"
        return {
            "wins": [*wins(one, objective, among=among, rival=other)],
            "gives": [*gives(one, objective, faster=before, smaller=after)],
        }

    def _beside(self, point: int, front: list[int], full: Mapping[int, Told]) -> Tree:
        """Say of a plan that is not on the front how it compares with the best."""
        seconds, best = self.points.time_s, self.best
        if point != best:
            text = longer(full[point], full[best])
        else:  # in all that is asked for, one of the front is as good
            winner = max((p for p in front if seconds[p] <= seconds[best]), default=best)
            text = equals(full[best], full[winner], self.asked.objective)
        return {"wins": [text], "gives": []}

    def _here(self, best: Told) -> list[Tree]:
        """Give the page's own plan, where as many devices see the same batch."""
        start, asked = self.start, self.asked
        batch = start.plan.batch
        same = (start.cluster.devices, batch.sequences, batch.seq)
        if same != (asked.devices, asked.sequences, asked.seq):
            return []
        priced = cost(start.model, start.plan, cluster=asked.cluster(start), stack=start.stack)
        own = told_one(start.plan, start.model, devices=asked.devices, priced=priced)
        limit_bytes = float(priced.pricing.machine.memory_bytes)
        said = gains(own, best, limit_bytes=limit_bytes)
        return [own.tree | {"wins": [said], "gives": [], "command": None}]

    def _command(self, point: int) -> str:
        """Give the command whose answer a plan is."""
        points, devices = self.points, self.points.founds[self.points.search[point]].task.devices
        demand = points.demand(point, self.asked.objective)
        if point == self.running and point != self.best:
            demand = ("runs=true",)
        return self.asked.at(devices).command(self.start, *demand)

    def _numbers(self, point: int) -> list[float]:
        ((found, _, row),) = self.points.rows([point])
        return [found.task.devices, *(float(v.item()) for v in columns(row).values())]

    def _cloud(self, most: int, *, front: Sequence[int], told: Sequence[int]) -> Tree:
        """Give other plans as columns; a decision that all made alike is a single number."""
        points, rest = self.points, [point for point in front if point not in told]
        sample = points.cloud(max(0, most - len(rest)), front=front)
        shown = np.union1d(sample, np.array(rest, dtype=np.int64))
        decided: dict[str, list[Number]] = {name: [] for name in ("devices", *DECISIONS)}
        parts = list[tuple[Number, Number, Number]]()
        for found, own, rows in points.rows([*map(int, shown)]):
            decided["devices"].append(np.full(len(own), found.task.devices))
            for name, column in columns(rows).items():
                decided[name].append(column)
            parts.append(shares(rows, found.task))
        time, memory, moment = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
        kinds, family = np.unique(points.family[shown], return_inverse=True)
        return {
            "time_s": [*map(short, points.time_s[shown])],
            "against": [*map(short, points.against[shown])],
            "kinds": [family_name(int(number)) for number in kinds],
            "kind": family.tolist(),
            "runs": points.runs[shown].astype(int).tolist(),
            "front": np.searchsorted(shown, rest).tolist(),
            "decisions": {name: _column(np.concatenate(c)) for name, c in decided.items()},
            "time": [_column(part) for part in time],
            "memory": [_column(part) for part in memory],
            "moment": _column(moment),
        }


def _column(values: Number) -> float | list[float]:
    numbers = [int(v) if v == int(v) else float(v) for v in values]
    return numbers if len(set(numbers)) > 1 else numbers[0]


def _sizes(whole: Found) -> tuple[Found, ...]:
    """Give the searches whose plans are drawn: fewer devices may spend less."""
    match whole.objective:
        case "time" | "memory-headroom":
            return (whole,)
        case "cost" | "energy":
            return tuple(change.found for change in fleets(whole, options=whole.options))


def _spent(found: Found) -> float:
    assert found.best is not None, "a fleet has a plan"
    return found.best.energy_j if found.objective == "energy" else found.best.money
