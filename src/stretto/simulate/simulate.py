"""`simulate`: a program on a clock."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Iterator, Sequence

from stretto.cluster import Cluster
from stretto.cost.stack import Stack
from stretto.errors import InputError
from stretto.program.instruction import Program
from stretto.simulate.fault import Fault, problems
from stretto.simulate.graph import graph
from stretto.simulate.network import FAIR, Network
from stretto.simulate.play import play
from stretto.simulate.site import Site
from stretto.simulate.timeline import hosted, timeline
from stretto.simulate.wait import waits
from stretto.timeline.value import Timeline


def simulate(
    program: Program,
    cluster: Cluster,
    *,
    stack: Stack,
    faults: Sequence[Fault] = (),
    network: Network = FAIR,
) -> Timeline:
    """Play one step of a program, from vote to vote, for one rank of each kind.

    Args:
        program: What every rank does.
        cluster: Where: rank i runs on device i.
        stack: With which software.
        faults: What is wrong.
        network: How transfers share what lies between switches.

    Raises:
        InputError: There are more ranks than devices, faults name what does not exist, or the
            cluster has no switches to balance over.
    """
    found = problems(program, cluster, faults=faults, network=network)
    if found:
        raise InputError(found)
    with uncollected():
        whole = graph(Site(program, cluster, stack, tuple(faults), network))
        begun_s, done_s = play(whole, contention=float(stack.contention))
        stuck = waits(whole, done_s)
        line = timeline(whole, begun_s, done_s, straggle=straggle(program, stack), waits=stuck)
        return hosted(line, fixed_s=float(stack.step_s))


def straggle(program: Program, stack: Stack) -> float:
    """Give the share of a step that is lost to the slowest of a program's ranks, by chance."""
    doublings = math.log2(max(program.placement.mesh.size / 8, 1.0))
    return float(stack.straggle) * doublings


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Leave out the search for garbage in circles, which millions of lasting objects make long."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
