"""Tasks that tests search, small and large."""

from __future__ import annotations

from stretto.cluster import find
from stretto.model import Model
from stretto.presets import PRESETS
from stretto.search import Task

EXPERTS = Model(
    "experts",
    layers=8,
    embed=512,
    heads=8,
    kv_heads=4,
    head_dim=64,
    ff=1536,
    vocab=4096,
    positions=8192,
    experts=8,
    top_k=2,
    expert_ff=512,
)


def task(
    name: str = "llama-3-8b", cluster: str = "h100x16", *, sequences: int = 64, seq: int = 4096
) -> Task:
    """Give a task by the names of its model and its cluster."""
    model = EXPERTS if name == "experts" else PRESETS[name]
    whole = find(cluster.rpartition("x")[0], devices=4096)
    return Task(model, find(cluster), sequences, min(seq, model.positions), system=whole)


TASKS = (
    task(),
    task("llama-3-70b", "h100x64", sequences=512, seq=8192),
    task("gpt2", "a100-40gbx12", sequences=96, seq=1024),
    task("experts", "h100x32", sequences=128, seq=4096),
    task("smollm2-135m", "h100x24", sequences=48, seq=8192),
)
