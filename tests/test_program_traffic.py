"""How many bytes a rank sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.layout import Kind, Step
from stretto.model import Model
from stretto.plan import Batch, Numerics, Plan
from stretto.program.instruction import Move, Program, Role, Send
from stretto.program.lower import lower
from stretto.program.traffic import sent_bytes, traffic

MODEL = Model(
    "small", layers=2, embed=8, heads=2, kv_heads=2, head_dim=4, ff=16, vocab=16, positions=16
)


@given(st.integers(1, 16), st.integers(1, 1000))
def test_an_all_reduce_is_a_scatter_and_a_gather(ranks: int, part: int) -> None:
    block = ranks * part
    scatter = sent_bytes(Step(Kind.REDUCE_SCATTER, ("a",), dim=0), block, ranks=ranks)
    gather = sent_bytes(Step(Kind.ALL_GATHER, ("a",), dim=0), part, ranks=ranks)
    both = sent_bytes(Step(Kind.ALL_REDUCE, ("a",)), block, ranks=ranks)
    assert scatter == gather == (ranks - 1) * part
    assert both == scatter + gather


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (Kind.ALL_GATHER, 300),
        (Kind.ALL_REDUCE, 150),
        (Kind.REDUCE_SCATTER, 75),
        (Kind.ALL_TO_ALL, 75),
        (Kind.SLICE, 0),
        (Kind.MASK, 0),
    ],
)
def test_each_of_four_ranks_sends_what_the_step_must(kind: Kind, size: int) -> None:
    assert sent_bytes(Step(kind, ("a",), dim=0, to=1), 100, ranks=4) == size


def sent(program: Program, role: Role) -> dict[tuple[str, ...], int]:
    """Bytes that a rank of the first stage sends of one role, by axes."""
    stage = program.stages[0]
    sizes: dict[tuple[str, ...], int] = {}
    for instruction in stage.instructions:
        moves = isinstance(instruction, Move | Send)
        if moves and stage.buffers[instruction.input[0]].role is role:
            for axes, size in traffic(instruction, stage, program.placement):
                sizes[axes] = sizes.get(axes, 0) + size
    return sizes


def test_replicas_send_their_gradients_as_a_ring_does() -> None:
    program = lower(MODEL, Plan.of(dp=4, batch=Batch(4, 1, 8)))
    assert sent(program, Role.GRADIENT) == {("dp",): 2 * 3 * 4 * MODEL.parameter_count // 4}


def test_gradients_in_bfloat16_travel_in_float32() -> None:
    plan = Plan.of(dp=4, zero=3, batch=Batch(4, 1, 8), numerics=Numerics("bfloat16"))
    program = lower(MODEL, plan)
    assert sent(program, Role.GRADIENT) == {("dp",): 3 * 4 * MODEL.parameter_count // 4}


def test_hybrid_sharding_sends_only_shards_outside() -> None:
    program = lower(MODEL, Plan.of(dp=4, zero=2, shard=2, batch=Batch(4, 1, 8)))
    assert sent(program, Role.GRADIENT) == {
        ("shard",): 4 * MODEL.parameter_count // 2,
        ("replica",): 2 * 4 * MODEL.parameter_count // 2 // 2,
    }


def test_a_stage_sends_the_residual_stream_of_each_micro_batch() -> None:
    program = lower(MODEL, Plan.of(pp=2, batch=Batch(3, 1, 8)))
    assert sent(program, Role.ACTIVATION) == {("pp",): 3 * 8 * 8 * 4}


def test_padding_travels_too() -> None:
    """A width of 8 over three ranks is 9 at rest."""
    program = lower(MODEL, Plan.of(dp=3, zero=3, batch=Batch(3, 1, 8)))
    stage = program.stages[0]
    (place,) = [
        i
        for i in stage.instructions
        if isinstance(i, Move) and i.legs[0].source == "g0.m0:embedding.token"
    ]
    assert traffic(place, stage, program.placement) == ((("dp",), 2 * 16 * 9 * 4 // 3),)


def test_what_stays_on_the_rank_is_no_traffic() -> None:
    program = lower(MODEL, Plan.of(batch=Batch(1, 1, 8)))
    (stage,) = program.stages
    assert not any(traffic(i, stage, program.placement) for i in stage.instructions)
