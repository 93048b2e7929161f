"""What an instruction takes is what its sizes come to by hand, and what the closed form says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulate.toy import LATENCY_S, machine, model, modern, plan, software

from stretto.cluster import find
from stretto.cost import Choice, Machine, Pricing, Shape, Stack
from stretto.cost import stack as named
from stretto.cost.instruction import Prices, messages
from stretto.cost.layer import layer
from stretto.errors import ModelError
from stretto.layout import Kind
from stretto.model import BlockKind
from stretto.plan import Batch, Numerics, Plan
from stretto.presets import preset
from stretto.program.draw import draw
from stretto.program.instruction import (
    Compute,
    Free,
    Move,
    Phase,
    Program,
    Recv,
    Send,
    Update,
    Vote,
)
from stretto.program.lower import lower

TOKENS = 2 * 8
WIDTH = 4  # bytes
MEMORY_S = 1e-9  # for a byte
FLOP_S = 1e-6


def prices(program: Program, *, stack: Stack | None = None, node: int = 4) -> Prices:
    devices = program.placement.mesh.size
    return Prices(program, machine(devices, node=node), stack or software())


def computes(program: Program, kind: BlockKind, phase: Phase) -> list[Compute]:
    """Give the computes of the first block of a kind on the first micro-batch."""
    block = next(i for i, b in enumerate(program.chain) if b.kind is kind)
    return [
        x
        for stage in program.stages
        for x in stage.instructions
        if isinstance(x, Compute) and (x.block, x.phase, x.micro_batch) == (block, phase, 0)
    ]


def found(program: Program, kind: type) -> Any:
    """Give the first instruction of a kind."""
    return next(x for s in program.stages for x in s.instructions if isinstance(x, kind))


# ── on the device ────────────────────────────────────────────────────────────────────────────────


def test_a_feed_forward_takes_its_products_and_what_its_norm_gate_and_sum_move() -> None:
    program = lower(model(), plan())
    (forward,) = computes(program, BlockKind.FEED_FORWARD, Phase.FORWARD)
    flops = 2 * TOKENS * (2 * 16) * 8 + 2 * TOKENS * 8 * 16
    moved = TOKENS * WIDTH * (2 * 8 + (2 * 16 + 16) + 3 * 8)
    expected = flops * FLOP_S + moved * MEMORY_S
    assert prices(program).compute_s(forward) == pytest.approx(expected, rel=1e-12)


def test_a_backward_takes_two_products_for_each_and_adds_up_gradients() -> None:
    program = lower(model(), plan())
    (backward,) = computes(program, BlockKind.FEED_FORWARD, Phase.BACKWARD)
    flops = 2 * (2 * TOKENS * (2 * 16) * 8 + 2 * TOKENS * 8 * 16)
    moved = 3 * TOKENS * WIDTH * (2 * 8 + (2 * 16 + 16) + 3 * 8) + 8 * (2 * 16 * 8 + 16 * 8)
    stack = software(pointwise_backward=3, accumulate_bytes=8)
    expected = flops * FLOP_S + moved * MEMORY_S
    assert prices(program, stack=stack).compute_s(backward) == pytest.approx(expected, rel=1e-12)


def test_attention_takes_its_projections_and_half_of_all_pairs() -> None:
    program = lower(model(), plan())
    (forward,) = computes(program, BlockKind.ATTENTION, Phase.FORWARD)
    products = 2 * TOKENS * 3 * 8 * 8 + 2 * TOKENS * 8 * 8
    # Queries attend to (8 + 1)/2 positions; heads of 4 are 104/8 / (352/256) times as slow as 128.
    scores = 2 * TOKENS * 2 * (4 + 4) * 4.5 * (104 / 8) / (352 / 256)
    moved = TOKENS * WIDTH * (2 * 8 + 2 * 3 * 8 + 3 * 8)
    expected = (products + scores) * FLOP_S + moved * MEMORY_S
    assert prices(program).compute_s(forward) == pytest.approx(expected, rel=1e-12)


def test_attention_that_is_not_fused_makes_and_moves_all_scores() -> None:
    program = lower(model(), plan())
    (forward,) = computes(program, BlockKind.ATTENTION, Phase.FORWARD)
    fused, written = (
        prices(program, stack=software(fused_attention=f, score_bytes=7)).compute_s(forward)
        for f in (1, 0)
    )
    causal = 2 * TOKENS * 2 * (4 + 4) * 4.5 * (104 / 8) / (352 / 256) * FLOP_S
    scores = TOKENS * 2 * 8
    assert written - fused == pytest.approx(
        2 * scores * 8 * FLOP_S + 7 * scores * MEMORY_S - causal, rel=1e-9
    )


def test_a_lookup_moves_as_much_backward_as_forward() -> None:
    program = lower(model(), plan())
    stack = software(pointwise_backward=3)
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        (compute,) = computes(program, BlockKind.EMBEDDING, phase)
        seconds = prices(program, stack=stack).compute_s(compute)
        assert seconds == pytest.approx(3 * TOKENS * 8 * WIDTH * MEMORY_S, rel=1e-12)


def test_the_loss_moves_half_its_bytes_each_way() -> None:
    program = lower(model(), plan())
    for phase, products in ((Phase.FORWARD, 1), (Phase.BACKWARD, 2)):
        (compute,) = computes(program, BlockKind.HEAD, phase)
        moved = 6 / 2 * TOKENS * 32 + (2 * 8 + 3) * TOKENS * WIDTH  # the norm, the loss itself
        expected = products * 2 * TOKENS * 32 * 8 * FLOP_S + moved * MEMORY_S
        seconds = prices(program, stack=software(loss_bytes=6)).compute_s(compute)
        assert seconds == pytest.approx(expected, rel=1e-12)


def test_the_sum_of_a_block_is_added_up_once_in_backward_though_nothing_of_it_runs() -> None:
    whole, split = lower(model(), plan()), lower(model(), plan(tp=2, sequence=True))
    stack = software(pointwise_backward=3)
    phases = (Phase.FORWARD, Phase.BACKWARD)
    for program, ranks in ((whole, 1), (split, 2)):
        forward, backward = (
            sum(
                prices(program, stack=stack).compute_s(c)
                for c in computes(program, BlockKind.FEED_FORWARD, phase)
            )
            for phase in phases
        )
        flops = (2 * TOKENS * (2 * 16) * 8 + 2 * TOKENS * 8 * 16) / ranks
        moved = TOKENS * WIDTH * (2 * 8 + (2 * 16 + 16) + 3 * 8) / ranks
        assert forward == pytest.approx(flops * FLOP_S + moved * MEMORY_S, rel=1e-12)
        assert backward == pytest.approx(2 * flops * FLOP_S + 3 * moved * MEMORY_S, rel=1e-12)


def test_an_update_moves_its_bytes_for_each_element_that_the_rank_owns() -> None:
    for zero, ranks in ((0, 1), (1, 4)):
        program = lower(model(), plan(dp=4, zero=zero))
        stage = program.stages[0]
        seconds = sum(
            prices(program, stack=software(optimizer_bytes=30)).seconds(x, stage)
            for x in stage.instructions
            if isinstance(x, Update)
        )
        count = program.model.parameter_count
        assert seconds == pytest.approx(30 * count / ranks * MEMORY_S, rel=1e-12)


def test_the_host_starts_a_layers_kernels_and_more_of_them_backward() -> None:
    program = lower(model(), plan())
    slow = replace(machine(1), launch_s=np.asarray(1e-3))
    for phase, factor in ((Phase.FORWARD, 1.0), (Phase.BACKWARD, 1.6)):
        both = (BlockKind.ATTENTION, BlockKind.FEED_FORWARD)
        seconds = sum(
            Prices(program, slow, software(kernels=20)).host_s(c)
            for kind in both
            for c in computes(program, kind, phase)
        )
        assert seconds == pytest.approx(20 * 1e-3 * factor, rel=1e-12)


def test_a_device_that_is_its_own_host_does_its_work_and_starts_it_one_after_the_other() -> None:
    """A layer has 20 kernels forward, and 1.6 times as many backward; the loss half of that."""
    program, slow = lower(model(), plan()), {"launch_s": np.asarray(1e-3)}
    beside = Prices(program, replace(machine(1), **slow), software(kernels=20))
    itself = Prices(
        program, replace(machine(1), **slow, host=np.asarray(1.0)), software(kernels=20)
    )
    started = {"attention": 10, "feed_forward": 10, "head": 10, "embedding": 0}
    for phase, factor in ((Phase.FORWARD, 1.0), (Phase.BACKWARD, 1.6)):
        for kind, kernels in started.items():
            (compute,) = computes(program, BlockKind(kind), phase)
            more = itself.compute_s(compute) - beside.compute_s(compute)
            assert more == pytest.approx(kernels * factor * 1e-3, abs=1e-12), kind
            assert itself.host_s(compute) == 0
            assert beside.host_s(compute) == pytest.approx(kernels * factor * 1e-3)


def test_a_host_that_updates_starts_kernels_for_every_weight() -> None:
    program = lower(model(), plan())
    update = found(program, Update)
    slow = {"launch_s": np.asarray(1e-3)}
    beside, itself = (
        Prices(program, replace(machine(1), **slow, host=np.asarray(h)), software(kernels=20))
        for h in (0.0, 1.0)
    )
    (stage,) = program.stages
    more = itself.update_s(update, stage) - beside.update_s(update, stage)
    assert more == pytest.approx(0.1 * 20 * len(update.weights) * 1e-3)


def test_products_in_float64_have_its_rate() -> None:
    single = plan()
    double = replace(single, numerics=Numerics("float64"))
    times = [
        Prices(lower(model(), p), machine(1), software(pointwise=0)).compute_s(
            computes(lower(model(), p), BlockKind.FEED_FORWARD, Phase.FORWARD)[0]
        )
        for p in (single, double)
    ]
    assert times[1] == pytest.approx(2 * times[0])  # of which this device says nothing


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(("llama-3-8b", "qwen3-8b", "gpt2-large", "mistral-7b")),
    st.sampled_from((1, 2, 4)),
    st.booleans(),
    st.sampled_from((1024, 4096)),
    st.sampled_from(("modern", "eager", "megatron-2021", "jax")),
)
def test_the_computes_of_a_layer_take_what_the_closed_form_says(
    name: str, tp: int, sequence: bool, seq: int, software: str
) -> None:
    subject = replace(preset(name), layers=1, window=0, full_layers=(), positions=seq)
    words = Plan.of(
        pp=1, dp=1, tp=tp, zero=0, sequence=sequence, batch=Batch(1, 1, seq),
        numerics=Numerics("bfloat16"),
    )  # fmt: skip
    program, here = lower(subject, words), Machine.of(find("h100x8"))
    pricing = Pricing(Shape.of(subject), Choice.of(words, subject), here, named(software))
    one = layer(pricing, experts=np.zeros(()))
    mine = Prices(program, here, named(software))
    kinds = (BlockKind.ATTENTION, BlockKind.FEED_FORWARD)
    for phase, passes in (
        (Phase.FORWARD, (one.forward,)),
        (Phase.BACKWARD, (one.inputs, one.weights)),
    ):
        expected = sum(float(w.matrix_s + w.attention_s + w.pointwise_s) for w in passes)
        seconds = sum(mine.compute_s(c) for k in kinds for c in computes(program, k, phase))
        assert seconds == pytest.approx(expected, rel=2e-3)


# ── on links ─────────────────────────────────────────────────────────────────────────────────────


def moves(program: Program, kind: Kind) -> list[Move]:
    return [
        x
        for stage in program.stages
        for x in stage.instructions
        if isinstance(x, Move) and [s.kind for s in x.legs[0].steps if s.communicates] == [kind]
    ]


def test_gathering_parameters_takes_a_ring_of_all_but_ones_own() -> None:
    program = lower(model(), plan(dp=4, zero=3))
    gather = moves(program, Kind.ALL_GATHER)[0]  # the token embedding
    (message,) = messages(gather, program.stages[0], program)
    size = 32 * 8 * WIDTH
    assert (message.size_bytes, message.sent_bytes) == (size, size * 3 // 4)
    seconds = prices(program).message_s(message, range(4))
    assert seconds == pytest.approx(size * 3 / 4 / 1e6 + 3 * LATENCY_S, rel=1e-12)


def test_reducing_for_all_takes_two_rings() -> None:
    program = lower(model(vocab=4096), plan(dp=4))
    reduce = moves(program, Kind.ALL_REDUCE)[-1]
    (message,) = messages(reduce, program.stages[0], program)
    size = message.sent_bytes * 4 / 6
    seconds = prices(program).message_s(message, range(4))
    assert seconds == pytest.approx(2 * (size * 3 / 4 / 1e6 + 3 * LATENCY_S), rel=1e-12)


def test_a_group_across_nodes_shares_their_links() -> None:
    program = lower(model(), plan(dp=4, zero=3))
    (message,) = messages(moves(program, Kind.ALL_GATHER)[0], program.stages[0], program)
    # Two nodes of two: each device's link outwards carries half of what crosses.
    seconds = prices(program, node=2).message_s(message, range(4))
    assert seconds == pytest.approx(message.size_bytes * 3 / 4 / (2 * 1e5) + 3 * LATENCY_S)


def test_a_blocking_collective_costs_more_only_where_activations_wait_for_it() -> None:
    stack = software(collective_s=5)
    for words, extra in (({"tp": 2, "sequence": True}, 5.0), ({"dp": 2, "zero": 3}, 0.0)):
        program = lower(model(), plan(**words))
        (message,) = messages(moves(program, Kind.ALL_GATHER)[0], program.stages[0], program)
        plain, blocking = (
            prices(program, stack=s).message_s(message, range(2)) for s in (software(), stack)
        )
        assert blocking - plain == pytest.approx(extra)


def test_a_send_takes_the_innermost_links_that_join_its_ends() -> None:
    program = lower(model(), plan(pp=2))
    send = found(program, Send)
    (message,) = messages(send, program.stages[0], program)
    size = TOKENS * 8 * WIDTH
    inside = prices(program, node=2).message_s(message, (0, 1))
    across = Prices(program, machine(4, node=2), software()).message_s(message, (1, 2))
    assert message.size_bytes == size
    assert inside == pytest.approx(size / 1e6 + LATENCY_S, rel=1e-12)
    assert across == pytest.approx(size / 1e5 + LATENCY_S, rel=1e-12)


def test_a_vote_costs_what_every_step_does() -> None:
    program = lower(model(), plan())
    stage, stack = program.stages[0], software(step_s=0.5)
    assert prices(program, stack=stack).seconds(stage.instructions[-1], stage) < 0.5
    assert prices(program, stack=stack).seconds(found(program, Vote), stage) == 0.5


def test_every_kind_of_instruction_has_a_price() -> None:
    free, seen = (Recv, Free), set()
    for seed in range(20):
        program = lower(*draw(seed))
        mine = prices(program, stack=modern(), node=2)
        for stage in program.stages:
            for x in stage.instructions:
                seconds = mine.seconds(x, stage)
                seen.add(type(x))
                paid = any(messages(x, stage, program)) or isinstance(x, Compute | Update)
                assert (seconds > 0) == paid, x
                assert not isinstance(x, free) or seconds == 0.0
    assert seen == {Compute, Move, Send, Recv, Free, Vote, Update}


def test_what_does_not_lower_has_no_price() -> None:
    program = lower(model(), plan())
    routed = replace(model(), experts=4, top_k=2, expert_ff=8)
    program = replace(program, model=routed, chain=routed.blocks)
    with pytest.raises(ModelError, match="mixture of 4 experts"):
        prices(program).compute_s(Compute(Phase.FORWARD, 2, (1, 2), 0))
