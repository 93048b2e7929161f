"""What each segment computes, and its backward, worked out by hand.

A segment's function takes its parameters (by the last part of their names) and what it reads, and
gives what it writes and its *pullback*: from the parameters again and the cotangents of what it
wrote to those of what it read and the gradients. All are one rank's blocks, in the compute layout.

Dimensions: B batch, T time, S positions attended to, E embed, K key heads, G query heads of one key
head, H head_dim, P pair, F feed-forward, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stretto.model import Activation, Model, Parameter, Segment
from stretto.reference.arrays import Array
from stretto.reference.rope import rotation, turned

Arrays = Mapping[str, Array]
Pulled = tuple[dict[str, Array], dict[str, Array]]
"""(cotangents of what was read, gradients)."""
Pullback = Callable[[Arrays, Arrays], Pulled]
"""From parameters and cotangents of what was written. It keeps no parameter: see `Compute`."""
Played = tuple[dict[str, Array], Pullback]
"""(what is written, pullback)."""

IGNORE = -100
"""The target of a position that is not to be predicted."""
_erf = np.frompyfunc(math.erf, 1, 1)


@dataclass(frozen=True, slots=True)
class Local:
    """What a rank's blocks are of the whole.

    Attributes:
        model: The model.
        layer: Index of the layer; -1 outside the layers.
        leads: Whether this rank adds the terms (biases of outputs, learned positions) that lack the
            dimensions which the segment contracts over: where those are split, one rank must.
        vocab: First token of this rank's block, and one past its last that is not padding.
        groups: Query heads of each key head in this rank's block that are not padding. Padded ones
            attend to real keys, so that only leaving them out makes them add nothing.
    """

    model: Model
    layer: int
    leads: bool
    vocab: tuple[int, int]
    groups: int


def run(segments: Sequence[tuple[Segment, Local]], *, parameters: Arrays, values: Arrays) -> Played:
    """Compute consecutive segments.

    Args:
        segments: Which, in order, each with what its blocks are of the whole.
        parameters: Blocks of their parameters, by full name.
        values: Blocks of what they read from outside, by name.

    Returns:
        All that they write, and the pullback of the whole; gradients by full name.
    """
    held = dict(values)
    pulls: list[tuple[Segment, Pullback]] = []
    for segment, local in segments:
        written, pull = _FUNCTIONS[segment.name](_own(segment.parameters, parameters), held, local)
        held |= written
        pulls.append((segment, pull))

    def pullback(parameters: Arrays, cotangents: Arrays) -> Pulled:
        flowing = dict(cotangents)
        gradients: dict[str, Array] = {}
        for segment, pull in reversed(pulls):
            names = [v.name for v in segment.writes if v.kind == "real"]
            own = _own(segment.recalled, parameters)
            read, found = pull(own, {name: flowing.pop(name) for name in names})
            for name, cotangent in read.items():
                flowing[name] = flowing[name] + cotangent if name in flowing else cotangent
            gradients |= {p.name: found[p.name.rpartition(".")[2]] for p in segment.parameters}
        return flowing, gradients

    return held, pullback


def _own(some: Iterable[Parameter], parameters: Arrays) -> dict[str, Array]:
    """Give some parameters by the last part of their names."""
    return {p.name.rpartition(".")[2]: parameters[p.name] for p in some}


# ── embedding ────────────────────────────────────────────────────────────────────────────────────


def _lookup(own: Arrays, values: Arrays, local: Local) -> Played:
    tokens, token = values["tokens"], own["token"]
    here = (tokens >= local.vocab[0]) & (tokens < local.vocab[1])
    row = np.where(here, tokens - local.vocab[0], 0)
    x = token[row] * here[..., None]
    adds = "position" in own and local.leads
    shapes = {name: array.shape for name, array in own.items()}
    if adds:
        x = x + own["position"][values["positions"]]

    def pull(own: Arrays, cotangents: Arrays) -> Pulled:
        gradients = {name: np.zeros(shape) for name, shape in shapes.items()}
        np.add.at(gradients["token"], row[here], cotangents["x"][here])
        if adds:
            np.add.at(gradients["position"], values["positions"], cotangents["x"])
        return {}, gradients

    return {"x": x}, pull


# ── norms ────────────────────────────────────────────────────────────────────────────────────────


def _norm(own: Arrays, values: Arrays, local: Local) -> Played:
    x, centred = values["x"], local.model.norm == "layer"
    if centred:
        x = x - x.mean(axis=-1, keepdims=True)
    n, back = _rms(x, own["weight"], eps=local.model.norm_eps)

    def pull(own: Arrays, cotangents: Arrays) -> Pulled:
        dn = cotangents["n"]
        dx, dweight = back(dn, own["weight"])
        if not centred:
            return {"x": dx}, {"weight": dweight}
        dx = dx - dx.mean(axis=-1, keepdims=True)
        return {"x": dx}, {"weight": dweight, "bias": dn.sum(axis=(0, 1))}

    return {"n": n + own["bias"] if centred else n}, pull


def _rms(
    x: Array, weight: Array, *, eps: float
) -> tuple[Array, Callable[[Array, Array], tuple[Array, Array]]]:
    """Give x / √(mean(x²) + eps) · weight over the last dimension, and its pullback."""
    scale = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    unit = x * scale

    def back(dy: Array, weight: Array) -> tuple[Array, Array]:
        dunit = dy * weight
        dx = scale * (dunit - unit * (dunit * unit).mean(axis=-1, keepdims=True))
        return dx, (dy * unit).sum(axis=tuple(range(x.ndim - 1)))

    return unit * weight, back


# ── attention ────────────────────────────────────────────────────────────────────────────────────


def _attend(own: Arrays, values: Arrays, local: Local) -> Played:
    """Give d = out · attention(q, k, v), projections of n, of which q and k are turned."""
    model, n = local.model, values["n"]
    q = np.tensordot(n, own["query"], axes=(2, 3))  # BTKGH
    kv = np.tensordot(n, own["key_value"], axes=(2, 3))  # BTPKH
    if model.qkv_bias:
        q, kv = q + own["query_bias"], kv + own["key_value_bias"]
    k, v = kv[:, :, 0], kv[:, :, 1]
    if model.qk_norm:
        q, q_back = _rms(q, own["query_norm"], eps=model.norm_eps)
        k, k_back = _rms(k, own["key_norm"], eps=model.norm_eps)
    if model.rope is not None:
        cos, sin = rotation(model, positions=n.shape[1])
        q, k = turned(q, cos, sin), turned(k, cos, sin)
    y, y_back = _softmax(q, k, v, seen=_seen(values["mask"], local), groups=local.groups)
    d = np.tensordot(y, own["out"], axes=((2, 3, 4), (1, 2, 3)))
    if model.out_bias and local.leads:
        d = d + own["out_bias"]

    def pull(own: Arrays, cotangents: Arrays) -> Pulled:
        dd = cotangents["d"]
        dq, dk, dv = y_back(np.tensordot(dd, own["out"], axes=(2, 0)))
        gradients = {"out": np.tensordot(dd, y, axes=((0, 1), (0, 1)))}
        if model.out_bias:
            gradients["out_bias"] = dd.sum(axis=(0, 1)) * local.leads
        if model.rope is not None:
            dq, dk = turned(dq, cos, -sin), turned(dk, cos, -sin)
        if model.qk_norm:
            dq, gradients["query_norm"] = q_back(dq, own["query_norm"])
            dk, gradients["key_norm"] = k_back(dk, own["key_norm"])
        dkv = np.stack((dk, dv), axis=2)
        if model.qkv_bias:
            gradients["query_bias"] = dq.sum(axis=(0, 1))
            gradients["key_value_bias"] = dkv.sum(axis=(0, 1))
        gradients["query"] = np.tensordot(dq, n, axes=((0, 1), (0, 1)))
        gradients["key_value"] = np.tensordot(dkv, n, axes=((0, 1), (0, 1)))
        dn = np.tensordot(dq, own["query"], axes=((2, 3, 4), (0, 1, 2)))
        dn += np.tensordot(dkv, own["key_value"], axes=((2, 3, 4), (0, 1, 2)))
        return {"n": dn}, gradients

    return {"d": d}, pull


def _seen(documents: Array, local: Local) -> Array:
    """Say which position (B, T) attends to which (S): its document's, before it, in the window."""
    model, at = local.model, np.arange(documents.shape[1])
    behind = at[:, None] - at
    windowed = model.window > 0 and local.layer not in model.full_layers
    near = (behind >= 0) & (behind < model.window) if windowed else behind >= 0
    return np.asarray(near & (documents[:, :, None] == documents[:, None, :]))


