"""The model: a chain of blocks with logical dimensions. Knows nothing of parallelism or torch.

A block is a chain of *segments*; between two segments its values may have to move. A segment reads
and writes values whose dimensions have logical names, and uses parameters whose dimensions have
logical names too. That is all a plan needs: a value that a segment contracts over a split dimension
comes out in parts, and a gradient is in parts over every split dimension that its tensor lacks.

Logical dimensions: ``batch``; ``seq``, positions as they rest between segments; ``time``, positions
as attention and feed-forward see them; ``embed``; ``kv_heads`` and ``group`` (query heads of one
key head); ``head_dim``; ``ff``; ``vocab``; ``position`` (of learned positions); ``pair`` (gate and
up, key and value).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from stretto.errors import ModelError, Problem

Dims = tuple[str, ...]


class BlockKind(StrEnum):
    """What a block does."""

    EMBEDDING = "embedding"
    ATTENTION = "attention"
    FEED_FORWARD = "feed_forward"
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
        decay: Whether weight decay applies to it.
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
        name: What it does; the runtime and the reference have one function for each.
        reads: Values in.
        writes: Values out.
        parameters: What it uses.
    """

    name: Literal["lookup", "norm", "attend", "transform", "add", "logits", "sums", "loss"]
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
        name: ``embedding``, ``layers.3.attention``, …
        kind: What it does.
        layer: Index of its layer; -1 outside the layers.
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
class Model:
    """A decoder-only transformer.

    Attributes:
        name: What to call it.
        layers: Number of layers, each an attention and a feed-forward block.
        embed: Width of the residual stream.
        heads: Query heads.
        kv_heads: Key and value heads; a divisor of `heads`.
        head_dim: Width of a head.
        ff: Width of the feed-forward block.
        vocab: Number of tokens.
        positions: The longest sequence it is made for.
        norm: LayerNorm (Ba et al., 2016) or RMSNorm (Zhang and Sennrich, 2019).
        norm_eps: Added to the variance.
        rope: Rotary positions; None for learned ones.
        activation: Of the feed-forward block.
        gated: Whether the feed-forward block is gated (Shazeer, 2020).
        qkv_bias: Whether query, key and value have biases.
        out_bias: Whether the attention output has one.
        ff_bias: Whether the feed-forward block has them.
        qk_norm: Whether query and key heads are normalised (as in Qwen3).
        window: Sliding window of attention in positions; 0 for none.
        full_layers: With a window, the indices of the layers that attend to everything.
        tied: Whether the head uses the token embedding.
        init_std: Standard deviation of initial weights.
        family: The Hugging Face ``model_type`` that it is read from and written as.
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
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    gated: bool = True
    qkv_bias: bool = False
    out_bias: bool = False
    ff_bias: bool = False
    qk_norm: bool = False
    window: int = 0
    full_layers: tuple[int, ...] = ()
    tied: bool = False
    init_std: float = 0.02
    family: Literal["gpt2", "llama", "mistral", "qwen2", "qwen3"] = "llama"

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ModelError: All that is wrong.
        """
        problems = [
            Problem(name, f"is {value}, below {least}", f"use {least} or more")
            for name, least in (
                ("layers", 1), ("embed", 1), ("heads", 1), ("kv_heads", 1), ("head_dim", 1),
                ("ff", 1), ("vocab", 2), ("positions", 1), ("window", 0),
            )
            for value in [getattr(self, name)]
            if value < least
        ]  # fmt: skip
        if self.kv_heads > 0 and self.heads % self.kv_heads:
            problems.append(
                Problem(
                    "kv_heads",
                    f"must divide heads, but {self.heads} % {self.kv_heads} = "
                    f"{self.heads % self.kv_heads}",
                    "choose a divisor of heads",
                )
            )
        if self.rope is not None and self.head_dim % 2:
            problems.append(
                Problem("head_dim", f"must be even for rotary positions, is {self.head_dim}",
                        f"use {self.head_dim + 1}")
            )  # fmt: skip
        if problems:
            raise ModelError(problems)

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each logical dimension that parameters have."""
        return {
            "embed": self.embed,
            "kv_heads": self.kv_heads,
            "group": self.heads // self.kv_heads,
            "head_dim": self.head_dim,
            "ff": self.ff,
            "vocab": self.vocab,
            "position": self.positions,
            "pair": 2,
        }

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The chain: embedding; attention and feed-forward of each layer; head."""
        layers = (
            block
            for i in range(self.layers)
            for block in (_attention(self, i), _feed_forward(self, i))
        )
        return (_embedding(self), *layers, _head(self))

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter once, in the order of the chain."""
        return tuple(dict.fromkeys(p for b in self.blocks for p in b.parameters))

    def shape(self, parameter: Parameter) -> tuple[int, ...]:
        """Give the shape of a parameter."""
        sizes = self.sizes
        return tuple(sizes[d] for d in parameter.dims)

    @property
    def parameter_count(self) -> int:
        """The number of learned numbers, tied ones once."""
        return sum(math.prod(self.shape(p)) for p in self.parameters)

    def attends_to(self, layer: int, *, positions: int) -> float:
        """Give the mean number of positions that one of `positions` attends to, causally."""
        window = self.window if self.window and layer not in self.full_layers else positions
        window = min(window, positions)
        return window - window * (window - 1) / (2 * positions)

    def block_flops(self, block: Block, *, positions: int) -> float:
        """Give the forward FLOPs of a block for one token: matrix products and attention.

        A product with an (m, n) matrix is 2·m·n; attention is 4·heads·head_dim for each position
        attended to, of which a causal one has (positions + 1)/2 on average. Norms, activations and
        the embedding lookup are not counted (Narayanan et al., 2021).
        """
        if block.kind is BlockKind.EMBEDDING:
            return 0.0
        products = sum(2 * math.prod(self.shape(p)) for p in block.parameters if _is_matrix(p))
        if block.kind is not BlockKind.ATTENTION:
            return float(products)
        attended = self.attends_to(block.layer, positions=positions)
        return products + 4 * self.heads * self.head_dim * attended

    def step_flops(self, *, tokens: int, positions: int) -> float:
        """Give the model FLOPs of a training step: forward once, backward twice that.

        This is 6·parameters·tokens plus causal attention, the numerator of MFU (Chowdhery et al.,
        2022); recomputation is not in it.
        """
        return 3 * tokens * sum(self.block_flops(b, positions=positions) for b in self.blocks)


def _is_matrix(parameter: Parameter) -> bool:
    return "embed" in parameter.dims and len(set(parameter.dims) - {"pair"}) > 1


_X = Value("x", ("batch", "seq", "embed"))
_N = Value("n", ("batch", "time", "embed"))
_D = Value("d", ("batch", "time", "embed"))
_POSITIONS = Value("positions", ("batch", "time"), "given")
_MASK = Value("mask", ("batch", "time"), "given")
_TARGETS = Value("targets", ("batch", "time"), "given")
_ADD = Segment("add", (_X, Value("d", _X.dims)), (_X,))


def _norm(model: Model, name: str) -> Segment:
    weight = Parameter(f"{name}.weight", ("embed",), constant=1.0)
    bias = Parameter(f"{name}.bias", ("embed",))
    parameters = (weight, bias) if model.norm == "layer" else (weight,)
    return Segment("norm", (_X,), (Value("n", _X.dims),), parameters)


def _embedding(model: Model) -> Block:
    token = Parameter("embedding.token", ("vocab", "embed"), std=model.init_std, decay=True)
    position = Parameter(
        "embedding.position", ("position", "embed"), std=model.init_std, decay=True
    )
    tokens = Value("tokens", ("batch", "time"), "given")
    x = Value("x", ("batch", "time", "embed"))
    learned = model.rope is None
    lookup = Segment(
        "lookup",
        (tokens, _POSITIONS) if learned else (tokens,),
        (x,),
        (token, position) if learned else (token,),
    )
    return Block("embedding", BlockKind.EMBEDDING, -1, (lookup,))


def _attention(model: Model, layer: int) -> Block:
    name = f"layers.{layer}.attention"
    std = model.init_std
    query, pair = ("kv_heads", "group", "head_dim"), ("pair", "kv_heads", "head_dim")
    parameters = [
        Parameter(f"{name}.query", (*query, "embed"), std=std, decay=True),
        Parameter(f"{name}.key_value", (*pair, "embed"), std=std, decay=True),
        Parameter(f"{name}.out", ("embed", *query), std=_out_std(model), decay=True),
    ]
    if model.qkv_bias:
        parameters += [
            Parameter(f"{name}.query_bias", query),
            Parameter(f"{name}.key_value_bias", pair),
        ]
    if model.qk_norm:
        parameters += [
            Parameter(f"{name}.query_norm", ("head_dim",), constant=1.0),
            Parameter(f"{name}.key_norm", ("head_dim",), constant=1.0),
        ]
    if model.out_bias:
        parameters.append(Parameter(f"{name}.out_bias", ("embed",)))
    attend = Segment("attend", (_N, _MASK), (_D,), tuple(parameters))
    return Block(name, BlockKind.ATTENTION, layer, (_norm(model, f"{name}.norm"), attend, _ADD))


def _feed_forward(model: Model, layer: int) -> Block:
    name = f"layers.{layer}.feed_forward"
    up = ("pair", "ff") if model.gated else ("ff",)
    parameters = [
        Parameter(f"{name}.up", (*up, "embed"), std=model.init_std, decay=True),
        Parameter(f"{name}.down", ("embed", "ff"), std=_out_std(model), decay=True),
    ]
    if model.ff_bias:
        parameters += [Parameter(f"{name}.up_bias", up), Parameter(f"{name}.down_bias", ("embed",))]
    transform = Segment("transform", (_N,), (_D,), tuple(parameters))
    segments = (_norm(model, f"{name}.norm"), transform, _ADD)
    return Block(name, BlockKind.FEED_FORWARD, layer, segments)


def _head(model: Model) -> Block:
    weight = (
        _embedding(model).parameters[0]
        if model.tied
        else Parameter("head.weight", ("vocab", "embed"), std=model.init_std, decay=True)
    )
    logits = Value("logits", ("batch", "time", "vocab"))
    peak = Value("peak", ("batch", "time"), "maximum")
    total, hit = Value("total", ("batch", "time")), Value("hit", ("batch", "time"))
    return Block(
        "head",
        BlockKind.HEAD,
        -1,
        (
            _norm(model, "head.norm"),
            Segment("logits", (_N,), (logits, peak), (weight,)),
            Segment("sums", (logits, peak, _TARGETS), (total, hit)),
            Segment("loss", (total, hit, peak, _TARGETS), (Value("loss", ()),)),
        ),
    )


def _out_std(model: Model) -> float:
    """Smaller where a block writes to the residual stream (Radford et al., 2019)."""
    return model.init_std / math.sqrt(2 * model.layers)
