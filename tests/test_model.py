"""The model: blocks, parameters, FLOPs; nothing of how they are run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.errors import ModelError
from stretto.model import BlockKind, Model, Rope

SMALL = Model(
    "small", layers=2, embed=8, heads=4, kv_heads=2, head_dim=2, ff=16, vocab=10, positions=6
)
GPT2 = Model(
    "gpt2", layers=12, embed=768, heads=12, kv_heads=12, head_dim=64, ff=3072, vocab=50257,
    positions=1024, norm="layer", rope=None, activation="gelu_tanh", gated=False, qkv_bias=True,
    out_bias=True, ff_bias=True, tied=True, family="gpt2",
)  # fmt: skip


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (GPT2, 124_439_808),
        (
            Model("SmolLM2-135M", layers=30, embed=576, heads=9, kv_heads=3, head_dim=64, ff=1536,
                  vocab=49152, positions=8192, tied=True),
            134_515_008,
        ),
        (
            Model("Llama-2-7B", layers=32, embed=4096, heads=32, kv_heads=32, head_dim=128,
                  ff=11008, vocab=32000, positions=4096),
            6_738_415_616,
        ),
        (
            Model("Mistral-7B", layers=32, embed=4096, heads=32, kv_heads=8, head_dim=128,
                  ff=14336, vocab=32000, positions=32768, window=4096, family="mistral"),
            7_241_732_096,
        ),
        (
            Model("Qwen3-0.6B", layers=28, embed=1024, heads=16, kv_heads=8, head_dim=128, ff=3072,
                  vocab=151936, positions=40960, qk_norm=True, tied=True, family="qwen3"),
            596_049_920,
        ),
    ],
    ids=lambda x: x.name if isinstance(x, Model) else "",
)  # fmt: skip
def test_published_models_have_the_published_number_of_parameters(model: Model, count: int) -> None:
    assert model.parameter_count == count


def test_the_chain_is_embedding_then_two_blocks_a_layer_then_head() -> None:
    assert [(b.name, b.kind, b.layer) for b in SMALL.blocks] == [
        ("embedding", BlockKind.EMBEDDING, -1),
        ("layers.0.attention", BlockKind.ATTENTION, 0),
        ("layers.0.feed_forward", BlockKind.FEED_FORWARD, 0),
        ("layers.1.attention", BlockKind.ATTENTION, 1),
        ("layers.1.feed_forward", BlockKind.FEED_FORWARD, 1),
        ("head", BlockKind.HEAD, -1),
    ]


@pytest.mark.parametrize("model", [SMALL, GPT2], ids=lambda m: m.name)
def test_every_value_that_a_segment_reads_is_given_or_written_before_it(model: Model) -> None:
    for block in model.blocks:
        there = {"x"} if block.kind is not BlockKind.EMBEDDING else set()
        for segment in block.segments:
            wanted = {v.name for v in segment.reads if v.kind != "given"}
            assert wanted <= there
            there |= {v.name for v in segment.writes}
        assert ("loss" if block.kind is BlockKind.HEAD else "x") in there


def test_tied_embeddings_are_one_parameter_of_two_blocks() -> None:
    users = [b.name for b in GPT2.blocks if "embedding.token" in {p.name for p in b.parameters}]
    assert users == ["embedding", "head"]
    names = [p.name for p in GPT2.parameters]
    assert len(names) == len(set(names))
    assert "head.weight" not in names
    assert "head.weight" in {p.name for p in replace(GPT2, tied=False).parameters}


def test_weights_of_matrices_decay_and_norms_and_biases_do_not() -> None:
    decayed = {p.name.rsplit(".", 1)[1] for p in GPT2.parameters if p.decay}
    assert decayed == {"token", "position", "query", "key_value", "out", "up", "down"}
    spared = {p.name.rsplit(".", 1)[1] for p in GPT2.parameters if not p.decay}
    assert spared == {
        "weight", "bias", "query_bias", "key_value_bias", "out_bias", "up_bias", "down_bias",
    }  # fmt: skip


def test_norms_begin_at_one_and_residual_outputs_smaller_by_the_root_of_their_number() -> None:
    parameters = {p.name: p for p in SMALL.parameters}
    norm, out = parameters["head.norm.weight"], parameters["layers.1.feed_forward.down"]
    assert (norm.std, norm.constant) == (0.0, 1.0)
    assert out.std == pytest.approx(0.02 / 4**0.5)  # two outputs in each of two layers
    assert parameters["layers.0.attention.query"].std == 0.02


def test_shapes_follow_from_logical_dimensions() -> None:
    parameters = {p.name: SMALL.shape(p) for p in SMALL.parameters}
    assert parameters["layers.0.attention.query"] == (2, 2, 2, 8)
    assert parameters["layers.0.attention.key_value"] == (2, 2, 2, 8)
    assert parameters["layers.0.attention.out"] == (8, 2, 2, 2)
    assert parameters["layers.0.feed_forward.up"] == (2, 16, 8)
    assert parameters["embedding.token"] == (10, 8)


@given(st.integers(1, 40), st.integers(0, 50), st.booleans())
def test_attention_reaches_back_over_the_window(positions: int, window: int, full: bool) -> None:
    model = replace(SMALL, window=window, full_layers=(0,) if full else ())
    reach = positions if full or not window else window
    mean = sum(min(i + 1, reach) for i in range(positions)) / positions
    assert model.attends_to(0, positions=positions) == pytest.approx(mean)


def test_a_token_costs_two_flops_a_weight_and_causal_attention() -> None:
    flops = {b.name: SMALL.block_flops(b, positions=5) for b in SMALL.blocks}
    assert flops["embedding"] == 0
    # query and out 8·8, key and value 2·4·8; 4 heads of 2, over 3 positions on average
    assert flops["layers.0.attention"] == 2 * (64 + 64 + 64) + 4 * 4 * 2 * 3
    assert flops["layers.0.feed_forward"] == 2 * 3 * 8 * 16
    assert flops["head"] == 2 * 10 * 8


def test_a_step_is_six_flops_a_weight_and_token_plus_attention() -> None:
    tokens, positions = 2048, 1024
    weights = 12 * 12 * 768**2 + 50257 * 768  # 12·embed² a layer, and the tied head
    attention = 3 * 4 * 768 * (positions + 1) / 2 * 12
    flops = GPT2.step_flops(tokens=tokens, positions=positions)
    assert flops == pytest.approx(tokens * (6 * weights + attention), rel=1e-12)


def test_biases_and_norms_cost_no_flops() -> None:
    plain = replace(GPT2, qkv_bias=False, out_bias=False, ff_bias=False, norm="rms")
    assert plain.step_flops(tokens=10, positions=10) == GPT2.step_flops(tokens=10, positions=10)


def test_every_number_of_a_model_that_cannot_be_is_listed() -> None:
    with pytest.raises(ModelError) as error:
        replace(SMALL, layers=0, vocab=1, heads=5, head_dim=3, window=-1)
    assert [str(p) for p in error.value.problems] == [
        "layers: is 0, below 1; use 1 or more",
        "vocab: is 1, below 2; use 2 or more",
        "window: is -1, below 0; use 0 or more",
        "kv_heads: must divide heads, but 5 % 2 = 1; choose a divisor of heads",
        "head_dim: must be even for rotary positions, is 3; use 4",
    ]


def test_learned_positions_allow_heads_of_odd_width() -> None:
    assert replace(SMALL, head_dim=3, rope=None).head_dim == 3


def test_models_are_values() -> None:
    assert len({SMALL, replace(SMALL), replace(SMALL, rope=Rope(theta=5e5))}) == 2
