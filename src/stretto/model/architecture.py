"""The numbers of a decoder-only transformer, checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Literal

from stretto.errors import ModelError, Problem

Runnable = Literal["gpt2", "llama", "mistral", "qwen2", "qwen3"]
"""Families whose weights are read, trained and written."""
Planned = Literal[
    "deepseek_v2", "deepseek_v3", "gemma", "gpt_oss", "llama4", "mixtral", "nemotron", "opt",
    "qwen3_moe",
]  # fmt: skip
"""Families that are read to be planned and priced, but do not run yet."""
Family = Literal[Runnable, Planned]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions (Su et al., 2021) and how their frequencies are scaled.

    Attributes:
        theta: Base of the frequencies.
        scaling: ``linear`` (Chen et al., 2023), ``dynamic`` NTK, ``yarn`` (Peng et al., 2023),
            ``llama3`` (Grattafiori et al., 2024), or ``longrope`` (Ding et al., 2024).
        factor: By how much the context is extended.
        original_positions: Context length before extension.
        low_freq_factor: Of ``llama3``.
        high_freq_factor: Of ``llama3``.
        beta_fast: Of ``yarn``.
        beta_slow: Of ``yarn``.
        attention_factor: Multiplies cosine and sine; None for the formula of the paper.
        mscale: Of ``yarn``; 0 where not given.
        mscale_all_dim: Of ``yarn``; 0 where not given.
        truncate: Whether ``yarn`` rounds the ends of its ramp.
        long_factor: Of ``longrope``, one for each frequency.
        short_factor: Of ``longrope``, one for each frequency.
    """

    theta: float = 10_000.0
    scaling: Literal["none", "linear", "dynamic", "yarn", "llama3", "longrope"] = "none"
    factor: float = 1.0
    original_positions: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    truncate: bool = True
    long_factor: tuple[float, ...] = ()
    short_factor: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention (DeepSeek-AI, 2024): keys and values from one small vector.

    A query and a key have `nope_dim` numbers without and `rope_dim` with rotary positions; the
    latter part of the key is the same for all heads.

    Attributes:
        q_rank: Width to which queries are compressed; 0 where they are not.
        kv_rank: Width to which keys and values are compressed.
        nope_dim: Width of a head's query and key without positions.
        rope_dim: Width of a head's query and key with positions.
        value_dim: Width of a head's value.
    """

    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers of a decoder-only transformer.

    Attributes:
        name: What to call it.
        layers: Number of layers, each an attention and a feed-forward or experts block.
        embed: Width of the residual stream.
        heads: Query heads.
        kv_heads: Key and value heads; a divisor of `heads`.
        head_dim: Width of a head's query and key.
        ff: Width of the feed-forward block.
        vocab: Number of tokens.
        positions: The longest sequence it is made for.
        norm: LayerNorm (Ba et al., 2016) or RMSNorm (Zhang and Sennrich, 2019).
        norm_eps: Added to the variance.
        rope: Rotary positions; None for learned ones.
        activation: Of the feed-forward block; ``relu2`` is the square of ReLU (So et al., 2021).
        gated: Whether the feed-forward block is gated (Shazeer, 2020).
        qkv_bias: Whether query, key and value have biases.
        out_bias: Whether the attention output has one.
        ff_bias: Whether the feed-forward block, or router and experts, have them.
        qk_norm: Whether query and key heads are normalised (as in Qwen3).
        window: Sliding window of attention in positions; 0 for none.
        full_layers: With a window or chunks, the indices of the layers that attend to everything.
        tied: Whether the head uses the token embedding.
        init_std: Standard deviation of initial weights.
        family: The Hugging Face ``model_type`` that it is read from and written as.
        chunk: Attention stays within chunks of so many positions (as in Llama 4); 0 for none.
        experts: Experts of each layer that has them (Shazeer et al., 2017); 0 for none.
        top_k: Experts that compute a token.
        expert_ff: Width of an expert.
        shared_ff: Width of what all tokens pass besides, all shared experts together; 0 for none.
        dense_layers: With experts, the indices of the layers that have a feed-forward block.
        latent: Widths of latent attention; None for plain attention.
        mtp_layers: Layers that each predict one more token ahead (DeepSeek-AI, 2024b).
    """

    name: str
    layers: int
    embed: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    vocab: int
    positions: int
    norm: Literal["layer", "rms"] = "rms"
    norm_eps: float = 1e-5
    rope: Rope | None = field(default_factory=Rope)
    activation: Activation = "silu"
    gated: bool = True
    qkv_bias: bool = False
    out_bias: bool = False
    ff_bias: bool = False
    qk_norm: bool = False
    window: int = 0
    full_layers: tuple[int, ...] = ()
    tied: bool = False
    init_std: float = 0.02
    family: Family = "llama"
    chunk: int = 0
    experts: int = 0
    top_k: int = 0
    expert_ff: int = 0
    shared_ff: int = 0
    dense_layers: tuple[int, ...] = ()
    latent: Latent | None = None
    mtp_layers: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ModelError: All that is wrong.
        """
        problems = [*_least(self), *_heads(self), *_experts(self), *_latent(self)]
        if problems:
            raise ModelError(problems)

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each logical dimension that parameters have."""
        sizes = {
            "embed": self.embed,
            "kv_heads": self.kv_heads,
            "group": self.heads // self.kv_heads,
            "head_dim": self.head_dim,
            "ff": self.ff,
            "vocab": self.vocab,
            "position": self.positions,
            "pair": 2,
        }
        if self.experts:
            sizes |= {"route": self.experts, "expert": self.experts}
            sizes |= {"expert_ff": self.expert_ff, "shared_ff": self.shared_ff}
        if self.latent is not None:
            sizes |= {f.name: getattr(self.latent, f.name) for f in fields(Latent)}
        if self.mtp_layers:
            sizes["joined"] = 2 * self.embed
        return sizes

    @property
    def value_dim(self) -> int:
        """Width of a head's value."""
        return self.latent.value_dim if self.latent else self.head_dim


