"""One run, played plainly: snapshot after snapshot, on a clock. The engine must agree with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from stretto.forecast import PARTS, Component, Failures, Needs, Per, Setup, Shows

Triple = tuple[float, float, float]
"""When a failure comes (exponential), which one it is (uniform), its repair (exponential)."""


@dataclass
class Plain:
    """A run on its way."""

    setup: Setup
    failures: Failures
    draws: Sequence[Triple]
    clock: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hot, self.warm = self.setup.spares.hot, self.setup.spares.warm
        self.returns: list[float] = []
        self.missing = 0
        self.number = 0
        self.hazard = self.draws[0][0]

    # what is known of it

    @property
    def unit(self) -> int:
        return self.setup.elastic.unit_nodes if self.setup.elastic else 1

    @property
    def speed(self) -> float:
        return self.setup.elastic.speeds[self.missing] if self.setup.elastic else 1.0

    def rate_of(self, component: Component) -> float:
        job = self.setup.job
        whole = component.rate_per_s(devices=job.devices, nodes=job.nodes)
        left = 1 - self.missing * self.unit / job.nodes
        return whole if component.per is Per.RUN else whole * left

    @property
    def rate(self) -> float:
        return sum(map(self.rate_of, self.failures.components))

    @property
    def next(self) -> Component | None:
        """What fails next."""
        place = self.draws[self.number][1] * self.rate
        for component in self.failures.components:
            place -= self.rate_of(component)
            if place < 0:
                return component
        return self.failures.components[-1] if self.failures.components else None

    # what happens to it

    def spend(self, part: str, seconds: float, *, exposed: bool = True) -> None:
        self.parts[part] += seconds
        self.clock += seconds
        self.hazard -= self.rate * seconds * exposed

    def due(self) -> float:
        """Seconds until the next failure; planned ones wait, so they are not due by themselves."""
        if not self.rate or (self.next and self.next.shows is Shows.PLANNED):
            return math.inf
        return max(self.hazard, 0.0) / self.rate

    def planned(self) -> bool:
        component = self.next
        planned = component is not None and component.shows is Shows.PLANNED
        return planned and self.hazard <= 1e-9

    def play(self) -> Plain:
        self.total = self.setup.job.work_s / self.setup.checkpoint.snapshot_s
        self.at = self.disk = 0.0  # snapshots' worth of work: to go on from, and in storage
        restart = 0.0
        while self.total - self.at > 1e-9:
            if self.due() < restart:
                self.spend("restart", self.due())
                restart = self.fail(self.at)
            else:
                self.spend("restart", restart)
                restart = self.run()
        return self

    def run(self) -> float:
        """Train until something happens; give the seconds of the restart after it."""
        saved, begun = self.setup.checkpoint, self.at
        written: list[tuple[float, float]] = []  # when it is in storage, and what
        while True:
            size = min(1.0, self.total - self.at)
            compute = size * saved.snapshot_s / self.speed
            worked = min(self.due(), compute)
            self.work(worked)
            stop = worked < compute
            saving = 0.0 if stop else min(self.due(), saved.blocking_s)
            self.spend("checkpoints", saving)
            if stop or saving < saved.blocking_s:
                done = [what for when, what in written if when <= self.clock + 1e-9]
                self.disk = max([self.disk, *done])
                return self.fail(self.at + size * worked / compute)
            self.at += size
            if self.total - self.at <= 1e-9:
                return 0.0
            if round(self.at - begun) % saved.stored == 0:
                written.append((self.clock + saved.background_s, self.at))
            if self.planned():
                return self.stop(planned=True)
            if self.regrows():
                return self.stop(planned=False)

    def work(self, seconds: float) -> None:
        self.spend("training", seconds * self.speed)
        self.spend("degraded", seconds * (1 - self.speed))

    def restart_s(self, *, memory_kept: bool) -> float:
        saved, recovery = self.setup.checkpoint, self.setup.recovery
        load = saved.memory_load_s if memory_kept else saved.load_s
        return recovery.schedule_s + recovery.warmup_s + load

    def count(self) -> tuple[Component, float]:
        component, repair = self.next, self.draws[self.number][2]
        assert component is not None
        self.counts[component.name] = self.counts.get(component.name, 0) + 1
        self.number += 1
        return component, repair

    def stop(self, *, planned: bool) -> float:
        """Stop after a snapshot."""
        component, repair = self.count() if planned else (None, 0.0)
        self.spend("checkpoints", self.setup.checkpoint.background_s)
        self.disk = self.at
        if component is None:
            self.regrow()
        else:
            self.away(component, repair)
            self.hazard += self.draws[self.number][0]
        return self.restart_s(memory_kept=False)

    def fail(self, reached: float) -> float:
        component, repair = self.count()
        saved, recovery = self.setup.checkpoint, self.setup.recovery
        blame = 0.0 if component.needs is Needs.RESTART else recovery.diagnose_s
        notice = {Shows.CRASH: recovery.crash_s, Shows.HANG: recovery.hang_s}
        self.spend("detection", notice.get(component.shows, 0.0) + blame)
        wrong = component.shows is Shows.CORRUPTION
        self.spend("lost work", recovery.corruption_s * wrong)
        outlives = {"nothing": (), "process": (Needs.RESTART,), "node": tuple(Needs)}
        kept = component.needs in outlives[saved.survives] and not wrong
        self.at = self.at if kept else self.disk
        lost = (reached - self.at) * saved.snapshot_s
        self.parts["training"] -= lost
        self.parts["lost work"] += lost
        self.away(component, repair)
        self.hazard += self.draws[self.number][0]
        return self.restart_s(memory_kept=kept)

    def away(self, component: Component, repair: float) -> None:
        recovery, elastic = self.setup.recovery, self.setup.elastic
        times = {Needs.RESET: recovery.reset_s, Needs.REPAIR: recovery.repair_s * repair}
        if component.needs is not Needs.RESTART:
            self.returns.append(self.clock + times[component.needs] + recovery.warm_s)
            self.collect()
            if self.hot:
                self.hot -= 1
                self.spend("waiting", recovery.hot_s)
            elif self.warm:
                self.warm -= 1
                self.spend("waiting", recovery.warm_s)
            else:
                first = min(self.returns)
                may = elastic is not None and self.missing < len(elastic.speeds) - 1
                if elastic is not None and may and first > self.clock + elastic.patience_s:
                    self.missing += 1
                    self.hot += elastic.unit_nodes - 1
                else:
                    self.returns.remove(first)
                    self.spend("waiting", first - self.clock, exposed=False)
        self.regrow()

    def collect(self) -> None:
        back = [r for r in self.returns if r <= self.clock]
        self.returns = [r for r in self.returns if r > self.clock]
        if self.setup.spares.warm:
            self.warm += len(back)
        else:
            self.hot += len(back)

    def regrows(self) -> bool:
        ready = self.hot + self.warm + sum(r <= self.clock + 1e-9 for r in self.returns)
        return self.missing > 0 and ready >= self.unit

    def regrow(self) -> None:
        self.collect()
        while self.missing and self.hot + self.warm >= self.unit:
            hot = min(self.hot, self.unit)
            self.hot -= hot
            self.warm -= self.unit - hot
            self.missing -= 1
