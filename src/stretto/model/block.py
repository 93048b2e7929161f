"""What a model is made of: blocks of segments, which read, write and learn named tensors."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Dims = tuple[str, ...]


class BlockKind(StrEnum):
    """What a block does."""

    EMBEDDING = "embedding"
    ATTENTION = "attention"
    FEED_FORWARD = "feed_forward"
    EXPERTS = "experts"
    JOIN = "join"
    HEAD = "head"


@dataclass(frozen=True, slots=True)
class Value:
    """What a segment reads or writes.

    Attributes:
        name: Its name within the block; ``x`` enters and leaves a block.
        dims: Its logical dimensions.
        kind: ``real`` values carry gradients; a ``maximum`` is reduced by maximum and carries none;
            ``given`` values (tokens, targets, mask) come with the micro-batch.
    """

    name: str
    dims: Dims
    kind: Literal["real", "maximum", "given"] = "real"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A learned tensor.

    Attributes:
        name: Unique in the model.
        dims: Its logical dimensions.
        std: Standard deviation of its normal initial values; 0 for a constant.
        constant: Its initial value where `std` is 0.
        decay: Whether weight decay applies to it, which is so for matrices and for nothing else.
    """

    name: str
    dims: Dims
    std: float = 0.0
    constant: float = 0.0
    decay: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a block that runs without communication.

    Attributes:
        name: What it does; the runtime and the reference have one function for each, but for
            ``latent`` (attention), ``route``, ``experts`` and ``join``, which are planned only.
        reads: Values in.
        writes: Values out.
        parameters: What it uses.
    """

    name: Literal[
        "lookup", "norm", "attend", "transform", "add", "logits", "sums", "loss",
        "latent", "route", "experts", "join",
    ]  # fmt: skip
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]
    parameters: tuple[Parameter, ...] = ()

    @property
    def recalled(self) -> tuple[Parameter, ...]:
        """The parameters that its backward reads again: a lookup's reads none."""
        return () if self.name == "lookup" else self.parameters

    @property
    def dims(self) -> frozenset[str]:
        """Every logical dimension that it iterates over."""
        operands = [v.dims for v in (*self.reads, *self.writes)] + [p.dims for p in self.parameters]
        return frozenset(d for dims in operands for d in dims)


@dataclass(frozen=True, slots=True)
class Block:
    """A link of the chain.

    Attributes:
        name: ``embedding``, ``layers.3.attention``, ``mtp.0.join``, …
        kind: What it does.
        layer: Index of its layer; -1 outside the layers. Layers that predict further tokens are
            counted after the others.
        segments: Its parts, in order.
    """

    name: str
    kind: BlockKind
    layer: int
    segments: tuple[Segment, ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter that the block uses, once."""
        return tuple(dict.fromkeys(p for s in self.segments for p in s.parameters))

    @property
    def matrices(self) -> tuple[Parameter, ...]:
        """Every matrix that the block multiplies with, once: those of a lookup are not among."""
        recalled = dict.fromkeys(p for s in self.segments for p in s.recalled)
        return tuple(p for p in recalled if p.decay)