_LEAST = {
    "layers": 1, "embed": 1, "heads": 1, "kv_heads": 1, "head_dim": 1, "ff": 1, "vocab": 2,
    "positions": 1, "window": 0, "chunk": 0, "experts": 0, "top_k": 0, "expert_ff": 0,
    "shared_ff": 0, "mtp_layers": 0,
}  # fmt: skip


def _least(model: Architecture) -> Iterator[Problem]:
    numbers = [(name, getattr(model, name), least) for name, least in _LEAST.items()]
    if model.latent is not None:
        numbers += [
            (f"latent.{f.name}", getattr(model.latent, f.name), int(f.name != "q_rank"))
            for f in fields(Latent)
        ]
    for name, value, least in numbers:
        if value < least:
            yield Problem(name, f"is {value}, below {least}", f"use {least} or more")


def _heads(model: Architecture) -> Iterator[Problem]:
    if model.kv_heads > 0 and model.heads % model.kv_heads:
        yield Problem(
            "kv_heads",
            f"must divide heads, but {model.heads} % {model.kv_heads} = "
            f"{model.heads % model.kv_heads}",
            "choose a divisor of heads",
        )
    if model.rope is not None and model.head_dim % 2:
        rule = f"must be even for rotary positions, is {model.head_dim}"
        yield Problem("head_dim", rule, f"use {model.head_dim + 1}")
    if model.window > 0 and model.chunk > 0:
        rule = f"attention has either, but window is {model.window} and chunk {model.chunk}"
        yield Problem("chunk", rule, "set one of them to 0")


def _experts(model: Architecture) -> Iterator[Problem]:
    if model.experts == 0:
        for name in ("top_k", "expert_ff", "shared_ff", "dense_layers"):
            if getattr(model, name):
                rule = f"is {getattr(model, name)}, but there are no experts"
                yield Problem(name, rule, "set experts, or leave it out")
        return
    if not 1 <= model.top_k <= model.experts:
        rule = f"must be from 1 to experts, but is {model.top_k} of {model.experts}"
        yield Problem("top_k", rule, f"use at most {model.experts}")
    if model.expert_ff == 0:
        yield Problem("expert_ff", "is 0, but there are experts", "state their width")
    strange = [i for i in model.dense_layers if not 0 <= i < model.layers]
    if strange:
        rule = f"names {strange}, but there are layers 0 … {model.layers - 1}"
        yield Problem("dense_layers", rule, "name layers that there are")


def _latent(model: Architecture) -> Iterator[Problem]:
    if model.latent is None:
        return
    nope, rope = model.latent.nope_dim, model.latent.rope_dim
    if model.head_dim != nope + rope:
        rule = f"must be nope_dim + rope_dim, but {model.head_dim} is not {nope} + {rope}"
        yield Problem("head_dim", rule, f"use {nope + rope}")
    if model.kv_heads != model.heads:
        rule = f"must be heads in latent attention, but {model.kv_heads} is not {model.heads}"
        yield Problem("kv_heads", rule, f"use {model.heads}")
