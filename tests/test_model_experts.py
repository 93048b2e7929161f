"""Models that are planned and priced before they run: experts, latent attention, predictions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.errors import ModelError
from stretto.model import Block, BlockKind, Latent, Model

DENSE = Model(
    "small", layers=2, embed=8, heads=4, kv_heads=2, head_dim=2, ff=16, vocab=10, positions=6
)
MIXED = replace(DENSE, experts=5, top_k=2, expert_ff=3, shared_ff=4, dense_layers=(0,))
LATENT = replace(
    DENSE, kv_heads=4, head_dim=10, latent=Latent(q_rank=6, kv_rank=5, nope_dim=8, rope_dim=2,
                                                 value_dim=7),
)  # fmt: skip


def block(model: Model, name: str) -> Block:
    return next(b for b in model.blocks if b.name == name)


def flops(model: Model, name: str, *, positions: int = 5) -> float:
    return model.block_flops(block(model, name), positions=positions)


def test_layers_have_experts_but_for_those_that_are_dense() -> None:
    assert [(b.name, b.kind, b.layer) for b in MIXED.blocks] == [
        ("embedding", BlockKind.EMBEDDING, -1),
        ("layers.0.attention", BlockKind.ATTENTION, 0),
        ("layers.0.feed_forward", BlockKind.FEED_FORWARD, 0),
        ("layers.1.attention", BlockKind.ATTENTION, 1),
        ("layers.1.experts", BlockKind.EXPERTS, 1),
        ("head", BlockKind.HEAD, -1),
    ]


def test_experts_have_the_dimensions_that_a_plan_may_split() -> None:
    parameters = block(MIXED, "layers.1.experts").parameters
    named = {p.name.removeprefix("layers.1.experts."): (p.dims, MIXED.shape(p)) for p in parameters}
    assert named == {
        "norm.weight": (("embed",), (8,)),
        "router": (("route", "embed"), (5, 8)),
        "up": (("expert", "pair", "expert_ff", "embed"), (5, 2, 3, 8)),
        "down": (("expert", "embed", "expert_ff"), (5, 8, 3)),
        "shared.up": (("pair", "shared_ff", "embed"), (2, 4, 8)),
        "shared.down": (("embed", "shared_ff"), (8, 4)),
    }


def test_biases_of_a_mixture_are_of_its_router_and_of_each_expert() -> None:
    biased = replace(MIXED, ff_bias=True, shared_ff=0)
    parameters = block(biased, "layers.1.experts").parameters
    biases = {p.name.rpartition(".")[2]: biased.shape(p) for p in parameters if "bias" in p.name}
    assert biases == {"router_bias": (5,), "up_bias": (5, 2, 3), "down_bias": (5, 8)}
    assert biased.step_flops(tokens=1, positions=5) == replace(biased, ff_bias=False).step_flops(
        tokens=1, positions=5
    )


def test_a_token_pays_for_the_router_its_experts_and_what_is_shared() -> None:
    router, expert, shared = 5 * 8, 3 * 3 * 8, 3 * 4 * 8
    assert flops(MIXED, "layers.1.experts") == 2 * (router + 2 * expert + shared)
    assert flops(MIXED, "layers.0.feed_forward") == 2 * 3 * 16 * 8


def test_a_token_passes_all_parameters_but_those_of_other_experts() -> None:
    assert MIXED.parameter_count - MIXED.active_parameter_count == 3 * (3 * 3 * 8)


@given(st.integers(1, 6), st.data())
def test_with_all_experts_chosen_every_parameter_is_passed(count: int, data: st.DataObject) -> None:
    width, top_k = data.draw(st.integers(1, 9)), data.draw(st.integers(1, count))
    model = replace(DENSE, experts=count, top_k=top_k, expert_ff=width)
    assert (model.active_parameter_count == model.parameter_count) == (top_k == count)
    # In each of two layers, a gated expert of `width` is as three matrices.
    assert model.active_parameter_count == (
        replace(DENSE, ff=top_k * width).parameter_count + 2 * count * 8
    )


@given(st.integers(0, 3), st.integers(0, 2), st.integers(1, 9), st.booleans(), st.booleans())
def test_a_step_is_six_flops_a_passed_matrix_and_token(
    shared: int, mtp: int, positions: int, tied: bool, latent: bool
) -> None:
    base = LATENT if latent else DENSE
    model = replace(
        base, experts=5, top_k=2, expert_ff=3, shared_ff=shared, mtp_layers=mtp, tied=tied
    )
    norms = sum(math.prod(model.shape(p)) for p in model.parameters if not p.decay)
    matrices = model.active_parameter_count - norms - (0 if tied else 10 * 8)
    width = model.head_dim + model.value_dim
    attention = 2 * 4 * width * (positions + 1) / 2 * (2 + mtp)
    wanted = 3 * 7 * (2 * (matrices + mtp * 10 * 8) + attention)  # the head is passed once more
    assert model.step_flops(tokens=7, positions=positions) == pytest.approx(wanted)


def test_latent_attention_compresses_queries_keys_and_values() -> None:
    parameters = block(LATENT, "layers.0.attention").parameters
    named = {p.name.removeprefix("layers.0.attention."): LATENT.shape(p) for p in parameters}
    assert named == {
        "norm.weight": (8,),
        "query_down": (6, 8),
        "query_norm": (6,),
        "query": (4, 1, 10, 6),
        "key_value_down": (5, 8),
        "key_rope": (2, 8),
        "key_value_norm": (5,),
        "key": (4, 8, 5),
        "value": (4, 7, 5),
        "out": (8, 4, 1, 7),
    }
    weights = 6 * 8 + 40 * 6 + 7 * 8 + 32 * 5 + 28 * 5 + 8 * 28
    # five positions attend to three on average: scores over 10 numbers, values of 7
    assert flops(LATENT, "layers.0.attention") == 2 * weights + 2 * 4 * (10 + 7) * 3


def test_without_a_rank_queries_are_not_compressed() -> None:
    latent = Latent(q_rank=0, kv_rank=5, nope_dim=8, rope_dim=2, value_dim=7)
    model = replace(LATENT, latent=latent)
    names = {p.name.rpartition(".")[2] for p in block(model, "layers.0.attention").parameters}
    assert "query_down" not in names
    assert model.parameter_count - LATENT.parameter_count == 2 * (40 * 8 - 40 * 6 - 6 * 8 - 6)


def test_each_token_that_is_predicted_further_costs_a_join_a_layer_and_a_head() -> None:
    model = replace(MIXED, mtp_layers=2)
    further = [b for b in model.blocks if b.name.startswith("mtp.1.")]
    assert [(b.name, b.kind, b.layer) for b in further] == [
        ("mtp.1.join", BlockKind.JOIN, 3),
        ("mtp.1.attention", BlockKind.ATTENTION, 3),
        ("mtp.1.experts", BlockKind.EXPERTS, 3),
        ("mtp.1.head", BlockKind.HEAD, 3),
    ]
    assert model.blocks[-1].name == "head"
    assert flops(model, "mtp.1.join") == 2 * 8 * 16
    assert flops(model, "mtp.1.attention") == flops(model, "layers.1.attention")
    assert flops(model, "mtp.1.experts") == flops(model, "layers.1.experts")
    assert flops(model, "mtp.1.head") == flops(model, "head")


def test_embedding_and_head_are_shared_by_what_predicts_further() -> None:
    model = replace(MIXED, mtp_layers=1)
    users = {
        name: [b.name for b in model.blocks if name in {p.name for p in b.parameters}]
        for name in ("embedding.token", "head.weight")
    }
    assert users == {
        "embedding.token": ["embedding", "mtp.0.join"],
        "head.weight": ["mtp.0.head", "head"],
    }


@pytest.mark.parametrize("model", [replace(MIXED, mtp_layers=1), LATENT], ids=["mixed", "latent"])
def test_every_value_that_a_segment_reads_is_given_or_written_before_it(model: Model) -> None:
    for part in model.blocks:
        there = {"x"} if part.kind is not BlockKind.EMBEDDING else set()
        for segment in part.segments:
            assert {v.name for v in segment.reads if v.kind != "given"} <= there
            there |= {v.name for v in segment.writes}


@given(st.integers(1, 40), st.integers(1, 50), st.booleans())
def test_attention_in_chunks_reaches_back_to_their_beginning(
    positions: int, chunk: int, full: bool
) -> None:
    model = replace(DENSE, chunk=chunk, full_layers=(0,) if full else ())
    reach = [i + 1 if full else i % chunk + 1 for i in range(positions)]
    mean = sum(reach) / positions
    assert model.attends_to(0, positions=positions) == pytest.approx(mean)


def test_every_number_that_cannot_be_is_listed() -> None:
    def problems(**changes: object) -> list[str]:
        with pytest.raises(ModelError) as error:
            replace(DENSE, **changes)
        return [str(p) for p in error.value.problems]

    assert problems(top_k=2, dense_layers=(1,)) == [
        "top_k: is 2, but there are no experts; set experts, or leave it out",
        "dense_layers: is (1,), but there are no experts; set experts, or leave it out",
    ]
    assert problems(experts=2, top_k=3, dense_layers=(0, 2)) == [
        "top_k: must be from 1 to experts, but is 3 of 2; use at most 2",
        "expert_ff: is 0, but there are experts; state their width",
        "dense_layers: names [2], but there are layers 0 … 1; name layers that there are",
    ]
    assert problems(latent=Latent(-1, 0, 1, 2, 3)) == [
        "latent.q_rank: is -1, below 0; use 0 or more",
        "latent.kv_rank: is 0, below 1; use 1 or more",
        "head_dim: must be nope_dim + rope_dim, but 2 is not 1 + 2; use 3",
        "kv_heads: must be heads in latent attention, but 2 is not 4; use 4",
    ]
    assert problems(window=3, chunk=4) == [
        "chunk: attention has either, but window is 3 and chunk 4; set one of them to 0"
    ]


def test_what_does_not_run_is_named_with_what_does() -> None:
    model = replace(
        LATENT, experts=5, top_k=2, expert_ff=3, mtp_layers=1, chunk=4, family="deepseek_v3"
    )
    assert [(p.field, p.rule) for p in model.unsupported] == [
        (f"model.{field}", f"small has {what}, which can be planned, but is not run yet")
        for field, what in (
            ("experts", "a mixture of 5 experts"),
            ("latent", "latent attention"),
            ("mtp_layers", "multi-token prediction"),
            ("chunk", "attention in chunks of 4 positions"),
        )
    ]
    remedies = {p.remedy for p in model.unsupported}
    assert remedies == {"run a dense model of the families gpt2, llama, mistral, qwen2, qwen3"}
    (problem,) = replace(DENSE, family="nemotron").unsupported
    assert problem.rule.startswith("small has weights of the family nemotron, which ")
    assert DENSE.unsupported == ()
