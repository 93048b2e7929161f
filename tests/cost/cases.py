"""Random models, legal plans and clusters, and what they are priced as; and machines by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st

from stretto.cluster import Cluster, Level, Part, accelerator, find
from stretto.cost import Choice, Machine, Number, Pricing, Shape, stack
from stretto.cost.stacks import names
from stretto.model import Model
from stretto.plan import (
    AXES,
    Batch,
    Communication,
    Memory,
    Numerics,
    Pipeline,
    Plan,
    Recompute,
    ScheduleName,
)
from stretto.presets import PRESETS
from stretto.schedule.legal import CHUNKS

CLUSTERS = ("h100", "a100-80gb", "dgx-h100", "frontier", "gb200", "tpu-v5p", "rtx3090")
LARGE = tuple(model for model in PRESETS.values() if model.parameter_count > 5e9)


def n(value: float) -> Number:
    return np.asarray(value, dtype=np.float64)


@cache
def machine(name: str, devices: int) -> Machine:
    return Machine.of(find(name, devices=devices))


def tree(*levels: tuple[int, float, float]) -> Machine:
    """Give a machine of H100s with these (devices, bytes_per_s, latency_s), from the inside out."""
    kinds = ("node", "rail", "leaf", "spine")
    links = tuple(Level(kind, *level) for kind, level in zip(kinds, levels, strict=False))
    return Machine.of(Cluster("by hand", (Part(accelerator("h100"), levels[-1][0]),), links))


IDEAL = replace(
    machine("h100", 64), tile_m=n(1), tile_n=n(1), units=n(1), ramp=n(0), launch_s=n(0),
    memory_bytes_per_s=n(np.inf),
)  # fmt: skip
"""A machine whose products take what their FLOPs take, and all else nothing."""


@st.composite
def plans(draw: st.DrawFn, devices: int, schedule: ScheduleName | None = None) -> Plan:
    """Give a plan without contradictions on so many devices, a power of two."""
    left = devices
    words: dict[str, Any] = {}
    for axis, most in (("tp", 8), ("pp", 8), ("cp", 4)):
        words[axis] = draw(st.sampled_from([d for d in (1, 2, 4, 8) if d <= min(left, most)]))
        left //= words[axis]
    pp, cp, tp, dp = words["pp"], words["cp"], words["tp"], left
    ep = draw(st.sampled_from([d for d in (1, 2, 4, 8) if d <= dp * cp * tp]))
    etp = draw(st.sampled_from([d for d in (1, 2, 4, 8) if d <= tp and d * ep <= dp * cp * tp]))
    zero = draw(st.integers(0, 3))
    shard = draw(st.sampled_from([2**i for i in range(12) if 2**i <= dp * cp])) if zero else 0
    name = schedule or draw(st.sampled_from(get_args(ScheduleName)))
    least, most = CHUNKS[name]
    interleave = 1 if name == "zb-v" else draw(st.integers(least, int(min(most, 3))))
    micro = draw(st.sampled_from((1, 2, 4)))
    rounds = draw(st.integers(1, 4)) * pp
    recompute = draw(st.sampled_from(get_args(Recompute)))
    sequence = draw(st.booleans())
    return Plan.of(
        **words, dp=dp, ep=ep, etp=etp, zero=zero, shard=shard, sequence=sequence,
        order=draw(st.sampled_from((AXES, ("dp", "pp", "cp", "tp")))),
        pipeline=Pipeline(name, (), interleave),
        memory=Memory(
            recompute,
            draw(st.sampled_from((None, 1, 2))) if recompute == "full" else None,
            regather=draw(st.booleans()),
        ),
        communication=Communication(
            codec=draw(st.sampled_from(("none", "bfloat16", "int8"))),
            tensor_overlap=(sequence or tp == 1) and draw(st.booleans()),
        ),
        numerics=Numerics(
            draw(st.sampled_from(("float32", "bfloat16"))),
            matrix=draw(st.sampled_from(("same", "float8"))),
        ),
        batch=Batch(dp * micro * rounds, micro, draw(st.sampled_from((1024, 2048)))),
    )  # fmt: skip


@st.composite
def pricings(draw: st.DrawFn) -> Pricing:
    """Give a model of the presets, a plan for it on some cluster, and software."""
    model = draw(st.sampled_from(LARGE))
    devices = 2 ** draw(st.integers(0, 9))
    plan = draw(plans(devices))
    assert plan.check(model) == (), "a random plan is to be legal"
    cluster, software = draw(st.sampled_from(CLUSTERS)), draw(st.sampled_from(names()))
    return priced(model, plan, cluster=cluster, software=software)


@cache
def _shape(model: Model) -> Shape:
    return Shape.of(model)


def priced(model: Model, plan: Plan, *, cluster: str = "h100", software: str = "modern") -> Pricing:
    """Give what is priced, on as many devices as the plan has ranks."""
    where = machine(cluster, plan.mesh.size)
    return Pricing(_shape(model), Choice.of(plan, model), where, stack(software))
