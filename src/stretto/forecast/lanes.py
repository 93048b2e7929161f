"""Runs side by side, as arrays: what is fixed for each, and where each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from stretto.forecast.draws import Index, Number
from stretto.forecast.failures import Component, Failures, Needs, Per, Shows
from stretto.forecast.result import PARTS
from stretto.forecast.setup import Elastic, Recovery, Setup

Mask = NDArray[np.bool_]

GIVE_UP = 10.0
"""Times the seconds without failures after which a run is given up."""

HOPELESS = 1000
"""Failures after which a run is given up that has done less than half of what it would need to."""

FREE = np.inf
"""When a node comes back that is not away."""

_FEW = 8  # nodes away for which there is room to begin with

T = TypeVar("T")


@dataclass(slots=True)
class Terms:
    """What is fixed, a row for each setup or for each run. Work is counted in snapshots.

    Attributes:
        snapshots: Of the whole training; the last one may be early.
        snapshot_s: Seconds of steps from one to the next.
        blocking_s: That a snapshot stops the steps.
        background_s: Until it is in storage.
        stored: Of how many one is written there.
        start_s: Of a restart, besides loading.
        load_s: From storage.
        memory_load_s: From memory.
        ready: Whether spare nodes are kept ready.
        hot_s: To bring in a node that is ready.
        warm_s: To bring in one that must start.
        unit_nodes: Nodes that leave together.
        unit_share: Their share of all.
        most: Units that may be missing.
        patience_s: A node that is back so soon is waited for.
        limit_s: When a run is given up.
        speeds: By missing units.
        growing: Cumulative failures per second by component, of those that grow with the devices.
        fixed: Of the others.
        planned: By component: it waits for a snapshot.
        found_s: Until it is known what failed.
        wrong_s: That a run goes on with wrong numbers.
        leaves: A node must be replaced.
        reset_s: That this node is away for certain.
        repair_s: And on average besides.
        kept: What was in memory outlives it.
    """

    snapshots: Number
    snapshot_s: Number
    blocking_s: Number
    background_s: Number
    stored: Number
    start_s: Number
    load_s: Number
    memory_load_s: Number
    ready: Mask
    hot_s: Number
    warm_s: Number
    unit_nodes: Index
    unit_share: Number
    most: Index
    patience_s: Number
    limit_s: Number
    speeds: Number
    growing: Number
    fixed: Number
    planned: Mask
    found_s: Number
    wrong_s: Number
    leaves: Mask
    reset_s: Number
    repair_s: Number
    kept: Mask


@dataclass(slots=True)
class Lanes:
    """Where each run is.

    Attributes:
        setup: Which setup it plays.
        run: Which run of it, and so which random numbers.
        clock_s: Seconds since it began.
        at: Snapshots' worth of work that it will go on from.
        disk: That is in storage.
        reached: That it had when it stopped.
        restart_s: Seconds that its restart takes.
        hazard: What is left of the exponential number that decides when it fails; below 0 if that
            was while it was stopped.
        rate: Of failures per second, with the units that it has.
        which: The number that decides what fails.
        repair: The number that decides for how long.
        failure: How many it has had.
        missing: Units that left.
        hot: Spare nodes that are ready.
        warm: Spare nodes that must start.
        away_s: When each node that is away is back and has started.
        failed: Whether it stopped for a failure.
        calm: Whether it stopped after a snapshot.
        kind: The component that fails next, or failed.
        parts_s: Seconds by `PARTS`.
        interruptions: By component.
    """

    setup: Index
    run: Index
    clock_s: Number
    at: Number
    disk: Number
    reached: Number
    restart_s: Number
    hazard: Number
    rate: Number
    which: Number
    repair: Number
    failure: Index
    missing: Index
    hot: Index
    warm: Index
    away_s: Number
    failed: Mask
    calm: Mask
    kind: Index
    parts_s: Number
    interruptions: Number

    def add(self, part: str, seconds: Number) -> None:
        """Add seconds of each run to one of `PARTS`."""
        self.parts_s[:, PARTS.index(part)] += seconds

    def send_away(self, gone: Mask, until_s: Number) -> None:
        """Send a node of some runs away."""
        if not np.any(gone):
            return
        if np.any(np.all(self.away_s[gone] < FREE, axis=1)):
            self.away_s = np.concatenate([self.away_s, np.full_like(self.away_s, FREE)], axis=1)
        slot = self.away_s.argmax(axis=1)  # a free one: nothing is later
        self.away_s[gone, slot[gone]] = until_s[gone]

    def collect(self, ready: Mask) -> None:
        """Make spares of the nodes that are back, ready ones or not."""
        back = self.away_s <= self.clock_s[:, None]
        count = back.sum(axis=1)
        self.hot += count * ready
        self.warm += count * ~ready
        self.away_s[back] = FREE


def taken(record: T, index: Any) -> T:
    """Give some rows of a record of arrays."""
    names = [f.name for f in fields(cast(Any, record))]
    return type(record)(**{name: getattr(record, name)[index] for name in names})


def lanes(setups: Sequence[Setup], *, runs: int, components: int) -> Lanes:
    """Give every run of every setup at its beginning."""
    setup = np.repeat(np.arange(len(setups)), runs)
    zeros, zero = np.zeros(len(setup)), np.zeros(len(setup), np.int64)
    false = zeros > 0
    return Lanes(
        setup=setup,
        run=np.tile(np.arange(runs), len(setups)),
        clock_s=zeros.copy(),
        at=zeros.copy(),
        disk=zeros.copy(),
        reached=zeros.copy(),
        restart_s=zeros.copy(),
        hazard=zeros.copy(),
        rate=zeros.copy(),
        which=zeros.copy(),
        repair=zeros.copy(),
        failure=zero.copy(),
        missing=zero.copy(),
        hot=np.asarray([s.spares.hot for s in setups])[setup],
        warm=np.asarray([s.spares.warm for s in setups])[setup],
        away_s=np.full((len(setup), _FEW), FREE),
        failed=false.copy(),
        calm=false.copy(),
        kind=zero.copy(),
        parts_s=np.zeros((len(setup), len(PARTS))),
        interruptions=np.zeros((len(setup), components)),
    )


def terms(setups: Sequence[Setup], failures: Failures) -> Terms:
    """Give what is fixed, a row for each setup."""
    rows = [_terms(setup, failures.components or (_NOTHING,)) for setup in setups]
    width = max(len(row["speeds"]) for row in rows)
    for row in rows:
        row["speeds"] = (*row["speeds"], *[1.0] * (width - len(row["speeds"])))
    return Terms(**{name: np.asarray([row[name] for row in rows]) for name in rows[0]})


_NOTHING = Component("nothing", np.inf, Per.RUN, Shows.CRASH, Needs.RESTART)


def _terms(setup: Setup, components: Sequence[Component]) -> dict[str, Any]:
    job, saved, recovery = setup.job, setup.checkpoint, setup.recovery
    elastic = setup.elastic or Elastic(1, (1.0,))
    rates = [c.rate_per_s(devices=job.devices, nodes=job.nodes) for c in components]
    grows = [c.per is not Per.RUN for c in components]
    return {
        "snapshots": job.work_s / saved.snapshot_s,
        "snapshot_s": saved.snapshot_s,
        "blocking_s": saved.blocking_s,
        "background_s": saved.background_s,
        "stored": float(saved.stored),
        "start_s": recovery.schedule_s + recovery.warmup_s,
        "load_s": saved.load_s,
        "memory_load_s": saved.memory_load_s,
        "ready": setup.spares.warm == 0,
        "hot_s": recovery.hot_s,
        "warm_s": recovery.warm_s,
        "unit_nodes": elastic.unit_nodes,
        "unit_share": elastic.unit_nodes / job.nodes,
        "most": len(elastic.speeds) - 1,
        "patience_s": elastic.patience_s,
        "limit_s": GIVE_UP * setup.least_s,
        "speeds": elastic.speeds,
        "growing": np.cumsum(np.where(grows, rates, 0.0)),
        "fixed": np.cumsum(np.where(grows, 0.0, rates)),
        "planned": [c.shows is Shows.PLANNED for c in components],
        "found_s": [_found_s(c, recovery) for c in components],
        "wrong_s": [recovery.corruption_s * (c.shows is Shows.CORRUPTION) for c in components],
        "leaves": [c.needs is not Needs.RESTART for c in components],
        "reset_s": [recovery.reset_s * (c.needs is Needs.RESET) for c in components],
        "repair_s": [recovery.repair_s * (c.needs is Needs.REPAIR) for c in components],
        "kept": [_kept(c, setup) for c in components],
    }


def _found_s(component: Component, recovery: Recovery) -> float:
    """Give the seconds in which a run stands still until it is known what failed."""
    blamed = 0.0 if component.needs is Needs.RESTART else recovery.diagnose_s
    match component.shows:
        case Shows.PLANNED:
            return 0.0
        case Shows.CORRUPTION:
            return blamed
        case Shows.CRASH:
            return recovery.crash_s + blamed
        case Shows.HANG:
            return recovery.hang_s + blamed


def _kept(component: Component, setup: Setup) -> bool:
    """Tell whether a run goes on from memory.

    What has been wrong for long is in memory too; what is planned has all in storage.
    """
    if component.shows in (Shows.CORRUPTION, Shows.PLANNED):
        return False
    match setup.checkpoint.survives:
        case "nothing":
            return False
        case "process":
            return component.needs is Needs.RESTART
        case "node":
            return True
