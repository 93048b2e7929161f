"""A training run on one rank: start, step, evaluate, checkpoint, stop when asked."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.fx.experimental.symbolic_shapes  # autograd does; once, before ranks are forked

from stretto.checkpoint import io as checkpoints
from stretto.checkpoint.manifest import Manifest
from stretto.data.feed import Feed, MicroBatch
from stretto.data.prefetch import Prefetch
from stretto.data.tokens import TokenSet
from stretto.errors import CheckpointError, PlanError, Problem
from stretto.layout import Box
from stretto.model import Model, Parameter
from stretto.plan import Plan
from stretto.program.forward import forward_only
from stretto.program.instruction import Program
from stretto.program.lower import lower
from stretto.recipe import Recipe
from stretto.runtime.evaluate import evaluate
from stretto.runtime.executor import Executor
from stretto.runtime.probe import matrix_rate, peak_bytes
from stretto.runtime.rank import DTYPES, Rank
from stretto.runtime.recorder import recorder
from stretto.runtime.state import Source, fill, fresh, piece_name, pieces
from stretto.runtime.weights import read_box
from stretto.runtime.world import World, process_groups


@dataclass(frozen=True, slots=True)
class Job:
    """A training run, the same on every rank.

    Attributes:
        model: What is trained.
        plan: How.
        recipe: Optimizer, learning rates and length.
        train: Tokens to train on.
        valid: Tokens held out.
        checkpoints: The directory of checkpoints.
        checkpoint_every: Steps between two checkpoints; 0 for one at the end only.
        evaluate_every: Steps between two evaluations; 0 for one at the end only.
        weights: Where to start: a directory in Hugging Face format; None for fresh weights.
        resume: Whether to go on from the newest checkpoint that is whole.
        mask_documents: Whether attention stays within a document.
        keep: Checkpoints that are kept.
        home: The directory of the run, for recorded steps; None to record none.
        record_every: Steps between two that are recorded; 0 for none.
        peak_flops_per_s: Of a device, by which MFU counts; None to measure it.
    """

    model: Model
    plan: Plan
    recipe: Recipe
    train: TokenSet
    valid: TokenSet
    checkpoints: Path
    checkpoint_every: int = 0
    evaluate_every: int = 0
    weights: Path | None = None
    resume: bool = False
    mask_documents: bool = True
    keep: int = 2
    home: Path | None = None
    record_every: int = 0
    peak_flops_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What there is to say after a step.

    Attributes:
        step: Steps done.
        steps: Steps of the run.
        loss: Mean training loss of the step, in nats per token.
        norm: Gradient norm before clipping.
        lr: Learning rate.
        tokens: Tokens seen so far.
        tokens_per_s: Of the last step, over all ranks.
        mfu: Model FLOPs of the step over those of the devices' peak in its time.
        memory_bytes: The most that a rank has held so far.
        data_wait: Share of the step spent waiting for data.
        overhead: The interpreter's share of the step.
        step_s: Seconds of the step.
        eta_s: Seconds to the end at this pace.
        valid_loss: Held-out loss, where this step ended with an evaluation.
        saved: The checkpoint, where this step ended with one.
        applied: Whether the step counted; not if its loss or gradient was not finite.
        predicted_s: What `step_s` was predicted to be, if it was.
    """

    step: int
    steps: int
    loss: float
    norm: float
    lr: float
    tokens: int
    tokens_per_s: float
    mfu: float
    memory_bytes: int
    data_wait: float
    overhead: float
    step_s: float
    eta_s: float
    valid_loss: float | None = None
    saved: Path | None = None
    applied: bool = True
    predicted_s: float | None = None


Report = Callable[[Record], None]


