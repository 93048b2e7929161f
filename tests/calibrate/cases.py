"""Programs, clusters whose constants are off, and the steps that one would record there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from stretto.calibrate import changed, constants
from stretto.cluster import Cluster, find
from stretto.cost.stacks import own
from stretto.plan import Batch, Numerics, Plan
from stretto.presets import preset
from stretto.program.instruction import Program
from stretto.program.lower import lower
from stretto.simulate import simulate
from stretto.timeline import Timeline

DTYPE = "float32"


def program(
    name: str = "stretto-1m", *, micro_batches: int = 2, seq: int = 256, **words: Any
) -> Program:
    """Give a model's program in float32, with two sequences in a micro-batch."""
    words = {"pp": 1, "dp": 1, "tp": 1, "zero": 0} | words
    batch = Batch(2 * words["dp"] * micro_batches, 2, seq)
    return lower(preset(name), Plan.of(**words, numerics=Numerics(DTYPE), batch=batch))


def cores(devices: int) -> Cluster:
    """Give cores of a machine, as they usually are."""
    return find("cpu", devices=devices)


def off(cluster: Cluster, draw: random.Random, *, by: float) -> Cluster:
    """Give a cluster whose every constant is another: `by` is the deviation of its logarithm."""
    return changed(
        cluster,
        {
            one.name: min(one.most, one.value * draw.lognormvariate(0, by))
            for one in constants(cluster, dtype=DTYPE)
        },
    )


def step(what: Program, cluster: Cluster) -> Timeline:
    """Give a step as it would be recorded on a cluster."""
    return simulate(what, cluster, stack=own(cluster))


def steps(
    what: Program, cluster: Cluster, draw: random.Random, *, noise: float, count: int = 6
) -> Iterator[Timeline]:
    """Give steps on a cluster that is a little different at each."""
    for _ in range(count):
        yield step(what, off(cluster, draw, by=noise))
