"""Does a plan compute the same as one rank? Run both, and the array reference, in float64.

Loss and every gradient of two optimizer steps are compared; weights changed by the first step are
what the second one starts from.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.fx.experimental.symbolic_shapes  # autograd does; once, before ranks are forked
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from stretto.data.feed import IGNORE, MicroBatch
from stretto.errors import PlanError
from stretto.layout import Box, Layout
from stretto.model import Model
from stretto.plan import Batch, Memory, Numerics, Pipeline, Plan
from stretto.program.instruction import Program
from stretto.program.lower import lower
from stretto.program.verify import verify
from stretto.recipe import Recipe
from stretto.reference import Reference
from stretto.rules import Store
from stretto.runtime.executor import Executor
from stretto.runtime.launch import spawn
from stretto.runtime.rank import Rank
from stretto.runtime.state import fill, fresh
from stretto.runtime.world import World, process_groups

STEPS = 2
TOLERANCE = 1e-9
Array = NDArray[np.float64]
Batches = Callable[[int, int, int], MicroBatch]
"""(step, replica, micro-batch) → micro-batch."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What some steps computed.

    Attributes:
        losses: Mean loss of each step.
        gradients: Mean gradient of each parameter at each step, whole.
    """

    losses: tuple[float, ...]
    gradients: tuple[Mapping[str, Array], ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two traces are apart.

    Attributes:
        loss: Worst relative difference of the loss.
        gradient: Worst relative difference of a gradient: of norms, |a - b| / |b|.
        parameter: The parameter where that is.
    """

    loss: float
    gradient: float
    parameter: str

    @property
    def worst(self) -> float:
        """The larger of the two."""
        return max(self.loss, self.gradient)


def exact(plan: Plan) -> Plan:
    """Give `plan` in float64, eager."""
    return replace(plan, numerics=Numerics("float64"))


def alone(plan: Plan) -> Plan:
    """Give the plan of one rank that sees the same sequences in a step, all in one micro-batch."""
    batch = Batch(plan.batch.sequences, plan.batch.sequences, plan.batch.seq)
    return Plan.of(batch=batch, numerics=plan.numerics, memory=Memory(), pipeline=Pipeline())