def _softmax(
    q: Array, k: Array, v: Array, *, seen: Array, groups: int
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """Give attention (BTKGH) of queries BTKGH to keys and values BSKH, and its pullback."""
    scale = q.shape[-1] ** -0.5
    scores = np.einsum("btkgh,bskh->bkgts", q, k) * scale
    scores = np.where(seen[:, None, None], scores, -np.inf)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    p[:, :, groups:] = 0  # padded heads
    y = np.einsum("bkgts,bskh->btkgh", p, v)

    def back(dy: Array) -> tuple[Array, Array, Array]:
        dp = np.einsum("btkgh,bskh->bkgts", dy, v)
        dscores = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) * scale
        dq = np.einsum("bkgts,bskh->btkgh", dscores, k)
        dk = np.einsum("bkgts,btkgh->bskh", dscores, q)
        return dq, dk, np.einsum("bkgts,btkgh->bskh", p, dy)

    return y, back


# ── feed-forward ─────────────────────────────────────────────────────────────────────────────────


def _transform(own: Arrays, values: Arrays, local: Local) -> Played:
    """Give d = down · h, h = activation(up · n), or activation(gate · n) · (up · n) if gated."""
    model, n = local.model, values["n"]
    u = np.tensordot(n, _planes(own["up"], model), axes=(2, 2))  # BTPF
    if model.ff_bias:
        u = u + own["up_bias"]
    active, slope = _activation(u[:, :, 0], model.activation)
    h = active * u[:, :, 1] if model.gated else active
    d = np.tensordot(h, own["down"], axes=(2, 1))
    if model.ff_bias and local.leads:
        d = d + own["down_bias"]

    def pull(own: Arrays, cotangents: Arrays) -> Pulled:
        dd = cotangents["d"]
        dh = np.tensordot(dd, own["down"], axes=(2, 0))
        parts = (dh * u[:, :, 1] * slope, dh * active) if model.gated else (dh * slope,)
        du, up = np.stack(parts, axis=2), _planes(own["up"], model)
        gradients = {
            "up": np.tensordot(du, n, axes=((0, 1), (0, 1))).reshape(own["up"].shape),
            "down": np.tensordot(dd, h, axes=((0, 1), (0, 1))),
        }
        if model.ff_bias:
            gradients["up_bias"] = du.sum(axis=(0, 1)).reshape(own["up_bias"].shape)
            gradients["down_bias"] = dd.sum(axis=(0, 1)) * local.leads
        return {"n": np.tensordot(du, up, axes=((2, 3), (0, 1)))}, gradients

    return {"d": d}, pull


