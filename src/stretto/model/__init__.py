"""The model: a chain of blocks with logical dimensions. Knows nothing of parallelism or torch.

A block is a chain of *segments*; between two segments its values may have to move. A segment reads
and writes values whose dimensions have logical names, and uses parameters whose dimensions have
logical names too. That is all a plan needs: a value that a segment contracts over a split dimension
comes out in parts, and a gradient is in parts over every split dimension that its tensor lacks.

Logical dimensions: ``batch``; ``seq``, positions as they rest between segments; ``time``, positions
as attention and feed-forward see them; ``embed``; ``kv_heads`` and ``group`` (query heads of one
key head); ``head_dim``; ``ff``; ``vocab``; ``position`` (of learned positions); ``pair`` (gate and
up, key and value). Of experts: ``route``, experts as the router scores them; ``expert``, experts as
they compute; ``expert_ff`` and ``shared_ff``. Of latent attention: ``q_rank``, ``kv_rank``,
``nope_dim``, ``rope_dim``, ``value_dim``. Of multi-token prediction: ``joined``, two embeddings.
"""

from stretto.model.architecture import (
    Activation,
    Architecture,
    Family,
    Latent,
    Planned,
    Rope,
    Runnable,
)
from stretto.model.block import Block, BlockKind, Dims, Parameter, Segment, Value
from stretto.model.model import Model

__all__ = [
    "Activation",
    "Architecture",
    "Block",
    "BlockKind",
    "Dims",
    "Family",
    "Latent",
    "Model",
    "Parameter",
    "Planned",
    "Rope",
    "Runnable",
    "Segment",
    "Value",
]