def train(
    job: Job, world: World, *, report: Report, note: Callable[[Problem], None] = lambda _: None
) -> int | None:
    """Train on this rank.

    Args:
        job: The run.
        world: This rank.
        report: Called on rank 0 after every step.
        note: Told of what is wrong but does not keep the run from going on, on the rank that found
            it: checkpoints that are damaged, where an older one is whole.

    Returns:
        The signal at which it stopped before the end; None if it did all steps.

    Raises:
        StrettoError: What cannot be, found before any rank computes.
    """
    stopping = _Stopping()
    program = lower(job.model, job.plan)
    if program.placement.mesh.size != world.size:
        raise PlanError(_world_problem(program, world))
    groups = process_groups(program, world)
    rank = Rank(program, world.rank, world.device, groups, job.recipe)
    first = _start(job, rank, world, note=note)
    recorded = recorder(rank, world, job.home, every=job.record_every, first=first, note=note)
    executor = Executor(rank, recorded)
    trial = Executor(rank.on(forward_only(program)))
    dtype = DTYPES[job.plan.numerics.dtype]
    dist.barrier()
    rate = job.peak_flops_per_s or matrix_rate(world.device, dtype)
    rates = torch.tensor([rate], device=world.device)
    dist.all_reduce(rates)
    meter = _Meter(job, world, rate=float(rates), first=first)
    # What there is by now stays. To look through all of it for garbage stops a rank for a fifth of
    # a second, each at another step, and all others wait for it.
    gc.freeze()
    with Prefetch(_builder(job, rank), start=first, stop=job.recipe.steps) as ready:
        for step, batches in enumerate(ready, start=first):
            waited = meter.waited(ready.wait_s)
            asked = stopping.asked > 0
            outcome = executor.step(batches, step=step, stop=asked, waited_s=waited)
            record = meter.record(step, outcome, rank.clock, waited)
            last = step + 1 == job.recipe.steps
            if last or (_due(step + 1, job.evaluate_every) and not outcome.stop):
                rank.settle()
                record["valid_loss"] = evaluate(trial, job.valid, mask_documents=job.mask_documents)
            if last or outcome.stop or _due(step + 1, job.checkpoint_every):
                record["saved"] = save(job, rank, world, step=step + 1)
            if world.rank == 0:
                report(Record(**record))
            meter.go_on()
            if outcome.stop and not last:
                return stopping.asked or signal.SIGTERM
    return None


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _world_problem(program: Program, world: World) -> Problem:
    mesh = program.placement.whole_mesh
    shape = " × ".join(f"{name} {extent}" for name, extent in mesh.axes)
    return Problem(
        "mesh", f"{shape} = {mesh.size} ranks, but {world.size} were started",
        f"start {mesh.size} ranks, or change the mesh",
    )  # fmt: skip


class _Stopping:
    """The signal that asked this rank to stop: SIGINT, SIGTERM or SIGUSR1; 0 for none yet."""

    def __init__(self) -> None:
        self.asked = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._ask)

    def _ask(self, number: int, _: Any) -> None:
        self.asked = self.asked or number


# ── data ─────────────────────────────────────────────────────────────────────────────────────────


def _builder(job: Job, rank: Rank) -> Callable[[int], list[MicroBatch]]:
    batch = job.plan.batch
    feed = Feed(job.train, seq=batch.seq, seed=job.recipe.seed, mask_documents=job.mask_documents)
    return _reader(feed, job.plan, rank.replica)


def _reader(feed: Feed, plan: Plan, replica: int) -> Callable[[int], list[MicroBatch]]:
    def build(step: int) -> list[MicroBatch]:
        return [
            feed.micro_batch(
                step, m, size=plan.batch.micro_batch, replica=replica, replicas=plan.replicas,
                micro_batches=plan.micro_batches,
            )
            for m in range(plan.micro_batches)
        ]  # fmt: skip

    return build


# ── where a run starts and what it leaves ────────────────────────────────────────────────────────


def _start(job: Job, rank: Rank, world: World, *, note: Callable[[Problem], None]) -> int:
    """Fill the rank's state; give the first step."""
    model = job.model
    if job.resume:
        path, manifest, problems = _newest(job, world)
        for problem in problems:
            note(problem)
        fill(rank, _from_checkpoint(path, manifest))
        return manifest.step
    start = fresh(seed=job.recipe.seed, shape=model.shape)
    fill(rank, start if job.weights is None else _from_pretrained(job.weights, model, start))
    return 0


