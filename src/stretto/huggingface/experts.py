"""Configs of families with mixtures of experts. They are planned and priced, and do not run yet."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, islice
from typing import Any

from stretto.huggingface.config import Config
from stretto.huggingface.dense import (
    Assumed,
    Fields,
    attention_biases,
    decoder,
    full_layers,
    sizes,
    sliding,
)
from stretto.huggingface.rope import read_rope
from stretto.model import Latent


def mixtral(config: Config) -> Fields:
    """Read Mixtral (Jiang et al., 2024)."""
    fields = decoder(config, Assumed(kv_heads=8, norm_eps=1e-5, theta=1e6))
    return {
        **fields,
        **_mixture(config, "num_local_experts"),
        "expert_ff": fields["ff"],
        "window": sliding(config, None),
    }


def qwen3_moe(config: Config) -> Fields:
    """Read the mixtures of Qwen3 (Yang et al., 2025)."""
    fields = decoder(config, Assumed(kv_heads=4)) | attention_biases(config)
    step = config.integer("decoder_sparse_step", 1)
    listed = config.indices("mlp_only_layers", below=fields["layers"])
    stepped = (i for i in range(fields["layers"]) if step and (i + 1) % step)
    windowed = config.flag("use_sliding_window", False)
    return {
        **fields,
        **_mixture(config, "num_experts"),
        "expert_ff": config.integer("moe_intermediate_size"),
        "dense_layers": tuple(sorted({*listed, *stepped})),
        "qk_norm": True,
        "window": sliding(config, 4096) if windowed else 0,
    }


def gpt_oss(config: Config) -> Fields:
    """Read gpt-oss (OpenAI, 2025), but for a number per head that attention may sink into."""
    yarn = {"rope_type": "yarn", "factor": 32.0, "truncate": False}
    original = {"original_max_position_embeddings": 4096}
    said = {key: value for key, value in config.values.items() if value is not None}
    config = replace(config, values={"rope_parameters": yarn | original, **said})
    assumed = Assumed(kv_heads=8, head_dim=64, norm_eps=1e-5, theta=150_000.0)
    fields = decoder(config, assumed) | attention_biases(config, default=True)
    layers, window = fields["layers"], sliding(config, 128)
    alternating = list(islice(cycle(("sliding_attention", "full_attention")), layers))
    kinds = config.values.get("layer_types", alternating if window else None)
    full = full_layers(config, kinds, layers=layers, window=window) if kinds is not None else ()
    return {
        **fields,
        **_mixture(config, "num_local_experts"),
        "expert_ff": fields["ff"],
        "ff_bias": True,
        "window": window,
        "full_layers": full if window else (),
    }


def llama4(config: Config) -> Fields:
    """Read the part of Llama 4 (Meta, 2025) that reads and writes text.

    Its query and key norms have no parameters and are left out.
    """
    if isinstance(config.values.get("text_config"), dict):
        where = f"{config.where}: text_config"
        config = Config(config.values["text_config"], where, config.problems)
    assumed = Assumed(kv_heads=8, head_dim=128, norm_eps=1e-5, theta=5e5)
    fields = decoder(config, assumed) | attention_biases(config)
    layers, chunk = fields["layers"], config.integer("attention_chunk_size", 8192)
    if "attention_chunk_size" in config.values and config.values["attention_chunk_size"] is None:
        chunk = 0
    return {
        **fields,
        **_mixture(config, "num_local_experts"),
        "ff": config.integer("intermediate_size_mlp"),
        "expert_ff": fields["ff"],
        "shared_ff": fields["ff"],
        "dense_layers": _dense_of_llama4(config, layers),
        "chunk": chunk,
        "full_layers": _without_positions(config, layers) if chunk else (),
    }


def _dense_of_llama4(config: Config, layers: int) -> tuple[int, ...]:
    step = config.integer("interleave_moe_layer_step", 1)
    mixed = set(config.indices("moe_layers", below=layers))
    if config.values.get("moe_layers") is None and step:
        mixed = set(range(step - 1, layers, step))
    return tuple(i for i in range(layers) if i not in mixed)


def _without_positions(config: Config, layers: int) -> tuple[int, ...]:
    """Read the layers without rotary positions: they attend to everything."""
    told = config.values.get("no_rope_layers")
    if not told:
        interval = config.integer("no_rope_layer_interval", 4)
        return tuple(range(interval - 1, layers, interval)) if interval else ()
    if not isinstance(told, list) or len(told) < layers or not set(map(repr, told)) <= {"0", "1"}:
        rule = f"must be 0 or 1 for each of {layers} layers, is {told!r:.40}"
        config.reject("no_rope_layers", rule, "write 0 for a layer that has none")
        return ()
    return tuple(i for i in range(layers) if not told[i])


def deepseek(config: Config) -> Fields:
    """Read DeepSeek-V2 (DeepSeek-AI, 2024) and DeepSeek-V3 (DeepSeek-AI, 2024b)."""
    config.only("attention_bias", False, default=False)
    config.only("moe_layer_freq", 1, default=1)
    fields = sizes(config, Assumed())
    layers, width = fields["layers"], config.integer("moe_intermediate_size")
    ranked = "q_lora_rank" not in config.values or config.values["q_lora_rank"] is not None
    latent = Latent(
        q_rank=config.integer("q_lora_rank") if ranked else 0,
        kv_rank=config.integer("kv_lora_rank"),
        nope_dim=config.integer("qk_nope_head_dim"),
        rope_dim=config.integer("qk_rope_head_dim"),
        value_dim=config.integer("v_head_dim"),
    )
    if (latent.nope_dim + latent.rope_dim) % 2 or latent.rope_dim % 2:
        rule = f"must be even for rotary positions, like qk_nope_head_dim, is {latent.rope_dim}"
        config.reject("qk_rope_head_dim", rule, "make both even")
    dense = min(config.integer("first_k_dense_replace", least=0), layers)
    predicted = config.integer("num_mtp_layers", 0, least=0)
    return {
        **fields,
        **_mixture(config, "n_routed_experts"),
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        "kv_heads": fields["heads"],
        "head_dim": latent.nope_dim + latent.rope_dim,
        "rope": read_rope(config, positions=fields["positions"], head_dim=latent.rope_dim),
        "latent": latent,
        "expert_ff": width,
        "shared_ff": width * config.integer("n_shared_experts", 0, least=0),
        "dense_layers": tuple(range(dense)),
        "mtp_layers": config.integer("num_nextn_predict_layers", predicted, least=0),
    }


def _mixture(config: Config, experts: str) -> dict[str, Any]:
    """Read how many experts there are, and how many compute a token."""
    count, top_k = config.integer(experts), config.integer("num_experts_per_tok")
    if 0 < count < top_k:
        rule = f"must be at most {experts}, but {top_k} is above {count}"
        config.reject("num_experts_per_tok", rule, f"use at most {count}")
    return {"experts": count, "top_k": top_k}
