"""What trainers cannot be told, or do otherwise: the part that several have in common."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from stretto.emit.job import Job
from stretto.errors import Problem
from stretto.model import Model

Case = tuple[bool, str, str, str]
"""Whether something is the case, and the field, rule and remedy of the problem that it is."""

_KINDS = ((True, "silu"), (False, "gelu"), (False, "gelu_tanh"), (False, "relu2"))


def which(*cases: Case) -> tuple[Problem, ...]:
    """Give the problems of the cases that hold."""
    return tuple(Problem(*text) for holds, *text in cases if holds)


def refused(
    job: Job, who: str, *, orders: Sequence[Sequence[str]], schedules: Collection[str]
) -> tuple[Problem, ...]:
    """Give what a trainer cannot do of a plan for reasons that others have too.

    Args:
        job: What is to be trained.
        who: What the trainer is called.
        orders: The orders of axes, outermost first, that it knows.
        schedules: The pipeline schedules that it knows.
    """
    plan, pipeline = job.plan, job.plan.pipeline
    codec, most = plan.communication.codec, len(job.firsts)
    within = [block for block in pipeline.cut if block not in job.firsts]
    shown = " or ".join(" ".join(order) for order in orders)
    return which(
        (bool(plan.groups), "groups", f"{who} treats all layers alike", "leave groups out"),
        (plan.numerics.dtype == "float64", "numerics.dtype", f"{who} has no float64",
         "use float32 or bfloat16"),
        (codec in ("int8", "powersgd"), "communication.codec",
         f"{who} cannot reduce gradients as {codec}", "use none"),
        (not any(map(job.fits, orders)), "mesh",
         f"{who} lays ranks out as {shown}, and this plan does not",
         "build it from the words pp, dp, cp, tp, ep, etp, zero and shard, in this order"),
        (plan.stages > 1 and pipeline.schedule not in schedules, "pipeline.schedule",
         f"{who} has no {pipeline.schedule}", f"use {', '.join(schedules)}"),
        (pipeline.chunks > 1 and job.words.pp == 1, "pipeline.interleave",
         f"{who} interleaves over pipeline ranks, but pp is 1", "use interleave = 1"),
        (bool(within), "pipeline.cut", f"{who} cuts between layers, but {within} lie within one",
         "leave it empty, or cut between layers"),
        (plan.stages > most, "mesh.pp",
         f"{who} cuts between layers, which gives {most} stages at most, not {plan.stages}",
         "use fewer stages"),
        (job.nodes > 1 and job.world % job.per_node > 0, "mesh",
         f"{job.world} ranks do not fill nodes of {job.per_node}",
         "state how many devices a node has"),
    )  # fmt: skip


def refused_model(
    model: Model, who: str, *, kinds: Collection[tuple[bool, str]] = _KINDS
) -> tuple[Problem, ...]:
    """Give what a trainer cannot do of a model for reasons that others have too.

    Args:
        model: What is trained.
        who: What the trainer is called.
        kinds: Whether feed-forward blocks are gated, and their activation, as far as it knows.
    """
    kind = f"{'gated ' * model.gated}{model.activation}"
    return which(
        (model.chunk > 0, "model.chunk", f"{who} has no attention in chunks",
         "choose a model without"),
        ((model.gated, model.activation) not in kinds, "model.activation", f"{who} has no {kind}",
         f"use {', '.join('gated ' * gated + name for gated, name in kinds)}"),
    )  # fmt: skip


def noted(job: Job, who: str) -> tuple[Problem, ...]:
    """Give what a trainer does otherwise than the plan says, as others do too.

    Args:
        job: What is to be trained.
        who: What the trainer is called.
    """
    plan, recompute = job.plan, job.plan.memory.recompute
    return which(
        (recompute == "selective", "memory.recompute",
         f"the plan runs attention blocks again, {who} less, and so keeps more",
         "leave room for it, or use full"),
        (recompute == "full" and plan.memory.recompute_layers is None, "memory.recompute",
         f"the plan runs the head again too, {who} layers alone", "leave room for the logits"),
        (plan.communication.hierarchy != "flat", "communication.hierarchy",
         "how a reduction crosses nodes is for NCCL to choose", "see NCCL_ALGO"),
        (plan.numerics.compile and who != "torchtitan", "numerics.compile",
         f"{who} is not told to use torch.compile", "expect its own kernels"),
        (job.model.activation == "gelu", "model.activation",
         f"{who} takes gelu in its tanh form where it fuses the bias", "expect rounding to differ"),
    )  # fmt: skip