def _newest(job: Job, world: World) -> tuple[Path, Manifest, list[Problem]]:
    """Give the newest checkpoint that is whole, and what this rank found wrong with newer ones.

    Raises:
        CheckpointError: There is none, or it is of another model or other data.
    """
    damaged: list[Problem] = []
    skip: list[Path] = []
    while True:
        try:
            found = checkpoints.find(job.checkpoints, skip=skip)
        except CheckpointError as error:
            raise CheckpointError([*error.problems, *damaged]) from None
        manifest = checkpoints.open_checkpoint(found.path, model=job.model)
        _check_data(job, manifest)
        problems = checkpoints.verify_files(found.path, manifest, part=(world.rank, world.size))
        damaged += problems
        total = torch.tensor([len(problems)], device=world.device)
        dist.all_reduce(total)
        if not int(total):
            return found.path, manifest, [*damaged, *(() if world.rank else found.damaged)]
        skip.append(found.path)


def _from_checkpoint(path: Path, manifest: Manifest) -> Source:
    def source(parameter: Parameter, what: str, box: Box) -> torch.Tensor:
        name = piece_name(parameter.name, what)
        return checkpoints.load(
            path, manifest, name, box, dtype=torch.float64, device=torch.device("cpu")
        )

    return source


def _from_pretrained(directory: Path, model: Model, otherwise: Source) -> Source:
    def source(parameter: Parameter, what: str, box: Box) -> torch.Tensor:
        if what == "weight":
            return read_box(directory, model, parameter, box)
        return otherwise(parameter, what, box)

    return source


def save(job: Job, rank: Rank, world: World, *, step: int) -> Path:
    """Commit a checkpoint of all ranks."""
    return checkpoints.save(
        job.checkpoints,
        step=step,
        model=job.model,
        extra={
            "plan": job.plan.to_toml(),
            "recipe": asdict(job.recipe),
            "data": _data(job),
        },
        pieces=pieces(rank),
        rank=world.rank,
        world=world.size,
        barrier=dist.barrier,
        keep=job.keep,
    )


def _data(job: Job) -> dict[str, Any]:
    """What decides which samples a step sees."""
    batch = job.plan.batch
    return {
        "tokens": job.train.fingerprint[:16],
        "seed": job.recipe.seed,
        "sequences": batch.sequences,
        "seq": batch.seq,
    }


def _check_data(job: Job, manifest: Manifest) -> None:
    """Refuse to go on where the order of samples would not."""
    before, now = manifest.extra.get("data", {}), _data(job)
    problems = [
        Problem(
            f"data.{key}", f"was {before.get(key)!r} when the checkpoint was made, is {value!r}",
            "keep it: which samples are left depends on it; or begin a new run from its weights",
        )
        for key, value in now.items()
        if before.get(key) != value
    ]  # fmt: skip
    if problems:
        raise CheckpointError(problems)


# ── measuring ────────────────────────────────────────────────────────────────────────────────────


class _Meter:
    """Turns outcomes and clocks into records."""

    def __init__(self, job: Job, world: World, *, rate: float, first: int) -> None:
        batch = job.plan.batch
        self.job, self.world, self.first = job, world, first
        self.tokens = batch.sequences * batch.seq
        flops = job.model.step_flops(tokens=self.tokens, positions=batch.seq)
        self.ideal_s = flops / rate
        self.waits = 0.0
        self.mark = time.perf_counter()
        self.pace: list[float] = []

    def waited(self, wait_s: float) -> float:
        """Give the seconds waited for data since the last step."""
        waited, self.waits = wait_s - self.waits, wait_s
        return waited

    def record(self, step: int, outcome: Any, clock: Any, waited_s: float) -> dict[str, Any]:
        """Give the fields of a record."""
        recipe = self.job.recipe
        took_s = time.perf_counter() - self.mark
        self.pace = [*self.pace[-19:], took_s]
        left = recipe.steps - step - 1
        return {
            "step": step + 1,
            "steps": recipe.steps,
            "loss": outcome.loss,
            "norm": outcome.norm,
            "lr": recipe.lr_at(step),
            "tokens": (step + 1) * self.tokens,
            "tokens_per_s": self.tokens / took_s,
            "mfu": self.ideal_s / took_s,
            "memory_bytes": peak_bytes(self.world.device),
            "data_wait": waited_s / took_s,
            "overhead": clock.overhead,
            "step_s": took_s,
            "eta_s": left * sorted(self.pace)[len(self.pace) // 2],
            "applied": outcome.applied,
        }

    def go_on(self) -> None:
        """Begin to time the next step."""
        self.mark = time.perf_counter()
