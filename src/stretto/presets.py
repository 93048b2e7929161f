"""Models by name: small ones of our own, and published ones with the numbers of their configs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from stretto.errors import ModelError, Problem
from stretto.model import Model, Rope

# Radford et al., 2019; https://huggingface.co/openai-community/gpt2
_GPT2 = Model(
    "gpt2",
    layers=12,
    embed=768,
    heads=12,
    kv_heads=12,
    head_dim=64,
    ff=3072,
    vocab=50_257,
    positions=1024,
    norm="layer",
    rope=None,
    activation="gelu_tanh",
    gated=False,
    qkv_bias=True,
    out_bias=True,
    ff_bias=True,
    tied=True,
    family="gpt2",
)

# Touvron et al., 2023
_LLAMA2 = Model(
    "llama-2-7b",
    layers=32,
    embed=4096,
    heads=32,
    kv_heads=32,
    head_dim=128,
    ff=11_008,
    vocab=32_000,
    positions=4096,
)

# Grattafiori et al., 2024
_LLAMA3 = Model(
    "llama-3-8b",
    layers=32,
    embed=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    ff=14_336,
    vocab=128_256,
    positions=8192,
    rope=Rope(theta=500_000.0),
)

# Yang et al., 2025
_QWEN3 = Model(
    "qwen3-8b",
    layers=36,
    embed=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    ff=12_288,
    vocab=151_936,
    positions=40_960,
    norm_eps=1e-6,
    rope=Rope(theta=1_000_000.0),
    qk_norm=True,
    family="qwen3",
)

_MODELS = (
    # For tests.
    Model(
        "tiny",
        layers=2,
        embed=32,
        heads=4,
        kv_heads=2,
        head_dim=8,
        ff=48,
        vocab=320,
        positions=128,
    ),
    # What `stretto train` trains without arguments: two minutes on two cores.
    Model(
        "stretto-1m",
        layers=4,
        embed=128,
        heads=4,
        kv_heads=4,
        head_dim=32,
        ff=384,
        vocab=4096,
        positions=1024,
        tied=True,
    ),
    # What benchmarks train: 10.2 M parameters.
    Model(
        "stretto-10m",
        layers=8,
        embed=256,
        heads=8,
        kv_heads=8,
        head_dim=32,
        ff=640,
        vocab=8192,
        positions=1024,
    ),
    _GPT2,
    replace(_GPT2, name="gpt2-medium", layers=24, embed=1024, heads=16, kv_heads=16, ff=4096),
    replace(_GPT2, name="gpt2-large", layers=36, embed=1280, heads=20, kv_heads=20, ff=5120),
    replace(_GPT2, name="gpt2-xl", layers=48, embed=1600, heads=25, kv_heads=25, ff=6400),
    # Allal et al., 2025; https://huggingface.co/HuggingFaceTB/SmolLM2-135M
    Model(
        "smollm2-135m",
        layers=30,
        embed=576,
        heads=9,
        kv_heads=3,
        head_dim=64,
        ff=1536,
        vocab=49_152,
        positions=8192,
        rope=Rope(theta=100_000.0),
        tied=True,
        init_std=0.041666666666666664,
    ),
    _LLAMA2,
    replace(_LLAMA2, name="llama-2-13b", layers=40, embed=5120, heads=40, kv_heads=40, ff=13_824),
    replace(_LLAMA2, name="llama-2-70b", layers=80, embed=8192, heads=64, kv_heads=8, ff=28_672),
    _LLAMA3,
    replace(_LLAMA3, name="llama-3-70b", layers=80, embed=8192, heads=64, ff=28_672),
    # Jiang et al., 2023; https://huggingface.co/mistralai/Mistral-7B-v0.1
    Model(
        "mistral-7b",
        layers=32,
        embed=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ff=14_336,
        vocab=32_000,
        positions=32_768,
        window=4096,
        family="mistral",
    ),
    replace(_QWEN3, name="qwen3-0.6b", layers=28, embed=1024, heads=16, ff=3072, tied=True),
    _QWEN3,
)

PRESETS: Mapping[str, Model] = MappingProxyType({model.name: model for model in _MODELS})
"""Every preset by its name, the smallest of each kind first."""


def preset(name: str) -> Model:
    """Give a model by name.

    Raises:
        ModelError: No preset has that name.
    """
    if name in PRESETS:
        return PRESETS[name]
    close = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ModelError(
        Problem("model", f"there is no preset {name!r}", f"{hint}choose from {', '.join(PRESETS)}")
    )
