"""Configs of dense families, and what the families have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stretto.huggingface.config import Config, is_integer
from stretto.huggingface.rope import read_rope
from stretto.model import Activation

Fields = dict[str, Any]
"""Fields of a `Model` by name."""

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}


@dataclass(frozen=True, slots=True)
class Assumed:
    """What `transformers` assumes of a family where a config says nothing.

    Attributes:
        kv_heads: Key heads; 0 for as many as query heads.
        head_dim: Width of a head; 0 for hidden_size / num_attention_heads.
        norm_eps: Added to the variance.
        theta: Base of rotary frequencies.
        part: The part of a head that is rotated.
        tied: Whether the head uses the token embedding.
        activation: As the family calls it.
        divides: Whether heads must divide the width even where the width of one is stated.
    """

    kv_heads: int = 0
    head_dim: int = 0
    norm_eps: float = 1e-6
    theta: float = 10_000.0
    part: float = 1.0
    tied: bool = False
    activation: str = "silu"
    divides: bool = False


def decoder(config: Config, assumed: Assumed, *, eps: str = "rms_norm_eps") -> Fields:
    """Read what Llama (Touvron et al., 2023) and its kin have in common.

    Args:
        config: The config.
        assumed: What it may leave out.
        eps: How the family calls what is added to the variance.
    """
    fields = sizes(config, assumed) | {"norm_eps": config.number(eps, assumed.norm_eps)}
    embed, heads = fields["embed"], fields["heads"]
    told = "num_key_value_heads" in config.values  # null means all
    kv_heads = config.integer("num_key_value_heads", heads if told else assumed.kv_heads or heads)
    config.divides("num_key_value_heads", "num_attention_heads", (kv_heads, heads))
    head_dim = config.integer("head_dim", assumed.head_dim or embed // (heads or 1))
    if assumed.divides or (config.values.get("head_dim") is None and not assumed.head_dim):
        config.divides("num_attention_heads", "hidden_size", (heads, embed))
    if head_dim % 2:
        rule = f"must be even for rotary positions, is {head_dim}"
        config.reject("head_dim", rule, f"use {head_dim + 1}")
    rope = read_rope(
        config,
        positions=fields["positions"],
        head_dim=head_dim,
        theta=assumed.theta,
        part=assumed.part,
    )
    return fields | {"kv_heads": kv_heads, "head_dim": head_dim, "rope": rope}


def sizes(config: Config, assumed: Assumed) -> Fields:
    """Read the sizes that all families after GPT-2 call alike."""
    return {
        "layers": config.integer("num_hidden_layers"),
        "embed": config.integer("hidden_size"),
        "heads": config.integer("num_attention_heads"),
        "ff": config.integer("intermediate_size"),
        "vocab": config.integer("vocab_size"),
        "positions": config.integer("max_position_embeddings"),
        "activation": config.choice("hidden_act", ACTIVATIONS, assumed.activation),
        "tied": config.flag("tie_word_embeddings", assumed.tied),
        "init_std": config.number("initializer_range", 0.02),
    }


def attention_biases(config: Config, *, default: bool = False) -> Fields:
    """Read whether all projections of attention have biases."""
    bias = config.flag("attention_bias", default)
    return {"qkv_bias": bias, "out_bias": bias}


def gpt2(config: Config) -> Fields:
    """Read GPT-2 (Radford et al., 2019)."""
    embed, heads = config.integer("n_embd"), config.integer("n_head")
    config.divides("n_head", "n_embd", (heads, embed))
    config.only("scale_attn_weights", True, default=True)
    config.only("scale_attn_by_inverse_layer_idx", False, default=False)
    config.only("add_cross_attention", False, default=False)
    return _gpt(embed, heads) | {
        "layers": config.integer("n_layer"),
        "ff": config.integer("n_inner", 4 * embed),
        "vocab": config.integer("vocab_size"),
        "positions": config.integer("n_positions"),
        "norm_eps": config.number("layer_norm_epsilon", 1e-5),
        "activation": config.choice("activation_function", ACTIVATIONS, "gelu_new"),
        "tied": config.flag("tie_word_embeddings", True),
        "init_std": config.number("initializer_range", 0.02),
    }


def opt(config: Config) -> Fields:
    """Read OPT (Zhang et al., 2022), but for two rows of positions that no token uses."""
    embed, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    config.divides("num_attention_heads", "hidden_size", (heads, embed))
    config.only("word_embed_proj_dim", embed, default=embed)
    for key in ("do_layer_norm_before", "enable_bias", "layer_norm_elementwise_affine"):
        config.only(key, True, default=True)
    config.only("_remove_final_layer_norm", False, default=False)
    return _gpt(embed, heads) | {
        "layers": config.integer("num_hidden_layers"),
        "ff": config.integer("ffn_dim"),
        "vocab": config.integer("vocab_size"),
        "positions": config.integer("max_position_embeddings"),
        "activation": config.choice("activation_function", ACTIVATIONS, "relu"),
        "tied": config.flag("tie_word_embeddings", True),
        "init_std": config.number("init_std", 0.02),
    }


def _gpt(embed: int, heads: int) -> Fields:
    """Give what GPT-2 and those after it have in common."""
    return {
        "embed": embed,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": embed // (heads or 1),
        "norm": "layer",
        "rope": None,
        "gated": False,
        "qkv_bias": True,
        "out_bias": True,
        "ff_bias": True,
    }


def llama(config: Config) -> Fields:
    """Read Llama (Touvron et al., 2023)."""
    return {
        **decoder(config, Assumed(divides=True)),
        **attention_biases(config),
        "ff_bias": config.flag("mlp_bias", False),
    }


def mistral(config: Config) -> Fields:
    """Read Mistral (Jiang et al., 2023)."""
    return decoder(config, Assumed(kv_heads=8)) | {"window": sliding(config, 4096)}


def qwen2(config: Config) -> Fields:
    """Read Qwen2 (Yang et al., 2024)."""
    fields = decoder(config, Assumed(kv_heads=32))
    return fields | _qwen_window(config, fields["layers"]) | {"qkv_bias": True}


def qwen3(config: Config) -> Fields:
    """Read Qwen3 (Yang et al., 2025)."""
    fields = decoder(config, Assumed(kv_heads=32, head_dim=128)) | attention_biases(config)
    return fields | _qwen_window(config, fields["layers"]) | {"qk_norm": True}


def gemma(config: Config) -> Fields:
    """Read Gemma (Gemma Team, 2024); where it says ``gelu`` it means the tanh approximation."""
    assumed = Assumed(kv_heads=16, head_dim=256, tied=True, activation="gelu_pytorch_tanh")
    biases = attention_biases(config)
    return decoder(config, assumed) | biases | {"activation": "gelu_tanh"}


def nemotron(config: Config) -> Fields:
    """Read Nemotron (Parmar et al., 2024)."""
    assumed = Assumed(norm_eps=1e-5, part=0.5, activation="relu2")
    return {
        **decoder(config, assumed, eps="norm_eps"),
        **attention_biases(config),
        "ff_bias": config.flag("mlp_bias", False),
        "norm": "layer",
        "gated": False,
    }


def sliding(config: Config, otherwise: int | None) -> int:
    """Read the sliding window, `otherwise` where it is left out; null means none."""
    if config.values.get("sliding_window", otherwise) is None:
        return 0
    return config.integer("sliding_window", otherwise)


def _qwen_window(config: Config, layers: int) -> Fields:
    """Read the sliding window of Qwen, and the layers that have none."""
    window = sliding(config, 4096)
    if not config.flag("use_sliding_window", False):
        window = 0
    kinds = config.values.get("layer_types")
    if kinds is None:
        first = config.values.get("max_window_layers", 28)
        if not is_integer(first) or first < 0:
            rule = f"must be a number of layers, is {first!r:.40}"
            config.reject("max_window_layers", rule, "write one")
            first = 0
        full = tuple(range(min(first, layers)))
    else:
        full = full_layers(config, kinds, layers=layers, window=window)
    windowed = window and len(full) < layers
    return {"window": window, "full_layers": full} if windowed else {}


def full_layers(config: Config, kinds: object, *, layers: int, window: int) -> tuple[int, ...]:
    """Read the layers that attend to everything from the kind of each."""
    known = ("full_attention", "sliding_attention")
    if not layers:
        return ()
    if not isinstance(kinds, Sequence) or isinstance(kinds, str) or len(kinds) != layers:
        rule = f"must list the kind of each of {layers} layers, is {kinds!r:.60}"
        config.reject("layer_types", rule, f"write {layers} of {', '.join(known)}")
        return ()
    strange = sorted({repr(k) for k in kinds if k not in known})
    if strange:
        rule = f"{', '.join(strange)} is not supported"
        config.reject("layer_types", rule, f"choose from {', '.join(known)}")
    if "sliding_attention" in kinds and not window:
        rule = "has sliding_attention, but there is no window"
        config.reject("layer_types", rule, "set use_sliding_window and sliding_window")
    return tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")