def shrunk(model: Model, plan: Plan) -> tuple[Model, Plan]:
    """Give a model and a batch small enough to compare here, under the same mesh and rules.

    What the plan depends on is kept: the ratio of heads to key heads, ties, norms, biases, windows;
    and enough layers that each stage has blocks of its own.
    """
    layers = min(model.layers, max(2, plan.stages))
    group = model.heads // model.kv_heads
    kv = min(model.kv_heads, 3 if model.kv_heads % 2 else 4)
    small = replace(
        model,
        layers=layers,
        embed=min(model.embed, 24),
        kv_heads=kv,
        heads=kv * min(group, 3),
        head_dim=min(model.head_dim, 8),
        ff=min(model.ff, 40),
        vocab=min(model.vocab, 67),
        positions=min(model.positions, 64),
        window=min(model.window, 5),
        full_layers=tuple(i for i in model.full_layers if i < layers),
    )
    split = plan.mesh.extent(*dict(plan.rules.compute).get("seq", ()))
    micro_batches = min(plan.micro_batches, 2 * plan.stages + 1)
    batch = Batch(plan.replicas * micro_batches, 1, max(12 // split, 1) * split)
    cut = plan.pipeline.cut if layers == model.layers else ()
    return small, replace(plan, batch=batch, pipeline=replace(plan.pipeline, cut=cut))


def invented(model: Model, plan: Plan, *, seed: int) -> Batches:
    """Give batches of random tokens, documents and unpredicted positions.

    Which row is which depends on the step and the row's number only, not on the plan.
    """

    def batches(step: int, replica: int, micro_batch: int) -> MicroBatch:
        size = plan.batch.micro_batch
        first = (micro_batch * plan.replicas + replica) * size
        rows = [_row(model, plan.batch.seq, (seed, step, first + k)) for k in range(size)]
        tokens, targets, documents, positions = (np.stack(part) for part in zip(*rows, strict=True))
        return MicroBatch(tokens, targets, documents.astype(np.int32), positions)

    return batches


def _row(model: Model, seq: int, key: tuple[int, int, int]) -> tuple[NDArray[Any], ...]:
    rng = np.random.default_rng(key)
    tokens = rng.integers(0, model.vocab, seq)
    targets = np.where(rng.random(seq) < 0.15, IGNORE, rng.integers(0, model.vocab, seq))
    starts = rng.random(seq) < 0.2
    starts[0] = False
    documents = np.cumsum(starts)
    begins = np.maximum.accumulate(np.where(starts, np.arange(seq), 0))
    return tokens, targets, documents, np.arange(seq) - begins


def run(program: Program, batches: Batches, *, recipe: Recipe) -> Trace:
    """Give what a program computes on as many local ranks as it needs."""
    with tempfile.TemporaryDirectory(prefix="stretto-") as directory:
        folder = Path(directory)
        spawn(lambda world: _work(program, batches, recipe, folder, world),
              nproc=program.placement.mesh.size)  # fmt: skip
        return _collect(program, folder)


def _work(program: Program, batches: Batches, recipe: Recipe, folder: Path, world: World) -> None:
    torch.set_num_threads(1)
    rank = Rank(program, world.rank, torch.device("cpu"), process_groups(program, world), recipe)
    executor = Executor(rank)
    fill(rank, fresh(seed=recipe.seed, shape=program.model.shape))
    mesh = program.placement.mesh
    replica = mesh.index(world.rank, dict(program.plan.rules.compute).get("batch", ()))
    kept: dict[str, torch.Tensor] = {}
    step = 0

    def keep(parameter: str, layout: Layout, gradient: torch.Tensor) -> None:
        if layout.owns(mesh=mesh, rank=world.rank, besides=("pp",)):
            kept[f"{step}/{parameter}"] = gradient.contiguous()

    rank.gradients = keep
    for step in range(STEPS):
        micro_batches = (batches(step, replica, m) for m in range(program.plan.micro_batches))
        outcome = executor.step(micro_batches, step=step)
        kept[f"{step}//loss"] = torch.tensor(outcome.loss, dtype=torch.float64)
    rank.settle()
    save_file(kept, folder / f"{world.rank}.safetensors")


def _collect(program: Program, folder: Path) -> Trace:
    """Put the owners' boxes together."""
    losses = [0.0] * STEPS
    gradients: list[dict[str, Array]] = [{} for _ in range(STEPS)]
    for rank in range(program.placement.mesh.size):
        with safe_open(folder / f"{rank}.safetensors", framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118 — not a mapping
                step, name = int(key.split("/", 1)[0]), key.split("/", 1)[1]
                if name == "/loss":
                    losses[step] = float(file.get_tensor(key))
                else:
                    _place(program, gradients[step], name, rank, file.get_tensor(key))
    return Trace(tuple(losses), tuple(gradients))


def _place(program: Program, whole: dict[str, Array], name: str, rank: int, block: Array) -> None:
    placement = program.placement
    parameter = next(p for p in program.model.parameters if p.name == name)
    layout = placement.resting(parameter, Store.OPTIMIZER)
    shape = placement.rest_shape(parameter, layout)
    box: Box = layout.box(shape, mesh=placement.mesh, rank=rank)
    true = program.model.shape(parameter)
    target = whole.setdefault(name, np.zeros(true))
    into = tuple(slice(min(a, n), min(b, n)) for (a, b), n in zip(box, true, strict=True))
    target[into] = block[tuple(slice(0, s.stop - s.start) for s in into)]


def reference(program: Program, batches: Batches, *, recipe: Recipe) -> Trace:
    """Give what the array reference computes, playing every rank."""
    player = Reference(program, seed=recipe.seed)
    losses, gradients = [], []
    for step in range(STEPS):
        outcome = player.step(partial(batches, step), recipe=recipe, step=step)
        losses.append(outcome.loss)
        gradients.append(outcome.gradients)
    return Trace(tuple(losses), tuple(gradients))


def difference(a: Trace, b: Trace) -> Difference:
    """Give the worst relative differences between two traces.

    A gradient far below the largest of its step is held against a thousandth of that: those of key
    biases, say, are zero but for rounding.
    """
    loss = max(_finite(abs(x - y) / abs(y)) for x, y in zip(a.losses, b.losses, strict=True))
    worst = (0.0, "")
    for mine, other in zip(a.gradients, b.gradients, strict=True):
        floor = 1e-3 * max(float(np.linalg.norm(g)) for g in other.values())
        for name, gradient in other.items():
            gap = float(np.linalg.norm(mine[name] - gradient))
            size = max(float(np.linalg.norm(gradient)), floor)
            worst = max(worst, (_finite(gap / size), name))
    return Difference(loss, *worst)


def _finite(difference: float) -> float:
    """Give a difference; infinity for one that is not a number, which no maximum would show."""
    return math.inf if math.isnan(difference) else difference


def check(model: Model, plan: Plan, *, seed: int) -> Iterator[tuple[str, Difference]]:
    """Give how far a plan is from one rank, and from the array reference.

    Args:
        model: What is trained; see `shrunk`.
        plan: The plan.
        seed: Of weights and batches.

    Raises:
        PlanError: The program of the plan is wrong before it runs; see `program.verify`.
    """
    plan = exact(plan)
    recipe = Recipe(steps=STEPS, lr=1e-2, warmup=0.5, seed=seed)
    batches, single = invented(model, plan, seed=seed), alone(plan)
    program = lower(model, plan)
    problems = verify(program)
    if problems:
        raise PlanError(problems)
    here = run(program, batches, recipe=recipe)
    one = run(lower(model, single), invented(model, single, seed=seed), recipe=recipe)
    yield "one rank", difference(here, one)
    arrays = reference(lower(model, single), invented(model, single, seed=seed), recipe=recipe)
    yield "array reference", difference(here, arrays)
