"""A cluster, software and small models with numbers that one can multiply in one's head."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from stretto.cluster import Cluster, Device, Level, Part, Power
from stretto.cost import Machine, Stack, record, stack
from stretto.model import Model
from stretto.plan import Batch, Numerics, Pipeline, Plan

NODE_BYTES_PER_S = 1e6
SPINE_BYTES_PER_S = 1e5
LATENCY_S = 1e-3


def cluster(devices: int, *, node: int = 4) -> Cluster:
    """Give devices of 1 MFLOP/s, in nodes of `node` that links of 1 MB/s join, 0.1 MB/s outside."""
    device = Device(
        "toy", 1e12, 1e9, (("float32", 1e6), ("bfloat16", 2e6)), 1, (1, 1, 1),
        (("float32", 1.0), ("bfloat16", 1.0)), Power(1, 1, 1), 1.0, 0.0, "made up",
    )  # fmt: skip
    levels = []
    if devices > 1:
        levels.append(Level("node", min(node, devices), NODE_BYTES_PER_S, LATENCY_S))
    if devices > node:
        levels.append(Level("spine", devices, SPINE_BYTES_PER_S, LATENCY_S))
    return Cluster("toys", (Part(device, devices),), tuple(levels))


def silent(devices: int) -> Cluster:
    """Give a cluster on whose links everything arrives at once."""
    here = cluster(devices, node=devices)
    links = tuple(replace(v, bytes_per_s=1e30, latency_s=0.0) for v in here.levels)
    return replace(here, levels=links)


def fabric(
    devices: int,
    *,
    node: int = 1,
    leaf: int = 4,
    oversubscription: float = 1.0,
    rail: bool = False,
    sharers: int = 1,
) -> Cluster:
    """Give a toy cluster with switches in two levels: 1 MB/s links into a leaf, and up from it."""
    here = cluster(devices, node=node)
    inner = "rail" if rail else "leaf"
    nodes = (Level("node", node, 1e9, 0.0),) if node > 1 else ()
    levels = (
        *nodes,
        Level(inner, leaf, NODE_BYTES_PER_S, 0.0, sharers=sharers, rail=rail),
        Level("spine", devices, NODE_BYTES_PER_S, 0.0, sharers=sharers,
              oversubscription=oversubscription),
    )  # fmt: skip
    return replace(here, levels=levels)


def machine(devices: int, *, node: int = 4) -> Machine:
    """Give the same as numbers; products have no ramp, and memory 1 GB/s."""
    numbers = {"ramp": 0.0, "memory_bytes_per_s": 1e9}
    return replace(
        Machine.of(cluster(devices, node=node)), **{k: np.asarray(v) for k, v in numbers.items()}
    )


def software(**changes: float) -> Stack:
    """Give software whose factors are 1 and whose surcharges are 0, but for `changes`."""
    plain = {f.name: 0.0 for f in fields(Stack)} | {
        "matrix": 1, "grouped": 1, "fused_attention": 1, "attention": 1,
        "attention_cap_flops_per_s": 1e18, "attention_backward": 2, "pointwise": 1,
        "pointwise_backward": 1, "data_overlap": 1, "gather_overlap": 1, "optimizer_bytes": 1,
    }  # fmt: skip
    return record(Stack, **(plain | changes))


def modern(**changes: float) -> Stack:
    """Give published software without what chance and a step as such cost."""
    values = {
        name: np.asarray(float(v)) for name, v in ({"straggle": 0, "step_s": 0} | changes).items()
    }
    return replace(stack("modern"), **values)


def model(**changes: Any) -> Model:
    """Give a model of two layers with eight numbers for each position."""
    plain = {"layers": 2, "embed": 8, "heads": 2, "kv_heads": 2, "head_dim": 4, "ff": 16,
             "vocab": 32, "positions": 64}  # fmt: skip
    return Model("toy", **(plain | changes))


def plan(
    *, micro_batches: int = 2, schedule: Any = "1f1b", cut: tuple[int, ...] = (), **words: Any
) -> Plan:
    """Give a plan in float32 with two sequences of eight positions in a micro-batch."""
    dp = words.get("dp", 1)
    return Plan.of(
        **({"pp": 1, "dp": 1, "tp": 1, "zero": 0} | words),
        pipeline=Pipeline(schedule, cut),
        numerics=Numerics("float32"),
        batch=Batch(2 * dp * micro_batches, 2, 8),
    )
