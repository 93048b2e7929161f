"""`simulate`: a program on a clock."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stretto.cluster import Cluster
from stretto.cost.stack import Stack
from stretto.errors import InputError, Problem
from stretto.program.instruction import Program
from stretto.simulate.fault import Fault, problems
from stretto.simulate.graph import graph
from stretto.simulate.play import play
from stretto.simulate.site import Site
from stretto.simulate.timeline import timeline
from stretto.simulate.wait import waits
from stretto.timeline.value import Timeline


def simulate(
    program: Program, cluster: Cluster, *, stack: Stack, faults: Sequence[Fault] = ()
) -> Timeline:
    """Play one step of a program, from vote to vote, for one rank of each kind.

    Args:
        program: What every rank does.
        cluster: Where: rank i runs on device i.
        stack: With which software.
        faults: What is wrong.

    Raises:
        InputError: There are more ranks than devices, or faults name what does not exist.
    """
    size, found = program.placement.mesh.size, []
    if size > cluster.devices:
        rule = f"{cluster.name} has {cluster.devices} devices for {size} ranks"
        found.append(Problem("mesh", rule, f"simulate {size} devices or more"))
    found += problems(faults, program=program, cluster=cluster)
    if found:
        raise InputError(found)
    whole = graph(Site(program, cluster, stack, tuple(faults)))
    begun_s, done_s = play(whole, contention=float(stack.contention))
    straggle = float(stack.straggle) * math.log2(max(size / 8, 1.0))
    stuck = waits(whole, done_s)
    return timeline(whole, begun_s, done_s, straggle=straggle, waits=stuck)
