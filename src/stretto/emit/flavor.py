"""Which of torchtitan's models a model is: it takes sizes by name, not by number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stretto.model import Model

_SIZES = (
    "layers", "dim", "heads", "key heads", "head_dim", "hidden_dim", "vocab_size", "experts",
    "experts a token", "tied", "theta",
)  # fmt: skip

# The sizes that torchtitan 0.2 and 0.3 have: torchtitan/models/llama3 and torchtitan/models/qwen3.
_KNOWN: Mapping[tuple[float, ...], tuple[str, str]] = {
    (32, 4096, 32, 8, 128, 14_336, 128_256, 0, 0, 0, 5e5): ("llama3", "8B"),
    (80, 8192, 64, 8, 128, 28_672, 128_256, 0, 0, 0, 5e5): ("llama3", "70B"),
    (126, 16_384, 128, 8, 128, 53_248, 128_256, 0, 0, 0, 5e5): ("llama3", "405B"),
    (28, 1024, 16, 8, 128, 3072, 151_936, 0, 0, 1, 1e6): ("qwen3", "0.6B"),
    (28, 2048, 16, 8, 128, 6144, 151_936, 0, 0, 1, 1e6): ("qwen3", "1.7B"),
    (36, 2560, 32, 8, 128, 9728, 151_936, 0, 0, 1, 1e6): ("qwen3", "4B"),
    (36, 4096, 32, 8, 128, 12_288, 151_936, 0, 0, 0, 1e6): ("qwen3", "8B"),
    (40, 5120, 40, 8, 128, 17_408, 151_936, 0, 0, 0, 1e6): ("qwen3", "14B"),
    (64, 5120, 64, 8, 128, 25_600, 151_936, 0, 0, 0, 1e6): ("qwen3", "32B"),
    (48, 2048, 32, 4, 128, 768, 151_936, 128, 8, 0, 1e6): ("qwen3", "30B-A3B"),
    (94, 4096, 64, 4, 128, 1536, 151_936, 128, 8, 0, 5e6): ("qwen3", "235B-A22B"),
}
_TOKENIZERS = {"llama3": "Llama-3.1", "qwen3": "Qwen3"}
_BASES = {"llama3": "llama3_8b", "qwen3": "qwen3_14b"}


@dataclass(frozen=True, slots=True)
class Flavor:
    """A model of torchtitan.

    Attributes:
        module: The package of the model.
        name: What torchtitan calls the size, or is to call it.
        sizes: Its numbers, in torchtitan's words.
        known: Whether torchtitan has the size.
    """

    module: str
    name: str
    sizes: str
    known: bool

    @property
    def base(self) -> str:
        """The configuration of torchtitan that a plan's differs from."""
        return _BASES[self.module]

    @property
    def assets(self) -> str:
        """The folder of its tokenizer."""
        return f"./assets/hf/{_TOKENIZERS[self.module]}-{self.name}"


def flavor_of(model: Model) -> Flavor:
    """Give what torchtitan calls a model; its own name where torchtitan has none of its size."""
    numbers: tuple[float, ...] = (
        model.layers, model.embed, model.heads, model.kv_heads, model.head_dim,
        model.expert_ff or model.ff, model.vocab, model.experts, model.top_k, model.tied,
        model.rope.theta if model.rope else 0,
    )  # fmt: skip
    module = "qwen3" if model.qk_norm else "llama3"
    family, name = _KNOWN.get(numbers, ("", ""))
    known = family == module
    shown = ", ".join(f"{n} {v:.12g}" for n, v in zip(_SIZES, map(float, numbers), strict=True))
    return Flavor(module, name if known else model.name, shown, known)
