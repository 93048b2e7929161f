"""A model as a config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from stretto.errors import ModelError, Problem
from stretto.huggingface.read import read_config
from stretto.huggingface.rope import rope_keys
from stretto.model import Model

_CLASSES: Mapping[str, str] = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
RUNNABLE: tuple[str, ...] = tuple(_CLASSES)
"""The families that are written, and whose weights are read, trained and written."""


def write_config(model: Model) -> dict[str, Any]:
    """Give the contents of a ``config.json`` from which `transformers` builds the model.

    Rotary positions are stated as ``rope_theta`` and ``rope_scaling``, which all its versions read.

    Raises:
        ModelError: What does not run here, or what the family of the model cannot express.
    """
    if model.unsupported:
        raise ModelError(model.unsupported)
    config = {
        "architectures": [_CLASSES[model.family]],
        "model_type": model.family,
        "vocab_size": model.vocab,
        "initializer_range": model.init_std,
        "tie_word_embeddings": model.tied,
        "bos_token_id": None,
        "eos_token_id": None,
        **(_gpt2_keys(model) if model.family == "gpt2" else _llama_keys(model)),
    }
    problems = []
    try:
        again = replace(read_config(config), name=model.name)
    except ModelError as error:
        raise ModelError(error.problems) from None
    for part in fields(Model):
        wanted, found = getattr(model, part.name), getattr(again, part.name)
        if wanted != found:
            rule = f"{wanted} cannot be said in the config of a {model.family} model"
            problems.append(Problem(part.name, rule, f"use {found}, or another family"))
    if problems:
        raise ModelError(problems)
    return config


def _hf_activation(model: Model) -> str:
    return "gelu_new" if model.activation == "gelu_tanh" else model.activation


def _gpt2_keys(model: Model) -> dict[str, Any]:
    return {
        "n_layer": model.layers,
        "n_embd": model.embed,
        "n_head": model.heads,
        "n_inner": model.ff,
        "n_positions": model.positions,
        "layer_norm_epsilon": model.norm_eps,
        "activation_function": _hf_activation(model),
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def _llama_keys(model: Model) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "num_hidden_layers": model.layers,
        "hidden_size": model.embed,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "intermediate_size": model.ff,
        "max_position_embeddings": model.positions,
        "rms_norm_eps": model.norm_eps,
        "hidden_act": _hf_activation(model),
        **(rope_keys(model.rope) if model.rope else {}),
    }
    if model.family in ("llama", "qwen3"):
        keys["attention_bias"] = model.qkv_bias
    if model.family == "llama":
        keys["mlp_bias"] = model.ff_bias
    if model.family in ("mistral", "qwen2", "qwen3"):
        keys["sliding_window"] = model.window or None
    if model.family in ("qwen2", "qwen3"):
        keys["use_sliding_window"] = model.window > 0
        keys["layer_types"] = [
            "sliding_attention" if model.window and i not in model.full_layers else "full_attention"
            for i in range(model.layers)
        ]
    return keys
