"""The blocks of an architecture, in the order in which they run."""

from __future__ import annotations

import math
from collections.abc import Iterator

from stretto.model.architecture import Architecture, Latent
from stretto.model.block import Block, BlockKind, Dims, Parameter, Segment, Value

_X = Value("x", ("batch", "seq", "embed"))
_N = Value("n", ("batch", "time", "embed"))
_D = Value("d", ("batch", "time", "embed"))
_TOKENS = Value("tokens", ("batch", "time"), "given")
_POSITIONS = Value("positions", ("batch", "time"), "given")
_MASK = Value("mask", ("batch", "time"), "given")
_TARGETS = Value("targets", ("batch", "time"), "given")
_ADD = Segment("add", (_X, Value("d", _X.dims)), (_X,))


def chain(model: Architecture) -> tuple[Block, ...]:
    """Give the chain: embedding; two blocks of each layer; predictions further ahead; head."""
    layers = (b for i in range(model.layers) for b in _layer(model, f"layers.{i}", i))
    further = (b for k in range(model.mtp_layers) for b in _prediction(model, k))
    return (_embedding(model), *layers, *further, _head(model, "head"))


def _layer(model: Architecture, name: str, layer: int) -> Iterator[Block]:
    yield _attention(model, f"{name}.attention", layer)
    if model.experts and layer not in model.dense_layers:
        yield _experts(model, f"{name}.experts", layer)
    else:
        yield _feed_forward(model, f"{name}.feed_forward", layer)


def _prediction(model: Architecture, depth: int) -> Iterator[Block]:
    """Give what predicts one more token ahead (DeepSeek-AI, 2024b): join, a layer, and a head.

    What the last layer gave is joined with the embedding of the token ahead; embedding and head
    are those of the model, norms are not.
    """
    name, layer = f"mtp.{depth}", model.layers + depth
    yield _join(model, f"{name}.join", layer)
    yield from _layer(model, name, layer)
    yield _head(model, f"{name}.head", layer)


def _matrix(model: Architecture, name: str, dims: Dims) -> Parameter:
    return Parameter(name, dims, std=model.init_std, decay=True)


def _last_matrix(model: Architecture, name: str, dims: Dims) -> Parameter:
    """Smaller where a block writes to the residual stream (Radford et al., 2019)."""
    return Parameter(name, dims, std=model.init_std / math.sqrt(2 * model.layers), decay=True)


def _ones(name: str, dim: str) -> Parameter:
    return Parameter(name, (dim,), constant=1.0)


def _norm(model: Architecture, name: str, *, of: Value = _X, to: str = "n") -> Segment:
    weight, bias = _ones(f"{name}.weight", "embed"), Parameter(f"{name}.bias", ("embed",))
    parameters = (weight, bias) if model.norm == "layer" else (weight,)
    return Segment("norm", (of,), (Value(to, of.dims),), parameters)


def _token(model: Architecture) -> Parameter:
    return _matrix(model, "embedding.token", ("vocab", "embed"))


def _embedding(model: Architecture) -> Block:
    position = _matrix(model, "embedding.position", ("position", "embed"))
    learned = model.rope is None
    lookup = Segment(
        "lookup",
        (_TOKENS, _POSITIONS) if learned else (_TOKENS,),
        (Value("x", _N.dims),),
        (_token(model), position) if learned else (_token(model),),
    )
    return Block("embedding", BlockKind.EMBEDDING, -1, (lookup,))


def _attention(model: Architecture, name: str, layer: int) -> Block:
    parameters = _latent(model, name, model.latent) if model.latent else _plain(model, name)
    attend = Segment("latent" if model.latent else "attend", (_N, _MASK), (_D,), parameters)
    return Block(name, BlockKind.ATTENTION, layer, (_norm(model, f"{name}.norm"), attend, _ADD))


def _plain(model: Architecture, name: str) -> tuple[Parameter, ...]:
    query, pair = ("kv_heads", "group", "head_dim"), ("pair", "kv_heads", "head_dim")
    parameters = [
        _matrix(model, f"{name}.query", (*query, "embed")),
        _matrix(model, f"{name}.key_value", (*pair, "embed")),
        _last_matrix(model, f"{name}.out", ("embed", *query)),
    ]
    if model.qkv_bias:
        parameters += [
            Parameter(f"{name}.query_bias", query),
            Parameter(f"{name}.key_value_bias", pair),
        ]
    if model.qk_norm:
        parameters += [
            _ones(f"{name}.query_norm", "head_dim"),
            _ones(f"{name}.key_norm", "head_dim"),
        ]
    if model.out_bias:
        parameters.append(Parameter(f"{name}.out_bias", ("embed",)))
    return tuple(parameters)


