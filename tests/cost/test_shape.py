"""Shapes: their parameters and FLOPs are those of the models, block by block."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cost.cases import n

from stretto.cost import Shape, record
from stretto.model import Latent
from stretto.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_those_of_the_model_but_for_norms_and_biases(name: str) -> None:
    """Of a model's parameters, those alone are exempt from weight decay."""
    model = PRESETS[name]
    exempt = sum(math.prod(model.shape(p)) for p in model.parameters if not p.decay)
    assert Shape.of(model).parameters == model.parameter_count - exempt
    assert exempt < 0.005 * model.parameter_count


@pytest.mark.parametrize("name", PRESETS)
def test_step_flops_are_those_of_the_model(name: str) -> None:
    model = PRESETS[name]
    for seq in (1, 100, 8192, 20_000):
        flops = Shape.of(model).step_flops(tokens=n(3 * seq), seq=n(seq))
        assert flops == pytest.approx(model.step_flops(tokens=3 * seq, positions=seq), rel=1e-12)


def test_latent_keys_without_latent_queries_count_a_plain_query_matrix() -> None:
    """DeepSeek-V2-Lite: 16 heads of 128 + 64 from a width of 2048, keys of rank 512."""
    lite = replace(
        preset("tiny"), embed=2048, heads=16, kv_heads=16, head_dim=192,
        latent=Latent(q_rank=0, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128),
    )  # fmt: skip
    assert Shape.of(lite).query_parameters == 2048 * 16 * 192
    assert Shape.of(lite).key_parameters == 2048 * (512 + 64) + 512 * 16 * (128 + 128)


def test_parameters_are_those_that_were_published() -> None:
    """(Brown et al., 2020; Grattafiori et al., 2024; DeepSeek-AI, 2024b), the last with its MTP."""
    for name, billions in (("gpt3-175b", 175), ("llama-3-8b", 8.03), ("deepseek-v3", 685)):
        assert Shape.of(preset(name)).parameters == pytest.approx(billions * 1e9, rel=4e-3)


@given(
    st.integers(1, 40), st.integers(0, 12), st.integers(0, 12), st.integers(0, 5), st.integers(1, 5)
)
def test_attended_positions_are_those_that_a_mask_lets_through(
    seq: int, window: int, chunk: int, full: int, layers: int
) -> None:
    full, window = min(full, layers), 0 if chunk else window
    local = sum(
        (window == 0 or i - j < window) and (chunk == 0 or i // chunk == j // chunk)
        for i in range(seq)
        for j in range(i + 1)
    )
    pairs = full * seq * (seq + 1) / 2 + (layers - full) * local
    blank = dict.fromkeys(Shape.__slots__, 0)
    numbers = {"layers": layers, "full_layers": full, "window": window, "chunk": chunk}
    shape = record(Shape, **(blank | numbers))
    assert shape.attended(n(seq)) == pytest.approx(pairs / (layers * seq), rel=1e-12)
