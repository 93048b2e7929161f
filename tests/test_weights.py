"""Weights against `transformers`, which is slow to import: all tests that need it are here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stretto import nn
from stretto.errors import MachineError, ModelError
from stretto.huggingface import read_config, sources, tensor_shapes, write_config
from stretto.layout import Box
from stretto.model import Model, Parameter, Rope
from stretto.presets import preset
from stretto.runtime.generate import forward, generate
from stretto.runtime.weights import check_weights, read_box, read_weights, write_pretrained

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TINY = preset("tiny")
GPT2 = replace(
    preset("gpt2"),
    layers=2, embed=32, heads=4, kv_heads=4, head_dim=8, ff=48, vocab=320, positions=128,
)  # fmt: skip
ROPES = {
    "plain": Rope(theta=5000.0),
    "linear": Rope(scaling="linear", factor=3.0),
    "dynamic": Rope(scaling="dynamic", factor=2.0, original_positions=128),
    "dynamic-beyond": Rope(scaling="dynamic", factor=2.0, original_positions=16),
    "llama3": Rope(
        500.0, "llama3", 8.0, original_positions=32, low_freq_factor=1.0, high_freq_factor=4.0
    ),
    "yarn": Rope(scaling="yarn", factor=4.0, original_positions=32),
    "yarn-told": Rope(
        scaling="yarn", factor=4.0, original_positions=32, beta_fast=8.0, beta_slow=2.0,
        attention_factor=1.3, truncate=False,
    ),
    "yarn-mscale": Rope(
        scaling="yarn", factor=4.0, original_positions=32, mscale=0.7, mscale_all_dim=1.2
    ),
    "longrope-short": Rope(
        scaling="longrope", factor=4.0, original_positions=64,
        long_factor=(1.0, 2.0, 3.0, 4.0), short_factor=(1.0, 1.1, 1.2, 1.3),
    ),
    "longrope-long": Rope(
        scaling="longrope", factor=4.0, original_positions=32, attention_factor=1.1,
        long_factor=(1.0, 2.0, 3.0, 4.0), short_factor=(1.0, 1.1, 1.2, 1.3),
    ),
}  # fmt: skip
MODELS = {
    "gpt2": GPT2,
    "gpt2-untied": replace(GPT2, tied=False, activation="relu", norm_eps=1e-3),
    **{
        f"llama-{name}": replace(
            TINY, rope=rope, positions=16 if name == "dynamic-beyond" else 128
        )
        for name, rope in ROPES.items()
    },
    "llama-biases": replace(TINY, qkv_bias=True, out_bias=True, ff_bias=True, tied=True),
    "llama-one-key-head": replace(TINY, kv_heads=1, activation="gelu_tanh"),
    "llama-own-head-dim": replace(TINY, head_dim=12),
    "mistral": replace(TINY, family="mistral"),
    "mistral-window": replace(TINY, family="mistral", window=7),
    "qwen2": replace(TINY, family="qwen2", qkv_bias=True, norm_eps=1e-6),
    "qwen2-window": replace(
        TINY, family="qwen2", qkv_bias=True, layers=3, window=5, full_layers=(0, 2)
    ),
    "qwen3": replace(TINY, family="qwen3", qk_norm=True, head_dim=16, tied=True),
    "qwen3-window": replace(
        TINY, family="qwen3", qk_norm=True, qkv_bias=True, out_bias=True, window=9, full_layers=(1,)
    ),
}  # fmt: skip


def random_parameters(model: Model, *, seed: int = 0) -> dict[str, Tensor]:
    """Give values in which nothing is zero or one, so that nothing can hide."""
    generator = torch.Generator().manual_seed(seed)
    return {
        p.name: torch.randn(model.shape(p), generator=generator) * 0.15 + p.constant
        for p in model.parameters
    }


def reader(parameters: dict[str, Tensor]) -> Callable[[Parameter, Box], Tensor]:
    return lambda p, box: parameters[p.name][tuple(slice(*run) for run in box)]


def random_tokens(model: Model, *, length: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, model.vocab, (2, length), generator=generator)


def stretto_logits(model: Model, parameters: dict[str, Tensor], tokens: Tensor) -> Tensor:
    mask = nn.attention_input(
        model,
        positions=tokens.shape[1],
        documents_BT=None,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    with torch.no_grad():
        return forward(model, parameters, tokens, mask=mask)


def their_logits(theirs: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = theirs(tokens).logits
    return logits


def whole(model: Model, parameter: Parameter) -> Box:
    return tuple((0, size) for size in model.shape(parameter))


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_transformers_computes_the_same_logits_from_what_stretto_wrote(
    model: Model, tmp_path: Path
) -> None:
    parameters = random_parameters(model)
    path = tmp_path / "model"
    write_pretrained(path, model, reader(parameters), dtype=torch.float32, shard_bytes=40_000)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        path, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values()), info
    assert theirs.dtype == torch.float32
    tokens = random_tokens(model)
    ours = stretto_logits(model, parameters, tokens)
    assert (ours - their_logits(theirs.eval(), tokens)).abs().max() < 1e-5
    assert sum(p.numel() for p in theirs.parameters()) == model.parameter_count


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_stretto_computes_the_same_logits_from_what_transformers_wrote(
    model: Model, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    config = transformers.AutoConfig.for_model(**write_config(model))
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(torch.randn_like(p) * 0.15)
    theirs.eval().save_pretrained(tmp_path, max_shard_size="40kB")
    read = read_config(tmp_path)
    assert replace(read, name=model.name) == model
    parameters = read_weights(tmp_path, read, dtype=torch.float32)
    tokens = random_tokens(model)
    ours = stretto_logits(read, parameters, tokens)
    assert (ours - their_logits(theirs, tokens)).abs().max() < 1e-5
