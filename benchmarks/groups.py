"""What is compared with what: the groups, their contenders, and the ratio that is aimed at.

A new contender is one more entry. A rival names the Stretto contender that stands against it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from benchmarks import ddp, fsdp, ours, pipelining, plain, tensor_parallel
from benchmarks.config import Build, Config
from stretto.plan import Pipeline, Plan


@dataclass(frozen=True, slots=True)
class Contender:
    """One entry of a group.

    Attributes:
        name: In the table; one that begins with ``stretto`` is no rival.
        build: Prepares a rank.
        config: The model, the batch, threads and precision.
        against: The name of the Stretto contender that a rival is compared with.
        target: The least ratio of Stretto's tokens per second to the rival's.
    """

    name: str
    build: Build
    config: Config
    against: str = ""
    target: float = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """Contenders that take turns.

    Attributes:
        name: On the command line.
        title: In the table.
        world: Ranks of each contender.
        contenders: In the order of their turns.
        rate: Of the link of each rank's own host, as `tc` writes it; empty: all on one host.
    """

    name: str
    title: str
    world: int
    contenders: tuple[Contender, ...]
    rate: str = ""


_BASE = Config()


def _single(threads: int) -> tuple[Contender, ...]:
    float32 = replace(_BASE, threads=threads)
    bf16 = replace(float32, precision="bf16")
    end = f"{threads} thread" + "s" * (threads > 1)
    alone = partial(ours.build, plan=Plan.of)
    return (
        Contender(f"stretto, float32, {end}", alone, float32),
        Contender(f"stretto, bf16, {end}", alone, bf16),
        Contender(f"plain loop, float32, {end}", plain.build, float32,
                  f"stretto, float32, {end}", 0.97),
        Contender(f"plain loop, bf16 autocast, {end}", plain.build, bf16,
                  f"stretto, bf16, {end}", 0.97),
        Contender(f"plain loop, bf16 weights and float32 masters, {end}", plain.build_master, bf16,
                  f"stretto, bf16, {end}", 0.97),
    )  # fmt: skip


def _data() -> tuple[Contender, ...]:
    view = partial(ddp.build, bucket_view=True)
    static = partial(ddp.build, bucket_view=True, static_graph=True)
    fsdp_keep, fsdp_free = partial(fsdp.build, reshard=False), partial(fsdp.build, reshard=True)
    return (
        Contender("stretto, replicated", partial(ours.build, plan=Plan.of, dp=2), _BASE),
        Contender("stretto, sharded", partial(ours.build, plan=Plan.of, dp=2, zero=3), _BASE),
        Contender("DDP", ddp.build, _BASE, "stretto, replicated", 1.0),
        Contender("DDP, bucket view", view, _BASE, "stretto, replicated", 1.0),
        Contender("DDP, bucket view, static graph", static, _BASE, "stretto, replicated", 1.0),
        Contender("FSDP2, reshard after forward", fsdp_free, _BASE, "stretto, sharded", 1.10),
        Contender("FSDP2, no reshard", fsdp_keep, _BASE, "stretto, sharded", 1.10),
    )


def _tensor() -> tuple[Contender, ...]:
    forms: tuple[tuple[str, tensor_parallel.Form, str], ...] = (
        ("DTensor", "plain", "stretto, tensor"),
        ("DTensor, loss parallel", "loss", "stretto, tensor"),
        ("DTensor, sequence and loss parallel", "sequence", "stretto, tensor and sequence"),
    )
    split = partial(ours.build, plan=Plan.of, tp=2)
    return (
        Contender("stretto, tensor", partial(split, sequence=False), _BASE),
        Contender("stretto, tensor and sequence", split, _BASE),
        *(
            Contender(name, partial(tensor_parallel.build, form=form), _BASE, against, 1.35)
            for name, form, against in forms
        ),
    )


def _pipeline() -> tuple[Contender, ...]:
    # The head costs as much as two layers, so the balanced cut gives the last stage fewer.
    cuts = (("even cut 4 + 4", 4, 1.12), ("balanced cut 5 + 3", 5, 1.0))
    orders: tuple[pipelining.Order, ...] = ("GPipe", "1F1B")
    mine = tuple(
        Contender(
            f"stretto, {order}",
            partial(ours.build, plan=Plan.of, pp=2, micro_batches=_BASE.micro_batches,
                    pipeline=Pipeline(schedule)),
            _BASE,
        )
        for order, schedule in (("GPipe", "gpipe"), ("1F1B", "1f1b"))
    )  # fmt: skip
    return mine + tuple(
        Contender(
            f"pipelining, {order}, {name}",
            partial(pipelining.build, order=order, cuts=(cut,)),
            _BASE,
            f"stretto, {order}",
            target,
        )
        for order in orders
        for name, cut, target in cuts
    )


def _network() -> tuple[Contender, ...]:
    sharded = partial(ours.build, plan=Plan.of, dp=4, zero=3)
    kinds = (("FSDP2, reshard after forward", True), ("FSDP2, no reshard", False))
    return (
        Contender("stretto, sharded", sharded, _BASE),
        *(
            Contender(name, partial(fsdp.build, reshard=reshard), _BASE, "stretto, sharded", 1.3)
            for name, reshard in kinds
        ),
    )


def _recording() -> tuple[Contender, ...]:
    """Steps that are all recorded beside steps that none is.

    Where a step that is recorded takes at most half as long again, one in 50 costs 1 % at most.
    """
    sharded = partial(ours.build, plan=Plan.of, dp=2, zero=3)
    staged = partial(
        ours.build, plan=Plan.of, pp=2, micro_batches=_BASE.micro_batches, pipeline=Pipeline("1f1b")
    )
    return tuple(
        contender
        for name, build in (("sharded", sharded), ("1F1B", staged))
        for contender in (
            Contender(f"stretto, {name}, all recorded", partial(build, record_every=1), _BASE),
            Contender(f"{name}, none recorded", build, _BASE, f"stretto, {name}, all recorded",
                      1 / 1.5),
        )
    )  # fmt: skip


def groups() -> tuple[Group, ...]:
    """Everything that can be compared, in the order of the table."""
    return (
        Group("single", "One process", 1, (*_single(1), *_single(2))),
        Group("data", "Data, 2 ranks of 1 thread", 2, _data()),
        Group("tensor", "Tensor, 2 ranks of 1 thread", 2, _tensor()),
        Group("pipeline", "Pipeline, 2 ranks of 1 thread", 2, _pipeline()),
        Group("recording", "Recording timelines, 2 ranks of 1 thread", 2, _recording()),
        Group("network", "4 hosts at 1 Gbit/s, a rank each", 4, _network(), rate="1gbit"),
    )
