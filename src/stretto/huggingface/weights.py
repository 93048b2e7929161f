"""Where weights lie in the tensors of Hugging Face."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from stretto.errors import ModelError
from stretto.model import Dims, Model, Parameter


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of Hugging Face that holds a parameter or, of one with a ``pair``, one of the two.

    Attributes:
        tensor: Its name.
        axes: For each dimension of the tensor, the logical dimensions that it flattens, the
            outermost first: query head h of Hugging Face is query head h % group of key head
            h // group.
        pair: Which of the two it holds; -1 for a parameter without a ``pair``.
        offset: Where the parameter begins in the last dimension of the tensor.
    """

    tensor: str
    axes: tuple[Dims, ...]
    pair: int = -1
    offset: int = 0

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Give the shape of the part that it holds, by the sizes of logical dimensions."""
        return tuple(math.prod(sizes[d] for d in dims) for dims in self.axes)


# For each parameter, tensors and in which third of them it begins (of GPT-2's fused projection).
_Places = Mapping[str, tuple[tuple[str, int], ...]]

_OF_LLAMA: _Places = {
    "embedding.token": (("model.embed_tokens.weight", 0),),
    "attention.norm.weight": (("input_layernorm.weight", 0),),
    "attention.query": (("self_attn.q_proj.weight", 0),),
    "attention.query_bias": (("self_attn.q_proj.bias", 0),),
    "attention.query_norm": (("self_attn.q_norm.weight", 0),),
    "attention.key_value": (("self_attn.k_proj.weight", 0), ("self_attn.v_proj.weight", 0)),
    "attention.key_value_bias": (("self_attn.k_proj.bias", 0), ("self_attn.v_proj.bias", 0)),
    "attention.key_norm": (("self_attn.k_norm.weight", 0),),
    "attention.out": (("self_attn.o_proj.weight", 0),),
    "attention.out_bias": (("self_attn.o_proj.bias", 0),),
    "feed_forward.norm.weight": (("post_attention_layernorm.weight", 0),),
    "feed_forward.up": (("mlp.gate_proj.weight", 0), ("mlp.up_proj.weight", 0)),
    "feed_forward.up_bias": (("mlp.gate_proj.bias", 0), ("mlp.up_proj.bias", 0)),
    "feed_forward.down": (("mlp.down_proj.weight", 0),),
    "feed_forward.down_bias": (("mlp.down_proj.bias", 0),),
    "head.norm.weight": (("model.norm.weight", 0),),
    "head.weight": (("lm_head.weight", 0),),
}
_OF_GPT2: _Places = {
    "embedding.token": (("transformer.wte.weight", 0),),
    "embedding.position": (("transformer.wpe.weight", 0),),
    "attention.norm.weight": (("ln_1.weight", 0),),
    "attention.norm.bias": (("ln_1.bias", 0),),
    "attention.query": (("attn.c_attn.weight", 0),),
    "attention.query_bias": (("attn.c_attn.bias", 0),),
    "attention.key_value": (("attn.c_attn.weight", 1), ("attn.c_attn.weight", 2)),
    "attention.key_value_bias": (("attn.c_attn.bias", 1), ("attn.c_attn.bias", 2)),
    "attention.out": (("attn.c_proj.weight", 0),),
    "attention.out_bias": (("attn.c_proj.bias", 0),),
    "feed_forward.norm.weight": (("ln_2.weight", 0),),
    "feed_forward.norm.bias": (("ln_2.bias", 0),),
    "feed_forward.up": (("mlp.c_fc.weight", 0),),
    "feed_forward.up_bias": (("mlp.c_fc.bias", 0),),
    "feed_forward.down": (("mlp.c_proj.weight", 0),),
    "feed_forward.down_bias": (("mlp.c_proj.bias", 0),),
    "head.norm.weight": (("transformer.ln_f.weight", 0),),
    "head.norm.bias": (("transformer.ln_f.bias", 0),),
    "head.weight": (("lm_head.weight", 0),),
}


def sources(model: Model, parameter: Parameter) -> tuple[Source, ...]:
    """Give the tensors that hold a parameter: one, or one for each of a ``pair``.

    Raises:
        ModelError: Such a model does not run here.
    """
    if model.unsupported:
        raise ModelError(model.unsupported)
    gpt2 = model.family == "gpt2"
    name, prefix = parameter.name, ""
    if name.startswith("layers."):
        _, layer, name = name.split(".", 2)
        prefix = f"transformer.h.{layer}." if gpt2 else f"model.layers.{layer}."
    paired = parameter.dims[0] == "pair"
    dims = parameter.dims[1:] if paired else parameter.dims
    axes = tuple(tuple(group) for _, group in groupby(dims, lambda d: d == "embed"))
    if gpt2 and prefix and len(axes) == 2:  # GPT-2 stores (in, out)
        axes = axes[::-1]
    third = model.heads * model.head_dim
    return tuple(
        Source(prefix + tensor, axes, index if paired else -1, nth * third)
        for index, (tensor, nth) in enumerate((_OF_GPT2 if gpt2 else _OF_LLAMA)[name])
    )


def tensor_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Give the name and shape of every tensor that `transformers` has for the model, in order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for parameter in model.parameters:
        for source in sources(model, parameter):
            shape = source.shape(model.sizes)
            end = max(source.offset + shape[-1], shapes.get(source.tensor, (0,))[-1])
            shapes[source.tensor] = (*shape[:-1], end)
    return shapes
