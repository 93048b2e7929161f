"""Rotary positions against the transformers library, and the rotation against its definition."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from stretto.model import Model, Rope
from stretto.reference.rope import rotation, scaled, turned

HALF = 8


def model(rope: Rope) -> Model:
    return Model("m", 1, 32, 2, 2, 2 * HALF, 8, 8, 64, rope=rope)


LONG = {"long_factor": (2.0,) * 7 + (9.0,), "short_factor": (1.0,) * 7 + (1.5,)}
CASES = {
    "linear": (48, Rope(5e3, "linear", 3.0)),
    "dynamic, no longer than it was": (48, Rope(5e3, "dynamic", 3.0)),
    "dynamic, longer": (160, Rope(5e3, "dynamic", 3.0)),
    "llama3": (48, Rope(5e3, "llama3", 8.0, 32, low_freq_factor=1.5, high_freq_factor=3.5)),
    "yarn": (48, Rope(5e3, "yarn", 4.0, 40)),
    "yarn, by scales": (48, Rope(5e3, "yarn", 4.0, 400, mscale=0.7, mscale_all_dim=0.3)),
    "yarn, another ramp": (
        48,
        Rope(5e3, "yarn", 4.0, 400, beta_fast=16.0, beta_slow=2.0, truncate=False),
    ),
    "yarn, given factor": (48, Rope(5e3, "yarn", 4.0, 40, attention_factor=1.25)),
    "longrope, short": (16, Rope(5e3, "longrope", 4.0, 16, **LONG)),
    "longrope, long": (17, Rope(5e3, "longrope", 4.0, 16, **LONG)),
}


def stated(rope: Rope) -> dict[str, Any]:
    """What a config.json says of it: what is not as by default."""
    keys = {"theta": "rope_theta", "scaling": "rope_type"}
    keys |= {"original_positions": "original_max_position_embeddings"}
    own = {
        f.name: getattr(rope, f.name) for f in fields(Rope) if getattr(rope, f.name) != f.default
    }
    return {
        keys.get(name, name): list(value) if isinstance(value, tuple) else value
        for name, value in own.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_scaled_frequencies_are_those_of_transformers(name: str) -> None:
    length, rope = CASES[name]
    config = LlamaConfig(
        hidden_size=32, num_attention_heads=2, head_dim=2 * HALF, max_position_embeddings=64,
        rope_parameters=stated(rope),
    )  # fmt: skip
    wanted, factor = ROPE_INIT_FUNCTIONS[rope.scaling](config, seq_len=length)
    frequencies, own = scaled(model(rope), length=length)
    np.testing.assert_allclose(frequencies, wanted.numpy(), rtol=1e-6)
    assert own == pytest.approx(factor, rel=1e-12)


def test_unscaled_frequencies_fall_from_one_by_the_base() -> None:
    frequencies, factor = scaled(model(Rope(theta=256.0)), length=9)
    np.testing.assert_allclose(frequencies, 2.0 ** -np.arange(HALF))  # 256^(-i/8)
    assert factor == 1


def test_a_pair_of_features_half_a_head_apart_turns_as_one_complex_number() -> None:
    m = model(Rope())
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 2, 2 * HALF))
    frequencies, _ = scaled(m, length=5)
    number = x[..., :HALF] + 1j * x[..., HALF:]
    number = number * np.exp(1j * np.outer(np.arange(5), frequencies))[:, None, None]
    wanted = np.concatenate((number.real, number.imag), axis=-1)
    np.testing.assert_allclose(turned(x, *rotation(m, positions=5)), wanted, atol=1e-12)


def test_the_factor_of_the_scaling_multiplies_both_cosine_and_sine() -> None:
    cos, sin = rotation(model(Rope(5e3, "yarn", 4.0, 40, attention_factor=1.25)), positions=3)
    np.testing.assert_allclose(cos**2 + sin**2, 1.25**2)
