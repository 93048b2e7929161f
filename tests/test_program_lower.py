"""`lower`: the moves that a plan needs, no more; in the order that hides them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretto.errors import ModelError, PlanError
from stretto.layout import Kind
from stretto.model import Model
from stretto.plan import Batch, Communication, Memory, Numerics, Pipeline, Plan
from stretto.program.cut import block_cost, stage_cut
from stretto.program.draw import draw
from stretto.program.group import groups
from stretto.program.instruction import (
    Compute,
    Instruction,
    Move,
    Phase,
    Program,
    Recv,
    Role,
    Send,
    StageProgram,
    Update,
    Vote,
)
from stretto.program.lower import lower
from stretto.program.traffic import traffic
from stretto.rules import Placement

MODEL = Model(
    "small", layers=2, embed=16, heads=4, kv_heads=2, head_dim=4, ff=32, vocab=64, positions=64
)
ONE = Batch(sequences=1, micro_batch=1, seq=8)  # a micro-batch for one replica
TWO, FOUR = Batch(2, 1, 8), Batch(4, 1, 8)  # one for each of two, of four


def messages(stage: StageProgram, role: Role | None = None) -> Counter[tuple[Kind, str]]:
    """How many messages of each kind go over which axes, of buffers of one role or of all."""
    return Counter(
        (step.kind, "·".join(step.axes))
        for move in stage.instructions
        if isinstance(move, Move)
        for step in move.legs[0].steps
        if step.communicates and (role is None or stage.buffers[move.legs[0].source].role is role)
    )


def sent(program: Program, axis: str) -> int:
    """Bytes that a rank of the first stage sends over one axis in a step."""
    stage = program.stages[0]
    return sum(
        size
        for instruction in stage.instructions
        for axes, size in traffic(instruction, stage, program.placement)
        if axes == (axis,)
    )


def computes(stage: StageProgram, phase: Phase) -> list[Compute]:
    return [i for i in stage.instructions if isinstance(i, Compute) and i.phase is phase]


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_all_ranks_but_those_of_other_stages_do_the_same(seed: int) -> None:
    model, plan = draw(seed)
    program = lower(model, plan)
    assert len(program.stages) == plan.stages
    for rank in range(plan.mesh.size):
        stage = program.placement.mesh.coordinate(rank).get("pp", 0)
        assert program.of(rank) is program.stages[stage]


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_lowering_twice_gives_the_same_program(seed: int) -> None:
    model, plan = draw(seed)
    first, second = lower(model, plan), lower(model, plan)
    assert [s.instructions for s in first.stages] == [s.instructions for s in second.stages]
    assert [s.buffers for s in first.stages] == [s.buffers for s in second.stages]


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_one_rank_neither_moves_nor_sends(seed: int) -> None:
    model, plan = draw(seed, ranks=1)
    (stage,) = lower(model, plan).stages
    assert not [i for i in stage.instructions if isinstance(i, Move | Send | Recv)]


# ── what goes over which axis ────────────────────────────────────────────────────────────────────


def test_replicas_reduce_each_gradient_once_however_many_micro_batches() -> None:
    plan = Plan.of(dp=2, batch=Batch(sequences=24, micro_batch=4, seq=8))
    assert plan.micro_batches == 3
    (stage,) = lower(MODEL, plan).stages
    assert messages(stage) == {(Kind.ALL_REDUCE, "dp"): 1}


def test_tensor_parallelism_reduces_twice_a_layer_in_each_pass() -> None:
    """The f and g of Shoeybi et al., 2019; and over the vocabulary once in, once out."""
    (stage,) = lower(MODEL, Plan.of(tp=2, sequence=False, batch=ONE)).stages
    activations = messages(stage, Role.ACTIVATION)
    # 2 layers × 2 blocks × 2 passes; embedding; the head's maximum, its two sums together, its
    # backward
    assert activations == {(Kind.ALL_REDUCE, "tp"): 8 + 1 + 3}


def test_sequence_sharding_gathers_and_scatters_instead() -> None:
    """Korthikanti et al., 2022: an all-reduce is a reduce-scatter and an all-gather."""
    (stage,) = lower(MODEL, Plan.of(tp=2, batch=ONE)).stages
    activations = messages(stage, Role.ACTIVATION)
    # a block gathers what it reads and scatters what it writes, in each of two passes; so does the
    # head on its left, and the embedding on its right
    assert activations[Kind.ALL_GATHER, "tp"] == 4 * 2 + 1 + 1
    assert activations[Kind.REDUCE_SCATTER, "tp"] == 4 * 2 + 1 + 1
    assert activations[Kind.ALL_REDUCE, "tp"] == 2  # the loss: maximum, and sums
    # norms see a share of the positions each, so that their gradients are sums
    assert messages(stage, Role.GRADIENT) == {(Kind.ALL_REDUCE, "tp"): 1}


def test_sharded_states_cost_no_more_than_replicas_and_sharded_weights_half_as_much_again() -> None:
    """Rajbhandari et al., 2020, section 7."""
    step = {zero: sent(lower(MODEL, Plan.of(dp=4, zero=zero, batch=FOUR)), "dp")
            for zero in range(4)}  # fmt: skip
    one = 3 * 4 * MODEL.parameter_count // 4  # (n - 1)/n of float32
    assert step[0] == step[1] == step[2] == 2 * one
    ends = (MODEL.blocks[0], MODEL.blocks[-1])
    once = sum(math.prod(MODEL.shape(p)) for block in ends for p in block.parameters)
    # the backward of a lookup reads no weights; those of the head are there still for its own
    assert step[3] == 3 * one - 3 * 4 * once // 4


def test_hybrid_sharding_scatters_inside_on_every_micro_batch_and_reduces_outside_once() -> None:
    batch = Batch(sequences=8, micro_batch=1, seq=8)
    (stage,) = lower(MODEL, Plan.of(dp=4, zero=2, shard=2, batch=batch)).stages
    assert messages(stage, Role.GRADIENT) == {
        (Kind.REDUCE_SCATTER, "shard"): 2 * len(MODEL.blocks),
        (Kind.ALL_REDUCE, "replica"): 1,
    }


def test_reduction_is_cut_into_buckets_that_overlap_the_backward() -> None:
    plan = Plan.of(dp=2, batch=TWO, communication=Communication(bucket_bytes=1))
    (stage,) = lower(MODEL, plan).stages
    assert messages(stage) == {(Kind.ALL_REDUCE, "dp"): len(MODEL.blocks)}
    kinds = [
        "move" if isinstance(i, Move) else "backward"
        for i in stage.instructions
        if isinstance(i, Move) or (isinstance(i, Compute) and i.phase is Phase.BACKWARD)
    ]
    assert kinds == ["backward", "move"] * len(MODEL.blocks)


def test_updates_are_cut_into_buckets_too() -> None:
    plan = Plan.of(dp=2, zero=1, batch=TWO, communication=Communication(bucket_bytes=1))
    (stage,) = lower(MODEL, plan).stages
    updates = [i for i in stage.instructions if isinstance(i, Update)]
    assert [len(u.weights) for u in updates] == [1] * len(MODEL.parameters)


def test_reductions_are_in_float32_where_blocks_compute_in_bfloat16() -> None:
    plan = Plan.of(dp=2, zero=3, batch=TWO, numerics=Numerics("bfloat16"))
    (stage,) = lower(MODEL, plan).stages
    for move in (i for i in stage.instructions if isinstance(i, Move)):
        for leg in move.legs:
            source, target = stage.buffers[leg.source], stage.buffers[leg.target]
            wanted = "float32" if source.role is Role.GRADIENT else "bfloat16"
            assert target.dtype == wanted
    assert {s.dtype for s in stage.buffers.values() if s.role is Role.STATE} == {"float32"}
    assert "master:head.weight" in stage.buffers


# ── the order that hides moves ───────────────────────────────────────────────────────────────────


def position(stage: StageProgram, wanted: Instruction) -> int:
    return stage.instructions.index(wanted)


def test_the_weights_of_the_next_block_are_on_their_way_before_a_block_runs() -> None:
    (stage,) = lower(MODEL, Plan.of(dp=2, zero=3, batch=TWO)).stages
    forwards = computes(stage, Phase.FORWARD)
    written = {
        name: i for i, instruction in enumerate(stage.instructions) for name in instruction.output
    }
    for before, after in pairwise(forwards):
        for _, buffer in after.parameters:
            assert written[buffer] < position(stage, before)


def test_a_backward_reads_the_weights_again_so_that_they_need_not_be_kept() -> None:
    (stage,) = lower(MODEL, Plan.of(dp=2, zero=3, batch=TWO)).stages
    forward = {c.block: set(c.parameters) for c in computes(stage, Phase.FORWARD)}
    for compute in computes(stage, Phase.BACKWARD):
        if compute.block == 0:  # the backward of a lookup reads none
            assert compute.parameters == ()
            continue
        assert dict(compute.parameters).keys() == dict(forward[compute.block]).keys()
        kept = compute.block == len(MODEL.blocks) - 1
        assert (set(compute.parameters) == forward[compute.block]) is kept


def test_a_receive_is_posted_before_the_work_before_its_reader() -> None:
    plan = Plan.of(pp=2, batch=Batch(3, 1, 8), pipeline=Pipeline("gpipe"))
    stage = lower(MODEL, plan).stages[1]
    receives = [i for i in stage.instructions if isinstance(i, Recv)]
    assert [r.tag for r in receives] == ["x.m0", "x.m1", "x.m2"]
    first = [c for c in computes(stage, Phase.FORWARD) if c.block == stage.blocks[0]]
    for receive, compute in zip(receives[1:], first, strict=False):
        assert position(stage, receive) < position(stage, compute)


# ── recomputation ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("recompute", "again"),
    [
        ("none", set()),
        ("selective", {"layers.0.attention", "layers.1.attention"}),
        # the head's backward follows at once
        ("full", {f"layers.{i}.{b}" for i in range(2) for b in ("attention", "feed_forward")}),
    ],
)
def test_blocks_run_again_as_the_plan_says(recompute: str, again: set[str]) -> None:
    plan = Plan.of(tp=2, batch=ONE, memory=Memory(recompute))  # type: ignore[arg-type]
    program = lower(MODEL, plan)
    (stage,) = program.stages
    assert {program.chain[c.block].name for c in computes(stage, Phase.RECOMPUTE)} == again
    for compute in computes(stage, Phase.FORWARD):
        of_a_sum = [s.name for s in program.segments(compute)] == ["add"]
        keeps = program.chain[compute.block].name not in again and not of_a_sum
        assert bool(compute.graph) == keeps


# ── stages ───────────────────────────────────────────────────────────────────────────────────────


def test_stages_are_cut_by_cost_unless_the_plan_says_where() -> None:
    plan = Plan.of(pp=2)
    costs = [block_cost(MODEL, b, positions=plan.batch.seq) for b in MODEL.blocks]
    halves = {cut: max(sum(costs[:cut]), sum(costs[cut:])) for cut in range(1, len(costs))}
    assert stage_cut(MODEL, plan) == (0, min(halves, key=lambda cut: halves[cut]))
    assert stage_cut(MODEL, replace(plan, pipeline=Pipeline(cut=(0, 5)))) == (0, 5)


def test_a_large_vocabulary_leaves_the_last_stage_fewer_layers() -> None:
    """MODEL has as much work in its head as a layer has; with 100 times that, it is alone."""
    large = replace(MODEL, vocab=6400)
    assert stage_cut(large, Plan.of(pp=2)) == (0, len(large.blocks) - 1)


def test_tied_embeddings_on_two_stages_exchange_their_gradients_once() -> None:
    tied = replace(MODEL, tied=True)
    program = lower(tied, Plan.of(pp=3, batch=FOUR))
    tags = [
        (stage.stage, type(i).__name__, i.by)
        for stage in program.stages
        for i in stage.instructions
        if isinstance(i, Send | Recv) and i.tag == "tie:embedding.token"
    ]
    assert tags == [(0, "Recv", 2), (0, "Send", 2), (2, "Recv", -2), (2, "Send", -2)]
    voted = [
        program.stages[0].buffers[g].parameter
        for stage in program.stages
        for i in stage.instructions
        if isinstance(i, Vote)
        for g in i.gradients
        if g.endswith("embedding.token")
    ]
    assert voted == ["embedding.token"]


def test_tied_embeddings_on_one_stage_exchange_nothing() -> None:
    tied = replace(MODEL, tied=True)
    (stage,) = lower(tied, Plan.of(batch=FOUR)).stages
    assert not [i for i in stage.instructions if isinstance(i, Send | Recv)]


def test_the_cotangent_of_the_summed_loss_is_one_over_the_positions_of_a_step() -> None:
    assert lower(MODEL, Plan.of(dp=2, batch=Batch(4, 2, 8))).loss_scale == 1 / 32


def test_a_plan_that_cannot_run_is_refused_with_all_its_problems() -> None:
    with pytest.raises(PlanError) as error:
        lower(MODEL, Plan.of(pp=7, dp=2, batch=Batch(3, 1, 8)))
    assert [p.field for p in error.value.problems] == ["batch.sequences", "mesh.pp"]


# ── groups ───────────────────────────────────────────────────────────────────────────────────────


def grouped(plan: Plan, block: int) -> list[str]:
    placement = Placement(MODEL, plan.mesh, plan.rules)
    return ["·".join(s.name for s in g.segments) for g in groups(MODEL.blocks[block], placement)]


def test_segments_run_together_where_nothing_moves_between_them() -> None:
    assert grouped(Plan.of(dp=2), 1) == ["norm·attend·add"]
    assert grouped(Plan.of(dp=2), 5) == ["norm·logits·sums·loss"]
    assert grouped(Plan.of(tp=2, sequence=False), 1) == ["norm·attend", "add"]
    assert grouped(Plan.of(tp=2, sequence=False), 5) == ["norm·logits", "sums", "loss"]
    assert grouped(Plan.of(tp=2), 1) == ["norm", "attend", "add"]
    assert grouped(Plan.of(tp=2), 5) == ["norm", "logits", "sums", "loss"]


def test_a_maximum_over_the_vocabulary_is_reduced_once_for_its_two_readers() -> None:
    (stage,) = lower(MODEL, Plan.of(tp=2, sequence=False, batch=ONE)).stages
    maxima = [i for i in stage.instructions if isinstance(i, Move) and i.route[0][2] == "max"]
    assert len(maxima) == 1


def test_a_mixture_of_experts_is_summed_over_the_ranks_that_split_their_units() -> None:
    mixed = replace(MODEL, experts=4, top_k=2, expert_ff=8, shared_ff=8)
    plan = Plan.of(tp=2, batch=ONE, sequence=False)
    dense, experts = (messages(lower(m, plan).stages[0]) for m in (MODEL, mixed))
    assert experts == dense


def test_a_model_that_predicts_several_tokens_is_not_lowered() -> None:
    with pytest.raises(ModelError, match="multi-token prediction, which can be planned"):
        lower(replace(MODEL, mtp_layers=1), Plan.of(batch=ONE))
