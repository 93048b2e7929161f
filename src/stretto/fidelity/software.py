"""Which generation of software a published measurement was made with, by what its row states."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Software:
    """What a row's framework, year and version mean for its price.

    Attributes:
        stack: The generation of software, by its name in stacks.toml.
        kernel: Its attention kernel, by its name there; None for the generation's own.
        gradient_bytes: Of a gradient as it accumulates and is reduced.
        master_bytes: Of what a master weight has beyond the weight in use.
        sequence: Whether it shards sequences over tensor-parallel ranks unless told otherwise.
        tensor_overlap: Whether it pipelines tensor-parallel moves unless told otherwise.
        recompute: What it recomputes unless told otherwise.
        regather: Whether it gathers sharded parameters again for the backward pass under pipeline
            parallelism too.
        logs_reserved: Whether peaks that it prints are what PyTorch's allocator reserved.
        interleaves: Whether it interleaves pipeline stages unless told otherwise.
        known: Whether it is what the row names, not that of its year.
    """

    stack: str
    kernel: str | None = None
    gradient_bytes: int = 4
    master_bytes: int = 4
    sequence: bool = False
    tensor_overlap: bool = False
    recompute: str = "none"
    regather: bool = False
    logs_reserved: bool = False
    interleaves: bool = False
    known: bool = True


_NAMED = (
    ("llm-foundry", Software("llm-foundry", gradient_bytes=2)),
    ("composer", Software("llm-foundry", gradient_bytes=2)),
    ("internevo", Software("internevo", gradient_bytes=2)),
    ("internlm", Software("internevo", gradient_bytes=2)),
    ("nanotron", Software("nanotron", sequence=True, logs_reserved=True)),
)
"""Frameworks that are one generation each."""


def software_of(tree: Mapping[str, Any]) -> Software:
    """Give the software of a row: by framework and year, never by its source.

    A framework that is not known counts as the generation of its year.
    """
    name = str(tree.get("framework") or "").lower()
    words = str(tree.get("attention_kernel") or "").lower()
    found = _generation(name, words, tree)
    if found.stack.startswith("jax"):
        return found
    early = int(tree.get("year") or 2024) <= 2022 and found.stack == "eager"
    return replace(found, kernel=_kernel(words) or ("fused-softmax" if early else None))


def _generation(name: str, words: str, tree: Mapping[str, Any]) -> Software:
    year = int(tree.get("year") or 2024)
    named = next((software for word, software in _NAMED if word in name), None)
    if named is not None:
        return named
    if "aa-scaling" in name:
        fused = "rms kernel" in words
        return Software("scaling-fused" if fused else "scaling", gradient_bytes=2)
    if "torchtitan" in name:
        return _torchtitan(year, (tree.get("config_extra") or {}).get("torch_compile"))
    if any(word in name for word in ("pax", "jax", "maxtext", "xla")):
        if "tpu" in str(tree.get("hardware")).lower():
            return Software("jax", "cudnn", gradient_bytes=2)  # a kernel of its own, all else fused
        scores = _kernel(words) == "unfused" and "te" not in str(tree.get("precision")).lower()
        return Software("jax" if scores else "jax-fused", gradient_bytes=2)
    if "megatron" in name or "nemo" in name:
        return _megatron(name, words, year=year, version=str(tree.get("software_version") or ""))
    return _of_year(name, year, sharding=str(tree.get("dp_sharding")).lower())


def _of_year(name: str, year: int, *, sharding: str) -> Software:
    if year <= 2022:
        if "deepspeed" in name:
            return Software("deepspeed-2021", gradient_bytes=2)
        # FSDP overlaps its transfers from its first version on.
        stack = "eager" if "fsdp" in f"{name} {sharding}" else "megatron-2021"
        return Software(stack, known=False)
    if year == 2023:
        return Software("eager", interleaves=True, known=False)
    return Software("modern", sequence=True, interleaves=True, known=False)


def _torchtitan(year: int, compiled: bool | None) -> Software:
    stack = "torchtitan-2024" if year <= 2024 else "torchtitan"
    return Software(
        "torchtitan-eager" if compiled is False else stack,
        sequence=True,
        recompute="selective (per-op)",
        logs_reserved=True,
    )


def _megatron(name: str, words: str, *, year: int, version: str) -> Software:
    if "deepspeed" in name and "flash" in words.replace("no flash", ""):
        # What Megatron-LM fused by itself is the attention that flash attention replaced.
        return Software("eager")
    if year <= 2022 or "deepspeed" in name:
        # It recomputed all until selective recomputation came (Korthikanti et al., 2022).
        return Software("megatron-2021", recompute="full" if year <= 2021 else "none")
    if year <= 2023:
        return Software("eager", sequence=True, interleaves=True)
    stack = f"megatron-core-{min(year, 2026)}"
    if year >= 2026 and re.search(r"\b(26\.(0[6-9]|1[0-2])|2[7-9]\.\d\d)", version):
        stack = "megatron-core-2026h2"
    # NeMo's recipes reduce gradients in 16 bits, and kept of a master weight what 16 bits lack.
    recipe = "nemo" in name or "bridge" in name
    return Software(
        stack,
        gradient_bytes=2 if recipe else 4,
        master_bytes=2 if recipe and year <= 2024 else 4,
        sequence=True,
        tensor_overlap=True,
        interleaves=True,
    )


def _kernel(text: str) -> str | None:
    """Give the kernel that a row's words mean; None where it is silent."""
    for words, name in (
        ("no flash", "unfused"),
        ("flash_attentionv1", "flash-1"),
        ("flash_attention2", "flash-2"),
        ("flash-attention-2", "flash-2"),
        ("flash (fused)", "cudnn"),
        ("cudnn", "cudnn"),
        ("flash_attention_3", "cudnn"),
        ("flash3", "cudnn"),
        ("flash", None),
        ("fused", "fused-softmax"),
        ("torch", "unfused"),
    ):
        if words in text:
            return name
    return None
