"""How a run of ours is foretold: one rule, for the page, traces, progress and calibration.

A run's program is played on its cluster, RUN/cluster.toml, or else this machine, with our own
runtime as software: what it takes on accelerators or on cores (cost/runtime.toml), but for what
was measured on that cluster (`[software]` in its file).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stretto.cli.plans import cluster_of, gpus
from stretto.cli.rundir import RunDirectory, Start
from stretto.cluster import Cluster, find, load, of_driver
from stretto.errors import ClusterError, Problem
from stretto.plan import Plan

if TYPE_CHECKING:
    from stretto.cost import Estimate, Stack
    from stretto.program.instruction import Program
    from stretto.timeline import Timeline

MANY = 256
"""Ranks that are played before a run begins; more would take longer than people wait for."""

_DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True)
class Foretold:
    """What is known of a step of a run before it runs.

    Attributes:
        program: What every rank does.
        cluster: Where it runs.
        stack: The software: our own runtime, as it is there.
        timeline: A step on a clock.
        estimate: The same in closed form.
    """

    program: Program
    cluster: Cluster
    stack: Stack
    timeline: Timeline
    estimate: Estimate

    @property
    def step_s(self) -> float:
        """Seconds of a step."""
        return self.timeline.expected_s


def foretold(start: Start, cluster: Cluster) -> Foretold:
    """Give what is known of a step of a run before it runs.

    Args:
        start: What decides the run: its model and its plan.
        cluster: Where it runs; see `cluster_of_run`.

    Raises:
        StrettoError: The model, the plan or the cluster cannot be.
    """
    from stretto.cost import cost
    from stretto.cost.stacks import own
    from stretto.program.lower import lower
    from stretto.simulate import simulate

    software = own(cluster)
    program = lower(start.model, start.plan)
    return Foretold(
        program,
        cluster,
        software,
        simulate(program, cluster, stack=software),
        cost(start.model, start.plan, cluster=cluster, stack=software),
    )


def predicted_s(start: Start, cluster: Cluster) -> float:
    """Give the seconds that a step of a run is predicted to take, soon: before it begins.

    Of more than `MANY` ranks, in closed form.

    Args:
        start: What decides the run.
        cluster: Where it runs.

    Raises:
        StrettoError: The model, the plan or the cluster cannot be.
    """
    if start.plan.mesh.size <= MANY:
        return foretold(start, cluster).step_s
    from stretto.cost import cost
    from stretto.cost.stacks import own

    found = cost(start.model, start.plan, cluster=cluster, stack=own(cluster))
    return float(found.time.total_s)


def peak_flops_per_s(start: Start, cluster: Cluster) -> float:
    """Give the peak of a device in the precision of a run's products, by which its MFU counts."""
    from stretto.cost import Choice, Machine

    return float(Machine.of(cluster).peak(Choice.of(start.plan, start.model).precision))


def cluster_of_run(run: RunDirectory, plan: Plan) -> Cluster:
    """Give the cluster of a run: RUN/cluster.toml if there is one, else this machine.

    Args:
        run: The run.
        plan: Its plan, which says how many devices.

    Raises:
        ClusterError: All that is wrong with the file.
    """
    ranks = plan.mesh.size
    return load(run.cluster, devices=ranks) if run.cluster.is_file() else machine(ranks, here=ranks)


def cluster_for(asked: str | None, *, ranks: int, here: int, before: Path | None) -> Cluster | None:
    """Give the cluster by which a run that begins is foretold; None where nobody can say.

    Args:
        asked: A name or a file, if one was named.
        ranks: How many run.
        here: How many of them on this machine.
        before: The cluster's file of the run that is gone on with, if it is: it stays if it is of
            as many devices.

    Raises:
        ClusterError: There is no such cluster; all that is wrong with its file.
    """
    if asked is not None:
        return find(asked, devices=ranks)
    try:
        if before is not None and before.is_file() and (kept := load(before)).devices == ranks:
            return kept
        return machine(ranks, here=here)
    except ClusterError:
        return None


def machine(ranks: int, *, here: int) -> Cluster:
    """Give machines like this one: its accelerators if it has any, else its cores.

    Args:
        ranks: How many devices, of all machines.
        here: How many of them are on this one.

    Raises:
        ClusterError: It has accelerators that no preset knows.
    """
    if not gpus():
        return cluster_of(ranks, here=here)
    name = next(_accelerators(), "these accelerators")
    known = of_driver(name)
    if known is None:
        rule = f"there is no preset for {name}"
        raise ClusterError(Problem("--cluster", rule, "name a cluster, or measure: stretto probe"))
    return find(known, devices=ranks)


def _accelerators() -> Iterator[str]:
    """Give what the driver calls the accelerators of this machine."""
    for file in sorted(_DRIVER.glob("*/information")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key == "Model":
                yield value.strip()
