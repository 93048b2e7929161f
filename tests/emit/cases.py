"""Models and plans for the tests of what is written for other trainers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from stretto.emit import Emitted, Trainer, emit
from stretto.errors import PlanError
from stretto.model import Model
from stretto.plan import Batch, Communication, Memory, Numerics, Pipeline, Plan

LLAMA = Model(
    "little", layers=8, embed=64, heads=8, kv_heads=8, head_dim=8, ff=128, vocab=256, positions=128
)
EXPERTS = replace(
    LLAMA, name="sparse", experts=8, top_k=2, expert_ff=32, family="qwen3_moe", qk_norm=True
)


def plan_of(*, micro_batches: int = 4, micro_batch: int = 2, **parts: Any) -> Plan:
    """Give a plan in bfloat16 with so many micro-batches."""
    sections = {"numerics": Numerics("bfloat16")} | parts
    bare = Plan.of(**sections)
    sequences = bare.replicas * micro_batch * micro_batches
    return replace(bare, batch=Batch(sequences, micro_batch, 64))


def written(trainer: Trainer, plan: Plan, *, model: Model = LLAMA, **more: Any) -> dict[str, str]:
    """Give the files that are written, by name."""
    return dict(emit(trainer, model=model, plan=plan, **more).files)


def attempt(trainer: Trainer, plan: Plan, *, model: Model = LLAMA, **more: Any) -> Emitted | None:
    """Give what is written, or None where that is refused."""
    try:
        return emit(trainer, model=model, plan=plan, **more)
    except PlanError:
        return None


def fields_refused(trainer: Trainer, plan: Plan, *, model: Model = LLAMA) -> set[str]:
    """Give the fields of the problems for which a plan is refused."""
    try:
        emit(trainer, model=model, plan=plan)
    except PlanError as error:
        return {problem.field for problem in error.problems}
    return set()


ODD = (
    "context", "shard", "schedule", "selective", "layers", "offload", "regather", "codec",
    "overlap", "compile", "matrix", "zero",
)  # fmt: skip
"""What makes a plan one that not every trainer takes."""


@st.composite
def plans(draw: st.DrawFn, *, odd: int = 2) -> Plan:
    """Draw plans that differ from plain ones in at most `odd` ways."""
    ways = draw(st.sets(st.sampled_from(ODD), max_size=odd))

    def pick(way: str, plain: Any, *others: Any) -> Any:
        return draw(st.sampled_from(others)) if way in ways else plain

    pp, dp = draw(st.sampled_from((1, 1, 2, 4))), draw(st.sampled_from((1, 2, 4)))
    cp = pick("context", 1, 2)
    schedules = ("gpipe", "interleaved", "breadth-first", "zb-1p", "zb-2p", "zb-v", "vocabulary")
    schedule = pick("schedule", "1f1b", *schedules)
    looped = schedule in ("interleaved", "breadth-first") and pp > 1
    zero = pick("zero", draw(st.sampled_from((0, 1, 3))), 2)
    recompute = pick("selective", draw(st.sampled_from(("none", "full"))), "selective")
    return plan_of(
        pp=pp, dp=dp, cp=cp, tp=draw(st.sampled_from((1, 2, 4))),
        zero=zero, shard=pick("shard", 0, 2) if zero and dp * cp > 1 else 0,
        sequence=draw(st.booleans()),
        micro_batches=pp * draw(st.sampled_from((1, 2))),
        micro_batch=draw(st.sampled_from((1, 2))),
        pipeline=Pipeline(schedule, interleave=2 if looped else 1),
        memory=Memory(
            recompute,
            recompute_layers=pick("layers", None, 1) if recompute == "full" else None,
            optimizer_offload=pick("offload", 0.0, 0.5, 1.0),
            regather=pick("regather", True, False),
        ),
        communication=Communication(
            bucket_bytes=draw(st.sampled_from((2**20, 25 * 2**20))),
            codec=pick("codec", "none", "bfloat16"),
            tensor_overlap=pick("overlap", False, True),
        ),
        numerics=Numerics(
            draw(st.sampled_from(("float32", "bfloat16"))),
            compile=pick("compile", False, True),
            matrix=pick("matrix", "same", "float8", "float4"),
        ),
    )  # fmt: skip
