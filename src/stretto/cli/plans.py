"""Which plan is meant: read from a file, made from words, or a sensible one for this machine."""

from __future__ import annotations

import importlib.metadata
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stretto.cli.models import batch_for, model_of
from stretto.cluster import Cluster, Part, local
from stretto.errors import ModelError, PlanError, Problem
from stretto.model import Model
from stretto.plan import Plan, override
from stretto.plan.toml import MODEL
from stretto.presets import PRESETS
from stretto.units import show_bytes

PROCESS_BYTES = 30e6
"""Of a rank's process, what it does not share with its parent; measured on Linux."""

_LOGITS = 2**24  # of a micro-batch, where nobody stated its size: 64 MiB of them


@dataclass(frozen=True, slots=True)
class Wish:
    """What is known of a plan before it is made.

    Attributes:
        base: The plan of a file or of a run; None for none.
        binding: Whether `base` is what the user named: then words for a mesh contradict it.
        mesh: Words for a mesh, as `Plan.of` takes them.
        changes: (dotted key, value) to set.
        ranks: How many ranks there are to be; None for what suits plan and machine.
    """

    base: Plan | None = None
    binding: bool = False
    mesh: Mapping[str, Any] | None = None
    changes: Sequence[tuple[str, Any]] = ()
    ranks: int | None = None


def read_plan(path: Path) -> Plan:
    """Give the plan in a file, or that of a run.

    Raises:
        PlanError: It cannot be read; all that is wrong with it.
    """
    path = path / "plan.toml" if path.is_dir() else path
    try:
        return Plan.from_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        remedy = "name a plan in TOML, or the directory of a run"
        raise PlanError(Problem(str(path), f"cannot be read: {reason}", remedy)) from None
    except PlanError as error:
        raise PlanError(
            replace(p, field=f"{path.name}: {p.field}") for p in error.problems
        ) from None


def model_in(path: Path) -> str | None:
    """Give the model that the plan in a file, or of a run, was made for: a preset or a path.

    None if it says nothing of that.
    """
    path = path / "plan.toml" if path.is_dir() else path
    try:
        name = tomllib.loads(path.read_text(encoding="utf-8")).get(MODEL)
    except (OSError, ValueError):
        return None  # `read_plan` says what is wrong
    if not isinstance(name, str) or not name:
        return None
    if name in PRESETS:
        return name
    there = path.resolve().parent / name
    return str(there) if "/" in name or "." in name or there.exists() else name


def model_beside(path: Path) -> Model:
    """Give the model that the plan in a file was made for, or the one that is shipped.

    Raises:
        ModelError: What is wrong with it, as the file's.
    """
    try:
        return model_of(model_in(path))
    except ModelError as error:
        key = f"{path.name}: {MODEL}"
        raise ModelError(
            replace(p, field=key if p.field == MODEL else f"{key} {p.field}")
            for p in error.problems
        ) from None


def plan_of(wish: Wish, model: Model | None) -> Plan:
    """Give the plan that is meant; `Plan.check` says whether it can run.

    Raises:
        PlanError: All that contradicts itself, and keys or values that no plan has.
    """
    mesh = wish.mesh or {}
    if wish.binding and mesh:
        raise PlanError(
            Problem(
                key, "the plan's file states mesh and rules", f"write mesh.{key}=…, or leave it out"
            )
            for key in mesh
        )
    base = wish.base
    suits = base is not None and wish.ranks in (None, base.mesh.size)
    if base is not None and (wish.binding or (suits and not mesh)):
        return override(base, wish.changes)
    plan = override(_meshed(base, mesh, ranks=wish.ranks, model=model), wish.changes)
    return plan if "batch.micro_batch" in dict(wish.changes) else _batched(plan, model)


def crowded(ranks: int) -> Iterator[Problem]:
    """Give a problem where ranks on this machine are more than it has memory for as processes."""
    has = local(devices=1).memory_bytes
    if ranks * PROCESS_BYTES > has:
        rule = (
            f"{ranks:,} ranks take {show_bytes(ranks * PROCESS_BYTES)} as processes alone, and "
            f"this machine has {show_bytes(has)}"
        )
        yield Problem("--nproc", rule, f"use at most {int(has / PROCESS_BYTES):,}")


