"""What makes a plan impossible: by itself, for a model, on a cluster. All of it, not the first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields

from stretto.cluster import Cluster
from stretto.errors import Problem
from stretto.model import Model
from stretto.plan.resting import resting_bytes
from stretto.plan.tables import rule_problems
from stretto.plan.value import Batch, Decisions
from stretto.units import show_bytes


def problems_on(plan: Decisions, model: Model, cluster: Cluster | None) -> tuple[Problem, ...]:
    """Give all that makes a plan impossible for `model`, and on `cluster` if there is one."""
    found = [*own_problems(plan), *_model_problems(plan, model)]
    if cluster is not None:
        found += _size_problems(plan, cluster)
        found += _precision_problems(plan, cluster)
        found += _memory_problems(plan, model, cluster) if not found else ()
    return tuple(found)


def own_problems(plan: Decisions) -> list[Problem]:
    """Give all that makes a plan impossible whatever the model."""
    rules, numbers = list(_rule_problems(plan)), list(_number_problems(plan))
    uncounted = any(p.field.rpartition(".")[2] in ("batch", "seq", "time") for p in rules)
    divided = () if numbers or uncounted else _division_problems(plan)
    return [*rules, *numbers, *_choice_problems(plan), *_group_problems(plan), *divided]


def _rule_problems(plan: Decisions) -> Iterator[Problem]:
    if "pp" in dict(plan.mesh.views):
        yield Problem("mesh.views.pp", "pp cuts the chain of blocks and is no view", "rename it")
    yield from rule_problems(plan.mesh, plan.rules)
    for i, group in enumerate(plan.groups):
        if group.rules is not None:
            yield from rule_problems(plan.mesh, group.rules, f"groups.{i}.rules")


def _number_problems(plan: Decisions) -> Iterator[Problem]:
    """Numbers that are out of their range."""
    counts = [(f"batch.{f.name}", getattr(plan.batch, f.name)) for f in fields(Batch)]
    counts.append(("pipeline.interleave", plan.pipeline.interleave))
    if plan.memory.recompute_layers is not None:
        counts.append(("memory.recompute_layers", plan.memory.recompute_layers))
    for name, count in counts:
        if count < 1:
            yield Problem(name, f"is {count}, below 1", "use 1 or more")
    for name in ("offload", "optimizer_offload"):
        share = getattr(plan.memory, name)
        if not 0 <= share <= 1:
            yield Problem(f"memory.{name}", f"is {share}, no share", "use 0 to 1")
    if plan.communication.bucket_bytes < 1:
        yield Problem(
            "communication.bucket", f"is {plan.communication.bucket_bytes} B, below 1 B",
            "write 25MiB",
        )  # fmt: skip


def _choice_problems(plan: Decisions) -> Iterator[Problem]:
    """Choices that contradict each other."""
    schedule, interleave = plan.pipeline.schedule, plan.pipeline.interleave
    if interleave > 1 and schedule not in ("interleaved", "breadth-first", "zb-v"):
        rule = f"is {interleave}, but {schedule} has 1 stage on a rank"
        remedy = "use 1, or the schedule interleaved or breadth-first"
        yield Problem("pipeline.interleave", rule, remedy)
    if interleave > 2 and schedule == "zb-v":
        yield Problem(
            "pipeline.interleave", f"is {interleave}, but zb-v has 2 stages on a rank", "use 2"
        )
    memory, communication, numerics = plan.memory, plan.communication, plan.numerics
    if memory.recompute_layers is not None and memory.recompute != "full":
        rule = f"is {memory.recompute_layers}, but recompute is {memory.recompute}"
        yield Problem("memory.recompute_layers", rule, 'use "all", or recompute = "full"')
    if communication.codec == "powersgd" and plan.words.zero >= 2:
        rule = "powersgd reduces whole matrices, but gradients rest in shards"
        remedy = "leave out rules.gradient, or choose bfloat16 or int8"
        yield Problem("communication.codec", rule, remedy)
    if communication.tensor_overlap and plan.words.tp > 1 and not plan.words.sequence:
        rule = "needs activations that tensor-parallel ranks split between blocks"
        yield Problem(
            "communication.tensor_overlap", rule, "add a rule for seq, or set it to false"
        )
    if numerics.matrix != "same" and numerics.dtype == "float64":
        rule = f"is {numerics.matrix}, but dtype is float64"
        yield Problem("numerics.matrix", rule, 'use "same", or dtype = "bfloat16"')


def _group_problems(plan: Decisions) -> Iterator[Problem]:
    before = 0
    for i, group in enumerate(plan.groups):
        first, stop = group.layers
        if not 0 <= first < stop:
            remedy = "write the first layer and the one after the last: [0, 8]"
            yield Problem(f"groups.{i}.layers", f"[{first}, {stop}] holds no layer", remedy)
        elif first < before:
            rule = f"begins at {first}, before the end of another at {before}"
            yield Problem(f"groups.{i}.layers", rule, "order groups by layer, without overlap")
        if group.recompute is None and group.rules is None:
            yield Problem(f"groups.{i}", "changes nothing", "state recompute or rules")
        before = max(before, stop)


def _division_problems(plan: Decisions) -> Iterator[Problem]:
    """Batches and sequences that do not come out even."""
    batch, replicas, pp = plan.batch, plan.replicas, plan.extent("pp")
    unit = replicas * batch.micro_batch
    if batch.sequences % unit:
        near = max(unit, batch.sequences // unit * unit)
        yield Problem(
            "batch.sequences",
            f"must be divisible by replicas × micro_batch, but {batch.sequences} % ({replicas} × "
            f"{batch.micro_batch}) = {batch.sequences % unit}",
            f"use {near}, or another micro_batch",
        )
    elif plan.pipeline.schedule == "interleaved" and plan.stages > pp and plan.micro_batches % pp:
        yield Problem(
            "batch.sequences",
            f"interleaved takes micro-batches in rounds of pp, but {plan.micro_batches} % {pp} = "
            f"{plan.micro_batches % pp}",
            f"use {max(1, plan.micro_batches // pp) * pp * unit}, or another schedule",
        )
    yield from _position_problems(plan, "no rule for seq")
    for i, group in enumerate(plan.groups):
        own = plan.at(group.layers[0]) if group.rules is not None else plan
        if unit % own.replicas:
            yield Problem(
                f"groups.{i}.rules.compute.batch",
                f"must divide the {unit} sequences that run at once, but {unit} % {own.replicas} = "
                f"{unit % own.replicas}",
                "use another micro_batch, or other axes",
            )
        if own is not plan:
            yield from _position_problems(own, f"no rule for seq in groups.{i}")


def _position_problems(plan: Decisions, otherwise: str) -> Iterator[Problem]:
    seq, split, context = plan.batch.seq, plan.split("seq"), plan.split("time")
    unit = math.lcm(split, 2 * context) if context > 1 else split
    near = max(unit, seq // unit * unit)
    if seq % split:
        yield Problem(
            "batch.seq",
            f"must be divisible by the ranks that split it, but {seq} % {split} = {seq % split}",
            f"use {near}, or {otherwise}",
        )
    elif context > 1 and seq % (2 * context):
        yield Problem(
            "batch.seq",
            "each of the ranks that split positions in use takes one part from the front and one "
            f"from the back, but {seq} % (2 × {context}) = {seq % (2 * context)}",
            f"use {near}, or no rule for time",
        )


def _model_problems(plan: Decisions, model: Model) -> Iterator[Problem]:
    if model.rope is None and plan.batch.seq > model.positions:
        yield Problem(
            "batch.seq",
            f"{plan.batch.seq} positions, but the model has learned {model.positions}",
            f"use at most {model.positions}",
        )
    experts, split = model.experts, plan.split("expert")
    if experts % split:
        yield Problem(
            "rules.compute.expert",
            f"must split experts evenly, but {experts} % {split} = {experts % split}",
            f"use a divisor of {experts}",
        )
    count, cut = len(model.blocks), plan.pipeline.cut
    if plan.stages > count:
        each = f" ({plan.pipeline.chunks} on a rank)" if plan.pipeline.chunks > 1 else ""
        yield Problem(
            "mesh.pp", f"{plan.stages} stages{each}, but the model has {count} blocks",
            f"use at most {count // plan.pipeline.chunks}",
        )  # fmt: skip
    if cut and (
        len(cut) != plan.stages or cut[0] != 0 or list(cut) != sorted(set(cut)) or cut[-1] >= count
    ):
        yield Problem(
            "pipeline.cut",
            f"{list(cut)} is not {plan.stages} ascending block numbers from 0 below {count}",
            'use "balanced"',
        )
    for i, group in enumerate(plan.groups):
        if group.layers[1] > model.layers:
            yield Problem(
                f"groups.{i}.layers",
                f"{list(group.layers)} ends after the last of {model.layers} layers",
                f"end at {model.layers} or before",
            )


def _size_problems(plan: Decisions, cluster: Cluster) -> Iterator[Problem]:
    if plan.mesh.size != cluster.devices:
        shape = " × ".join(f"{n} {e}" for n, e in plan.mesh.axes)
        yield Problem(
            "mesh", f"{shape} = {plan.mesh.size} ranks, but there are {cluster.devices}",
            f"change the mesh, or run on {plan.mesh.size} ranks",
        )  # fmt: skip


def _precision_problems(plan: Decisions, cluster: Cluster) -> Iterator[Problem]:
    matrix = plan.numerics.matrix
    for device in dict.fromkeys(part.device for part in cluster.parts):
        if matrix != "same" and matrix not in dict(device.flops_per_s):
            rule = f"{device.name} has no matrix products in {matrix}"
            yield Problem("numerics.matrix", rule, 'use "same"')


def _memory_problems(plan: Decisions, model: Model, cluster: Cluster) -> Iterator[Problem]:
    resting = resting_bytes(plan, model)
    if resting > cluster.memory_bytes:
        yield Problem(
            "mesh",
            f"weights, gradients and optimizer state need {show_bytes(resting)} on a rank, but a "
            f"device has {show_bytes(cluster.memory_bytes)}",
            "shard more (rules.parameter.embed), or use more ranks",
        )
