"""The best plan: all that are tried are priced, and those that fit are ranked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stretto.cost import Number, Pricing, estimate
from stretto.cost.energy import bill
from stretto.cost.memory import memory
from stretto.cost.step import step_time
from stretto.errors import InputError
from stretto.search.candidates import Candidates, Priced, families
from stretto.search.constraint import Constraint, contradictions, widened
from stretto.search.found import Found, Objective, Rejection
from stretto.search.options import Options
from stretto.search.row import Row, choice_of
from stretto.search.rule import LAYOUT, REST, Mask
from stretto.search.runnable import refusals
from stretto.search.space import Grid, along, grids
from stretto.search.task import Task

T = TypeVar("T", bound=np.generic)

_CELLS = 2**16  # priced at once: their arrays stay in the cache
_SHARES = (0.0, 0.5, 1.0)  # of what waits in the host's memory


def search(
    task: Task,
    *,
    options: Options | None = None,
    constraints: Sequence[Constraint] = (),
    objective: Objective = "time",
) -> Found:
    """Give the best plan, and all that can be.

    Args:
        task: What to search for.
        options: What to try; None for all that is sensible.
        constraints: What to demand; one by ``=`` has its values tried even if `options` has not.
        objective: What is best.

    Raises:
        InputError: Constraints that contradict each other.
    """
    began = time.perf_counter()
    problems = [*contradictions(constraints)]
    if problems:
        raise InputError(problems)
    tried = widened(options or Options(), constraints)
    run = _Run(task, constraints)
    found = run.all(tried)
    least = Priced.of(run.least, task) if run.least else None
    rejections = tuple(sorted(run.counts.values(), key=lambda r: -r.count))
    seconds = time.perf_counter() - began
    return Found(
        task, tried, tuple(constraints), objective, found, rejections, least, seconds
    )  # fmt: skip


def search_with_host(
    task: Task, *, constraints: Sequence[Constraint] = (), objective: Objective = "time"
) -> Found:
    """Give what a search finds; with the host's memory where nothing fits without.

    Args:
        task: What to search for.
        constraints: What to demand.
        objective: What is best.

    Raises:
        InputError: Constraints that contradict each other.
    """
    found = search(task, constraints=constraints, objective=objective)
    lacking = found.best is None and found.least is not None and not found.least.estimate.fits
    return offloaded(found) if lacking else found


def offloaded(found: Found) -> Found:
    """Give the same search with activations and optimizer state in the host's memory, in part too.

    For when nothing fits without. Stages recompute all of their layers or none, to try less.
    """
    some = found.options.recompute_layers or (0,)
    options = replace(
        found.options, offload=_SHARES, optimizer_offload=_SHARES, recompute_layers=some
    )
    return search(
        found.task, options=options, constraints=found.constraints, objective=found.objective
    )


def demanded(task: Task, constraints: Sequence[Constraint], options: Options) -> Iterator[Grid]:
    """Give the plans that are tried and meet the constraints on decisions; most break a rule.

    Args:
        task: What is searched for.
        constraints: What is demanded.
        options: What is tried.
    """
    for grid in grids(task, options):
        for c in (c for c in constraints if c.decides):
            grid = _meeting(grid, c)
        yield grid


class _Run:
    """One search, while it counts."""

    def __init__(self, task: Task, constraints: Sequence[Constraint]) -> None:
        self.task, self.constraints = task, constraints
        self.refused = refusals(task)
        self.counts: dict[str, Rejection] = {}
        self.least: Row | None = None
        self.least_bytes = np.inf

    def all(self, options: Options) -> Candidates:
        """Give all plans that can be."""
        return _joined([part for g in grids(self.task, options) for part in self.priced(g)])

    def reject(self, reason: str, broken: Mask, example: Callable[[], str] = str) -> None:
        """Count the plans of a mask."""
        self.count(reason, int(np.count_nonzero(broken)), example)

    def count(self, reason: str, count: int, example: Callable[[], str]) -> None:
        if count:
            before = self.counts.get(reason) or Rejection(reason, 0, example())
            self.counts[reason] = replace(before, count=before.count + count)

    def priced(self, grid: Grid) -> Iterator[Candidates]:
        """Give the plans of a grid that can be."""
        for c in (c for c in self.constraints if c.decides):
            kept = _meeting(grid, c)
            self.count(_demanded(c), int(grid.weights.sum() - kept.weights.sum()), str)
            grid = kept
        grid = self._laid_out(grid)
        legal = self._legal(grid)
        if not legal.any():
            return
        rows, legal, _ = _packed(grid.rows, legal, np.zeros(()))
        step = max(1, _CELLS // (legal.size // len(legal)))
        for start in range(0, len(legal), step):
            index = np.arange(start, min(start + step, len(legal)))
            yield from self._fitting(along(rows, [index]), legal[index])

    def _laid_out(self, grid: Grid) -> Grid:
        """Give the layouts that keep their rules."""
        for rule in LAYOUT:
            kept = np.broadcast_to(rule.holds(grid.rows, self.task), grid.rows.pp.shape).ravel()
            if not kept.all():
                first = grid.rows.at(grid.cell(~kept))
                count = int(grid.weights[~kept].sum())
                self.count(rule.reason, count, partial(rule.text, first, self.task))
                grid = grid.layouts(kept)
        return grid

    def _legal(self, grid: Grid) -> Mask:
        """Tell which plans of a grid keep the other rules."""
        legal = np.ones(grid.rows.shape, dtype=np.bool_)
        for mask in grid.own:
            legal &= mask
        for rule in REST:
            broken = legal & ~rule.holds(grid.rows, self.task)
            if broken.any():
                first = grid.rows.at(np.argmax(broken))
                self.reject(rule.reason, broken, partial(rule.text, first, self.task))
                legal &= ~broken
        for c in (c for c in self.constraints if c.key == "runs"):
            holds = c.holds({"runs": self._running(grid.rows)})
            self.reject(_demanded(c), legal & ~holds)
            legal = legal & holds
        return legal

    def _running(self, rows: Row) -> Mask:
        """Tell which plans of a grid the runtime runs today."""
        refused = np.zeros((), dtype=np.bool_)
        for is_refused in self.refused:
            refused = refused | is_refused(rows)
        return ~refused

    def _fitting(self, rows: Row, legal: Mask) -> Iterator[Candidates]:
        """Give the plans of a grid that fit and meet the constraints on what they take."""
        use = np.broadcast_to(memory(self._pricing(rows)).total_bytes, legal.shape)
        self._note_least(rows, np.where(legal, use, np.inf))
        fits = legal & (use <= self.task.machine.memory_bytes)
        self.reject("needs more memory than a device has", legal & ~fits)
        if not fits.any():
            return
        rows, fits, use = _packed(rows, fits, use)
        pricing = self._pricing(rows)
        time_ = step_time(pricing)
        spent = bill(pricing, time_)
        results: Mapping[str, Callable[[], Number]] = {
            "time": lambda: time_.total_s,
            "memory": lambda: use,
            "energy": lambda: spent.energy_j,
            "cost": lambda: spent.money,
            "mfu": lambda: estimate(pricing).mfu,
        }
        for c in (c for c in self.constraints if c.key in results):
            holds = c.holds({c.key: results[c.key]()})
            self.reject(_demanded(c), fits & ~holds)
            fits = fits & holds
        cells = np.flatnonzero(fits)

        def kept(values: NDArray[T]) -> NDArray[T]:
            return np.broadcast_to(values, fits.shape).ravel()[cells]

        yield Candidates(
            (rows,),
            grid=np.zeros(cells.shape, dtype=np.int64),
            cell=cells,
            time_s=kept(results["time"]()),
            memory_bytes=kept(use),
            energy_j=kept(results["energy"]()),
            family=kept(families(rows)),
            runs=kept(self._running(rows)),
        )

    def _pricing(self, rows: Row) -> Pricing:
        task = self.task
        return Pricing(task.shape, choice_of(rows, task), task.machine, task.stack)

    def _note_least(self, rows: Row, use: Number) -> None:
        cell = int(np.argmin(use))
        if use.flat[cell] < self.least_bytes:
            self.least, self.least_bytes = rows.at(cell), use.flat[cell]


def _demanded(constraint: Constraint) -> str:
    return f"constraint {constraint.text}"


def _meeting(grid: Grid, constraint: Constraint) -> Grid:
    """Give the plans of a grid that meet a constraint on a decision."""
    met = constraint.holds({constraint.key: getattr(grid.rows, constraint.key)})
    return grid.demanding(constraint.key, met)


def _packed(rows: Row, kept: Mask, use: Number) -> tuple[Row, Mask, Number]:
    """Give a grid, and what it uses, without the places of each axis at which nothing is kept."""
    used = [np.flatnonzero(kept.reshape(len(kept), -1).any(axis=1))]
    rest = kept.any(axis=0)
    for axis in range(rest.ndim):
        others = tuple(a for a in range(rest.ndim) if a != axis)
        used.append(np.flatnonzero(np.any(rest, axis=others)))
    where = np.ix_(*used)
    return along(rows, used), kept[where], use[where] if use.ndim else use


def _joined(parts: Sequence[Candidates]) -> Candidates:
    """Give all candidates of several grids."""
    none = np.zeros(0)
    grid = [np.full(len(part), i) for i, part in enumerate(parts)]
    return Candidates(
        tuple(part.grids[0] for part in parts),
        grid=np.concatenate([none.astype(np.int64), *grid]),
        cell=np.concatenate([none.astype(np.int64), *(part.cell for part in parts)]),
        time_s=np.concatenate([none, *(part.time_s for part in parts)]),
        memory_bytes=np.concatenate([none, *(part.memory_bytes for part in parts)]),
        energy_j=np.concatenate([none, *(part.energy_j for part in parts)]),
        family=np.concatenate([none.astype(np.int64), *(part.family for part in parts)]),
        runs=np.concatenate([none.astype(np.bool_), *(part.runs for part in parts)]),
    )
