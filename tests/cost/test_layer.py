"""A layer: its products do the FLOPs of the model; what is not split does not move."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from tests.cost.cases import IDEAL, n, priced, pricings

from stretto.cost import Pricing, stack
from stretto.cost.layer import Passes, Work, embedding, head, layer
from stretto.model import BlockKind, Latent, Model
from stretto.plan import Batch, Memory, Numerics, Plan
from stretto.presets import preset

BFLOAT16 = Numerics("bfloat16")
LATENT = Latent(q_rank=0, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128)
MODELS = (
    *map(preset, ("gpt3-13b", "llama-3-8b", "llama-4-maverick", "mixtral-8x7b", "qwen3-30b-a3b",
                  "gpt-oss-20b", "deepseek-v3", "nemotron-4-15b")),
    replace(preset("deepseek-v3"), name="v3 with plain queries", latent=LATENT),
)  # fmt: skip
WORDS = (
    {}, {"tp": 4}, {"cp": 2, "tp": 2}, {"dp": 4, "ep": 4, "tp": 2},
    {"dp": 4, "ep": 8, "etp": 1, "tp": 2},
)  # fmt: skip


def ideal(model: Model, plan: Plan) -> Pricing:
    """Give a price in which products take what their FLOPs take."""
    modern = stack()
    software = replace(
        modern, matrix=n(1), grouped=n(1), attention=n(1), attention_ramp=n(0),
        attention_cap_flops_per_s=n(np.inf), kernels=n(0),
    )  # fmt: skip
    return replace(priced(model, plan), machine=IDEAL, stack=software)


def flops(model: Model, layer: int, *, tp: int) -> float:
    """Give the forward FLOPs of the products of a layer for a token, but for those of a router.

    Every tensor-parallel rank makes all of a latent vector.
    """
    total = 0.0
    for block in model.blocks:
        match block.kind:
            case BlockKind.ATTENTION if block.layer == layer:
                scores = 2 * model.heads * (model.head_dim + model.value_dim)  # of 1 position
                total += model.block_flops(block, positions=1) - scores
            case BlockKind.EXPERTS if block.layer == layer:
                router = 2 * model.embed * model.experts
                total += model.block_flops(block, positions=1) - router
            case BlockKind.FEED_FORWARD if block.layer == layer:
                total += model.block_flops(block, positions=1)
    if model.latent is not None:
        ranks = model.latent.q_rank + model.latent.kv_rank + model.latent.rope_dim
        total += (tp - 1) * 2 * model.embed * ranks
    return total


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
@pytest.mark.parametrize("words", WORDS, ids=str)
def test_products_do_the_flops_of_the_model_in_each_of_three_passes(
    model: Model, words: dict[str, Any]
) -> None:
    """All that split a micro-batch or the products together do them once."""
    plan = Plan.of(**words, numerics=BFLOAT16, batch=Batch(words.get("dp", 1), 1, 8192))
    p = ideal(model, plan)
    cp, tp = plan.words.cp, plan.words.tp
    whole, dense = set(range(model.layers)), set(model.dense_layers)
    kinds = {1.0: whole - dense, 0.0: dense} if model.experts else {0.0: whole}
    for experts, layers in kinds.items():
        passes = layer(p, experts=n(experts))
        for index in sorted(layers)[:1]:
            wanted = flops(model, index, tp=tp) * 8192 / (cp * tp) / IDEAL.matrix(n(1))
            for work in (passes.forward, passes.inputs, passes.weights):
                assert work.matrix_s == pytest.approx(wanted, rel=1e-9)


def test_output_layer_and_embedding_do_the_flops_of_the_model() -> None:
    model = preset("llama-3-8b")
    p = ideal(model, Plan.of(tp=4, numerics=BFLOAT16, batch=Batch(1, 1, 8192)))
    wanted = 2 * 8192 * 4096 * 128_256 / 4 / IDEAL.matrix(n(1))
    for work in (head(p).forward, head(p).inputs, head(p).weights):
        assert work.matrix_s == pytest.approx(wanted)
    assert embedding(p).forward.matrix_s == 0


def test_scores_take_what_their_flops_take_and_more_backwards() -> None:
    """4·tokens·heads·128·(8192 + 1)/2 on a rank with 8 of 32 heads and half of the positions."""
    model = preset("llama-3-8b")
    p = ideal(model, Plan.of(cp=2, tp=4, numerics=BFLOAT16, batch=Batch(1, 1, 8192)))
    wanted = 4 * 4096 * 8 * 128 * 8193 / 2 / IDEAL.matrix(n(1))
    passes = layer(p, experts=n(0))
    assert passes.forward.attention_s == pytest.approx(wanted)
    assert passes.inputs.attention_s == pytest.approx(wanted * p.stack.attention_backward)


def test_without_a_fused_kernel_masked_scores_are_made_too() -> None:
    model = preset("gpt3-6.7b")
    p = ideal(model, Plan.of(numerics=BFLOAT16, batch=Batch(1, 1, 2048)))
    unfused = replace(p, stack=replace(p.stack, fused_attention=n(0)))
    all_made, half_made = (layer(q, experts=n(0)).forward.attention_s for q in (unfused, p))
    assert all_made >= 2 * 2048 / 2049 * half_made * (1 - 1e-9)


def test_eight_bits_speed_up_products_of_layers_alone() -> None:
    plans = [Plan.of(numerics=Numerics("bfloat16", matrix=m)) for m in ("same", "float8")]
    wide, narrow = (ideal(preset("llama-3-8b"), plan) for plan in plans)
    before, after = (layer(p, experts=n(0)).forward for p in (wide, narrow))
    assert after.matrix_s < before.matrix_s
    assert after.attention_s == before.attention_s
    assert head(narrow).forward.matrix_s == head(wide).forward.matrix_s


def test_float32_slows_scores_and_the_output_layer_too() -> None:
    wide, half = (
        ideal(preset("llama-3-8b"), Plan(numerics=Numerics(d))) for d in ("float32", "bfloat16")
    )
    slower = IDEAL.matrix(n(1)) / IDEAL.matrix(n(0))
    for part in ("attention_s", "matrix_s"):
        before, after = (getattr(layer(p, experts=n(0)).forward, part) for p in (half, wide))
        assert after == pytest.approx(slower * before)
    assert head(wide).forward.matrix_s == pytest.approx(slower * head(half).forward.matrix_s)


def works(passes: Passes) -> tuple[Work, ...]:
    return passes.forward, passes.again, passes.inputs, passes.weights


@settings(max_examples=30)
@given(pricings())
def test_what_no_axis_splits_does_not_move(p: Pricing) -> None:
    experts = np.minimum(p.shape.experts, 1.0)
    for part, ranks in (
        ("tensor_s", p.choice.tp), ("context_s", p.choice.cp), ("expert_s", p.choice.ep * experts)
    ):  # fmt: skip
        moves = sum(float(getattr(w, part)) for w in works(layer(p, experts=experts)))
        assert moves == 0 if ranks <= 1 else moves >= 0
    if p.choice.tp == 1:
        assert all(w.tensor_s == 0 for w in works(head(p)))


@settings(max_examples=30)
@given(pricings())
def test_the_parts_of_a_piece_are_not_negative_and_sum_to_it(p: Pricing) -> None:
    for passes in (layer(p, experts=n(0)), head(p), embedding(p)):
        for work in works(passes):
            parts = [float(getattr(work, name)) for name in Work.__slots__]
            assert min(parts) >= 0
            assert work.seconds == pytest.approx(sum(parts))
        assert passes.seconds == pytest.approx(sum(float(w.seconds) for w in works(passes)))


@pytest.mark.parametrize(("recompute", "share"), [("none", 0), ("full", 1)])
def test_full_recomputation_runs_the_whole_forward_pass_again(recompute: str, share: int) -> None:
    plan = Plan.of(tp=2, cp=2, memory=Memory(recompute), numerics=BFLOAT16)  # type: ignore[arg-type]
    passes = layer(priced(preset("llama-3-8b"), plan), experts=n(0))
    assert passes.again == passes.forward.times(n(share))


def test_a_host_that_starts_kernels_slowly_is_waited_for() -> None:
    """20 kernels of 1 s each, beside products that take no time."""
    p = priced(preset("tiny"), Plan.of(batch=Batch(1, 1, 1)))
    slow = replace(
        p, machine=replace(p.machine, launch_s=n(1)), stack=replace(p.stack, kernels=n(20))
    )
    work = layer(slow, experts=n(0)).forward
    assert work.seconds == pytest.approx(20)
    assert work.launch_s == pytest.approx(20, rel=1e-3)


def test_a_device_that_is_its_own_host_starts_kernels_while_it_does_nothing_else() -> None:
    """20 kernels of 1 s each, besides other work, which hides a part of them elsewhere."""
    p = priced(preset("tiny"), Plan.of(batch=Batch(1, 1, 1)))
    took = []
    for host in (0, 1):
        machine = replace(p.machine, launch_s=n(1), host=n(host))
        slow = replace(p, machine=machine, stack=replace(p.stack, kernels=n(20)))
        work = layer(slow, experts=n(0)).forward
        took.append(float(work.launch_s))
        others = float(work.matrix_s + work.attention_s + work.pointwise_s)
    assert took == pytest.approx([20 - others, 20])
