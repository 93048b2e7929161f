"""Stretto as a contender: a plan, lowered and executed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.config import Config, Step
from benchmarks.plain import batches
from stretto.data.feed import MicroBatch
from stretto.model import Model
from stretto.plan import Batch, Numerics, Plan
from stretto.program.lower import lower
from stretto.recipe import Recipe
from stretto.runtime.executor import Executor
from stretto.runtime.rank import Rank
from stretto.runtime.recorder import recorder
from stretto.runtime.state import fill, fresh
from stretto.runtime.world import World, process_groups


def model(config: Config) -> Model:
    """The decoder of the benchmark as Stretto's model."""
    return Model(
        "benchmark", layers=config.layers, embed=config.width, heads=config.heads,
        kv_heads=config.heads, head_dim=config.width // config.heads, ff=config.hidden,
        vocab=config.vocabulary, positions=config.length,
    )  # fmt: skip


def build(
    rank: int,
    world: int,
    *,
    config: Config,
    plan: Callable[..., Plan],
    micro_batches: int = 1,
    record_every: int = 0,
    **options: Any,
) -> Step:
    """A rank of a plan.

    Args:
        rank: This process.
        world: Processes.
        config: The model, the batch and the optimizer.
        plan: Gives the plan from a batch and numerics.
        micro_batches: Micro-batches of a step on each replica.
        record_every: Steps between two whose timeline is recorded; 0 for none.
        options: What else the plan takes.
    """
    numerics = Numerics("bfloat16" if config.precision == "bf16" else "float32")
    made = plan(numerics=numerics, **options)
    size = config.sequences // (made.replicas * micro_batches)
    made = replace(made, batch=Batch(config.sequences, size, config.length))
    program = lower(model(config), made)
    here = World(rank, world, 0, world, "")
    recipe = Recipe(
        lr=config.learning_rate, schedule="constant", warmup=0.0, beta2=0.999,
        weight_decay=config.weight_decay, clip=config.clip, seed=config.seed,
    )  # fmt: skip
    mine = Rank(program, rank, torch.device("cpu"), process_groups(program, here), recipe)
    home = tempfile.TemporaryDirectory(prefix="bench-recorded-")
    recorded = recorder(mine, here, Path(home.name), every=record_every, first=0, note=print)
    executor = Executor(mine, recorded)
    fill(mine, fresh(seed=config.seed, shape=program.model.shape))
    axes = dict(made.rules.compute).get("batch", ())
    share = program.placement.mesh.index(rank, axes)
    source = batches(config, share=share, shares=made.replicas)
    steps = iter(range(10**9))

    def step() -> Tensor | None:
        assert home.name, "recordings stay as long as the steps"
        inputs_BT, targets_BT = next(source)
        parts = zip(inputs_BT.split(size), targets_BT.split(size), strict=True)
        outcome = executor.step([_micro_batch(*part) for part in parts], step=next(steps))
        return torch.tensor(outcome.loss)

    return step


def _micro_batch(tokens_BT: Tensor, targets_BT: Tensor) -> MicroBatch:
    tokens = tokens_BT.contiguous().numpy()
    return MicroBatch(tokens, targets_BT.contiguous().numpy(), None, tokens)