def _meshed(
    base: Plan | None, mesh: Mapping[str, Any], *, ranks: int | None, model: Model | None
) -> Plan:
    """Give `base`, or a plan that nobody stated, on a mesh for `ranks`."""
    plan = base or Plan(batch=batch_for(model))
    inner = mesh.get("pp", 1) * mesh.get("cp", 1) * mesh.get("tp", 1)
    if ranks is not None and "dp" not in mesh and ranks % inner:
        named = "pp × cp × tp" if "cp" in mesh else "pp × tp"
        rule = f"must be divisible by {named}, but {ranks} % {inner} = {ranks % inner}"
        raise PlanError(
            Problem("nproc", rule, f"use {max(1, ranks // inner) * inner}, or state dp")
        )
    if ranks is None:
        share = max(1, devices() // inner)
        dp = max(d for d in range(1, share + 1) if plan.batch.sequences % d == 0)
    else:
        dp = ranks // inner
    words = {"dp": dp, "zero": 1, **mesh}
    made = Plan.of(**words)
    return replace(plan, mesh=made.mesh, rules=made.rules, pipeline=replace(plan.pipeline, cut=()))


def _batched(plan: Plan, model: Model | None) -> Plan:
    """Give the plan with micro-batches that divide each replica's share, and fill the pipeline."""
    share, rest = divmod(plan.batch.sequences, plan.replicas)
    if rest or not share:
        return plan
    fits = _LOGITS // (plan.batch.seq * model.vocab) if model else plan.batch.micro_batch
    most = max(1, min(plan.batch.micro_batch, share // plan.stages, fits))
    size = max(m for m in range(1, most + 1) if share % m == 0)
    return replace(plan, batch=replace(plan.batch, micro_batch=size))


def devices() -> int:
    """Give how many ranks this machine has devices for: its GPUs, else its cores."""
    return gpus() or local().devices


def cluster_of(ranks: int, *, here: int) -> Cluster:
    """Give the machines on which `ranks` run, `here` of them on this one, as one like it."""
    # Each host shares its memory among the ranks that it runs.
    return replace(local(devices=ranks), parts=(Part(local(devices=here).device, ranks),))


def gpus() -> int:
    """Give how many NVIDIA devices PyTorch would see, without importing it."""
    if importlib.metadata.version("torch").endswith("+cpu"):
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def in_words(plan: Plan) -> str:
    """Give a plan in a line."""
    axes = [f"{name} {extent}" for name, extent in plan.mesh.axes if extent > 1]
    stores = [
        what
        for what, table in (
            ("parameters", plan.rules.parameter),
            ("gradients", plan.rules.gradient),
            ("optimizer state", plan.rules.optimizer),
        )
        if table and plan.replicas > 1
    ]
    batch = plan.batch
    parts = [
        " × ".join(axes) or "one rank",
        *([f"{', '.join(stores)} sharded"] if stores else []),
        *_policies(plan),
        plan.numerics.dtype + (" compiled" if plan.numerics.compile else ""),
        f"{batch.sequences} sequences × {batch.seq} tokens a step, "
        f"{plan.micro_batches} × {batch.micro_batch} a replica",
    ]
    return "; ".join(parts)


def _policies(plan: Plan) -> Iterator[str]:
    """Give, in words, what the plan chooses beside mesh, rules and batch."""
    pipeline, memory, communication = plan.pipeline, plan.memory, plan.communication
    if plan.split("expert") > 1:
        yield f"experts over {plan.split('expert')}"
    if plan.stages > 1:
        each = f", {pipeline.chunks} stages a rank" if pipeline.chunks > 1 else ""
        yield pipeline.schedule + each
    if memory.recompute != "none":
        some = f" of {memory.recompute_layers} layers a stage" if memory.recompute_layers else ""
        yield f"{memory.recompute} recompute{some}"
    for share, what in ((memory.offload, "activations"), (memory.optimizer_offload, "optimizer")):
        if share:
            yield f"{share:.0%} of {what} offloaded"
    if communication.codec != "none":
        yield f"{communication.codec} gradients"
    if communication.hierarchy != "flat":
        yield f"{communication.hierarchy} reduction"
    if plan.numerics.matrix != "same":
        yield f"{plan.numerics.matrix} products"
    if plan.groups:
        apart = sum(stop - first for first, stop in (group.layers for group in plan.groups))
        yield f"{apart} layers apart"