def _planes(up: Array, model: Model) -> Array:
    """Give the weight PFE: gate and up, or up alone."""
    return up if model.gated else up[None]


def _activation(x: Array, name: Activation) -> tuple[Array, Array]:
    """Give an activation of x and its derivative there."""
    match name:
        case "silu":
            sigmoid = 1 / (1 + np.exp(-x))
            return x * sigmoid, sigmoid * (1 + x * (1 - sigmoid))
        case "gelu":
            below = (1 + np.asarray(_erf(x / math.sqrt(2)), np.float64)) / 2
            return x * below, below + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        case "gelu_tanh":
            root = math.sqrt(2 / math.pi)
            tanh = np.tanh(root * (x + 0.044715 * x**3))
            inner = root * (1 + 3 * 0.044715 * x * x)
            return x * (1 + tanh) / 2, (1 + tanh) / 2 + x * (1 - tanh * tanh) * inner / 2
        case "relu":
            return np.maximum(x, 0), (x > 0).astype(np.float64)
        case "relu2":
            return np.maximum(x, 0) ** 2, 2 * np.maximum(x, 0)


def _add(own: Arrays, values: Arrays, local: Local) -> Played:
    return {"x": values["x"] + values["d"]}, lambda _, dy: ({"x": dy["x"], "d": dy["x"]}, {})


# ── head and loss ────────────────────────────────────────────────────────────────────────────────


def _logits(own: Arrays, values: Arrays, local: Local) -> Played:
    n, (name,) = values["n"], own
    logits = np.tensordot(n, own[name], axes=(2, 1))
    logits[..., local.vocab[1] - local.vocab[0] :] = -np.inf

    def pull(own: Arrays, cotangents: Arrays) -> Pulled:
        dlogits = cotangents["logits"]
        dweight = np.tensordot(dlogits, n, axes=((0, 1), (0, 1)))
        return {"n": np.tensordot(dlogits, own[name], axes=(2, 0))}, {name: dweight}

    return {"logits": logits, "peak": logits.max(axis=-1)}, pull


def _sums(own: Arrays, values: Arrays, local: Local) -> Played:
    """Give total = Σ exp(logit − peak), and hit = the target's logit where it is here, else 0."""
    logits, targets = values["logits"], values["targets"]
    exp = np.exp(logits - values["peak"][..., None])
    here = (targets >= local.vocab[0]) & (targets < local.vocab[1])
    at = np.nonzero(here)
    place = (*at, targets[at] - local.vocab[0])
    hit = np.zeros(targets.shape)
    hit[at] = logits[place]

    def pull(own: Arrays, cotangents: Arrays) -> Pulled:
        dlogits = exp * cotangents["total"][..., None]
        dlogits[place] += cotangents["hit"][at]
        return {"logits": dlogits}, {}

    return {"total": exp.sum(axis=-1), "hit": hit}, pull


def _loss(own: Arrays, values: Arrays, local: Local) -> Played:
    """Give Σ over valid targets of log(total) + peak − hit; nothing flows through the peak."""
    total, valid = values["total"], values["targets"] != IGNORE
    each = np.log(total) + values["peak"] - values["hit"]

    def pull(own: Arrays, cotangents: Arrays) -> Pulled:
        dloss = cotangents["loss"] * valid
        return {"total": dloss / total, "hit": -dloss}, {}

    return {"loss": np.sum(each, where=valid)}, pull


_FUNCTIONS: Mapping[str, Callable[[Arrays, Arrays, Local], Played]] = {
    "lookup": _lookup,
    "norm": _norm,
    "attend": _attend,
    "transform": _transform,
    "add": _add,
    "logits": _logits,
    "sums": _sums,
    "loss": _loss,
}
