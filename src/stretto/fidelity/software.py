"""Which generation of software a published measurement was made with, by what its row states."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
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


def software_of(tree: Mapping[str, Any]) -> Software:
    """Give the software of a row: by framework and year, never by its source.

    A framework that is not known counts as the generation of its year.
    """
    name, year = str(tree.get("framework") or "").lower(), int(tree.get("year") or 2024)
    extra = tree.get("config_extra") or {}
    words = str(tree.get("attention_kernel") or "").lower()
    kernel = _kernel(words)
    if "aa-scaling" in name:
        fused = "rms kernel" in words
        return Software("scaling-fused" if fused else "scaling", kernel, gradient_bytes=2)
    if "llm-foundry" in name or "composer" in name:
        return Software("llm-foundry", kernel, gradient_bytes=2)
    if "internevo" in name or "internlm" in name:
        return Software("internevo", kernel, gradient_bytes=2)
    if "nanotron" in name:
        return Software("nanotron", kernel, sequence=True, logs_reserved=True)
    if "torchtitan" in name:
        compiled = extra.get("torch_compile", True) is not False
        stack = (
            ("torchtitan-2024" if year <= 2024 else "torchtitan")
            if compiled
            else "torchtitan-eager"
        )
        return Software(
            stack, kernel, sequence=True, recompute="selective (per-op)",
            logs_reserved=True,
        )  # fmt: skip
    if any(word in name for word in ("pax", "jax", "maxtext", "xla")):
        unfused = kernel == "unfused" and "te" not in str(tree.get("precision") or "").lower()
        stack = "jax" if unfused else "jax-fused"
        return Software(stack, None if kernel == "unfused" else kernel, gradient_bytes=2)
    if "megatron" in name and "deepspeed" in name and "flash" in words.replace("no flash", ""):
        # What Megatron-LM fused by itself is the attention that flash attention replaced.
        return Software("eager", kernel)
    if "megatron" in name or "nemo" in name:
        version = str(tree.get("software_version") or "")
        return _megatron(name, year, version=version, kernel=kernel)
    if "deepspeed" in name and year <= 2022:
        return Software("deepspeed-2021", kernel, gradient_bytes=2)
    if year <= 2022:
        return Software("megatron-2021", kernel)
    if year == 2023:
        return Software("eager", kernel, interleaves=True)
    return Software("modern", kernel, sequence=True, interleaves=True)


def _megatron(name: str, year: int, *, version: str, kernel: str | None) -> Software:
    if year <= 2022 or "deepspeed" in name:
        # Megatron-LM recomputed everything until selective recomputation (Korthikanti et al., 2022).
        return Software("megatron-2021", kernel, recompute="full" if year <= 2021 else "none")
    if year <= 2023:
        return Software("eager", kernel, sequence=True, interleaves=True)
    stack = f"megatron-core-{min(year, 2026)}"
    if year >= 2026 and re.search(r"\b(26\.(0[6-9]|1[0-2])|2[7-9]\.\d\d)", version):
        stack = "megatron-core-2026h2"
    # NeMo's recipes reduce gradients in 16 bits, and kept of a master weight what 16 bits lack.
    recipe = "nemo" in name or "bridge" in name
    return Software(
        stack, kernel, gradient_bytes=2 if recipe else 4,
        master_bytes=2 if recipe and year <= 2024 else 4, sequence=True, tensor_overlap=True,
        interleaves=True,
    )  # fmt: skip


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
