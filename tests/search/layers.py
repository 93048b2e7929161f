"""Small tasks whose layers are shared out, and all ways to do it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stretto.cluster import Cluster, find
from stretto.cost import SCHEDULES
from stretto.model import Model
from stretto.search import RECOMPUTES, Row, Task
from stretto.search.frame import Frame, Split

FOUR = Model(
    "four", layers=4, embed=1024, heads=8, kv_heads=8, head_dim=128, ff=4096, vocab=32_000,
    positions=4096,
)  # fmt: skip
"""Four layers, of which the head is worth about two and a half."""

NARROW = replace(FOUR, name="narrow", vocab=1024)
"""The same with a head that weighs little."""

WINDOWED = replace(FOUR, name="windowed", window=512, full_layers=(1, 3), vocab=1024)
"""Two kinds of layer, in turn."""


def tight(name: str, *, memory_bytes: float) -> Cluster:
    """Give a cluster by its name with another memory on each device."""
    cluster = find(name)
    parts = tuple(
        replace(part, device=replace(part.device, memory_bytes=memory_bytes))
        for part in cluster.parts
    )
    return replace(cluster, parts=parts)


def row(task: Task, schedule: str = "1f1b", **decisions: float) -> Row:
    """Give the decisions of a plan: those given, and for the others the simplest."""
    names = {
        "pp": 1, "dp": 1, "cp": 1, "tp": 1, "ep": 1, "etp": 1, "order": 0, "micro_batch": 1,
        "zero": 0, "shard": 1, "regather": 1, "schedule": SCHEDULES.index(schedule),
        "interleave": 1, "recompute": 0, "recompute_layers": 0, "sequence": 0,
        "tensor_overlap": 0, "two_level": 0, "codec": 0, "offload": 0, "optimizer_offload": 0,
        **decisions,
    }  # fmt: skip
    names["micro_batches"] = task.sequences / (names["dp"] * names["micro_batch"])
    return Row(**{name: np.asarray(float(value)) for name, value in names.items()})


def all_splits(frame: Frame, *, others: bool = False) -> Iterator[Split]:
    """Give all ways in which ranks with one stage each may share the layers.

    Args:
        frame: What else is decided.
        others: Whether layers may rest by the other ZeRO stage.
    """
    of_layer, ways = frame.kinds.of_layer, len(RECOMPUTES)
    layers = len(of_layer)
    for inner in itertools.combinations_with_replacement(range(layers + 1), frame.ranks - 1):
        spans = [range(a, b) for a, b in itertools.pairwise((0, *inner, layers))]
        if any(not span for span in spans[1:-1]):
            continue
        seen = set()
        for chosen in itertools.product(range(ways), repeat=layers):
            again = np.zeros((frame.ranks, ways, len(frame.kinds)))
            for rank, span in enumerate(spans):
                for layer in span:
                    again[rank, chosen[layer], of_layer[layer]] += 1
            if again.tobytes() in seen:
                continue  # layers of a kind are alike
            seen.add(again.tobytes())
            counts = [range(len(span) + 1) if others else (0,) for span in spans]
            for other in itertools.product(*counts):
                spread = np.array(other, dtype=np.float64)
                yield Split(frame, tuple(map(tuple, spans)), again, spread)