def _latent(model: Architecture, name: str, latent: Latent) -> tuple[Parameter, ...]:
    """Give the parameters of latent attention (DeepSeek-AI, 2024); it has no biases."""
    query = ("kv_heads", "group", "head_dim")
    compressed = (
        _matrix(model, f"{name}.query_down", ("q_rank", "embed")),
        _ones(f"{name}.query_norm", "q_rank"),
        _matrix(model, f"{name}.query", (*query, "q_rank")),
    )
    direct = (_matrix(model, f"{name}.query", (*query, "embed")),)
    return (
        *(compressed if latent.q_rank else direct),
        _matrix(model, f"{name}.key_value_down", ("kv_rank", "embed")),
        _matrix(model, f"{name}.key_rope", ("rope_dim", "embed")),
        _ones(f"{name}.key_value_norm", "kv_rank"),
        _matrix(model, f"{name}.key", ("kv_heads", "nope_dim", "kv_rank")),
        _matrix(model, f"{name}.value", ("kv_heads", "value_dim", "kv_rank")),
        _last_matrix(model, f"{name}.out", ("embed", "kv_heads", "group", "value_dim")),
    )


def _feed_forward(model: Architecture, name: str, layer: int) -> Block:
    transform = Segment("transform", (_N,), (_D,), _gated(model, name, "ff"))
    segments = (_norm(model, f"{name}.norm"), transform, _ADD)
    return Block(name, BlockKind.FEED_FORWARD, layer, segments)


def _gated(model: Architecture, name: str, width: str, *outer: str) -> tuple[Parameter, ...]:
    """Give the parameters of a feed-forward of logical `width`, one for each of `outer`."""
    up = (*outer, "pair", width) if model.gated else (*outer, width)
    parameters = (
        _matrix(model, f"{name}.up", (*up, "embed")),
        _last_matrix(model, f"{name}.down", (*outer, "embed", width)),
    )
    biases = (
        Parameter(f"{name}.up_bias", up),
        Parameter(f"{name}.down_bias", (*outer, "embed")),
    )
    return parameters + biases if model.ff_bias else parameters


def _experts(model: Architecture, name: str, layer: int) -> Block:
    """Give a mixture of experts (Shazeer et al., 2017), and what is shared beside it."""
    share = Value("share", ("batch", "time", "route"))
    router = [_matrix(model, f"{name}.router", ("route", "embed"))]
    if model.ff_bias:
        router.append(Parameter(f"{name}.router_bias", ("route",)))
    parameters = _gated(model, name, "expert_ff", "expert")
    if model.shared_ff:
        parameters += _gated(model, f"{name}.shared", "shared_ff")
    segments = (
        _norm(model, f"{name}.norm"),
        Segment("route", (_N,), (share,), tuple(router)),
        Segment("experts", (_N, share), (_D,), parameters),
        _ADD,
    )
    return Block(name, BlockKind.EXPERTS, layer, segments)


def _join(model: Architecture, name: str, layer: int) -> Block:
    ahead = Value("ahead", _N.dims)
    return Block(
        name,
        BlockKind.JOIN,
        layer,
        (
            Segment("lookup", (_TOKENS,), (ahead,), (_token(model),)),
            _norm(model, f"{name}.ahead_norm", of=ahead, to="a"),
            _norm(model, f"{name}.norm"),
            Segment(
                "join",
                (_N, Value("a", _N.dims)),
                (Value("x", _N.dims),),
                (_matrix(model, f"{name}.weight", ("embed", "joined")),),
            ),
        ),
    )


def _head(model: Architecture, name: str, layer: int = -1) -> Block:
    weight = _token(model) if model.tied else _matrix(model, "head.weight", ("vocab", "embed"))
    logits = Value("logits", ("batch", "time", "vocab"))
    peak = Value("peak", ("batch", "time"), "maximum")
    total, hit = Value("total", ("batch", "time")), Value("hit", ("batch", "time"))
    return Block(
        name,
        BlockKind.HEAD,
        layer,
        (
            _norm(model, f"{name}.norm"),
            Segment("logits", (_N,), (logits, peak), (weight,)),
            Segment("sums", (logits, peak, _TARGETS), (total, hit)),
            Segment("loss", (total, hit, peak, _TARGETS), (Value("loss", ()),)),
        ),
    )
