"""What each segment computes: one function for each segment name of `model`, and `run` to pick it.

Every function works on one rank's block, in the compute layout, without communication. Key heads,
groups, feed-forward units and vocabulary may be split and padded with zeros at the end: what is
padded adds nothing and gets no gradient, exactly.

Dimensions: B batch, T time, E embed, K key heads, G query heads of one key head, N = K·G query
heads, H head_dim, F feed-forward, V vocabulary, R = B·T rows, S positions attended to.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from stretto.errors import ModelError
from stretto.model import Activation, Model, Rope, Segment

IGNORE = -100
"""The target of a position that is not to be predicted; so is any negative one."""


@dataclass(frozen=True, slots=True)
class Local:
    """What a rank's blocks are of the whole.

    Attributes:
        leads: Whether this rank adds the terms (biases of outputs, learned positions) that lack the
            dimensions which a segment contracts over. Where those are split, one rank must.
        vocab_start: The first token of this rank's block of the vocabulary.
        vocab_stop: One past its last real token; rows after it are padding.
        groups: Real query heads of each key head in this rank's block; None if all are. Those after
            are padding, yet attend to real keys, so that they must be left out by name.
    """

    leads: bool
    vocab_start: int
    vocab_stop: int
    groups: int | None = None

    @property
    def rows(self) -> int:
        """Real rows of this rank's block of the vocabulary; the block may be all padding."""
        return max(self.vocab_stop - self.vocab_start, 0)


class Cache(Protocol):
    """Keys and values of the positions before, for decoding."""

    def extend(self, layer: int, *, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add the (B, K, T, H) keys and values of new positions; give all to attend to."""


@dataclass(frozen=True, slots=True)
class AttentionInput:
    """What attention needs besides activations, the same for every layer of a micro-batch.

    A mask is None for plain causal attention, a tensor that is added to the scores (on a CPU), or a
    block mask of FlexAttention (on an accelerator).

    Attributes:
        rotary: Cosine and signed sine (T, 1, H) of the rotary positions; None for learned ones.
        full: The mask of layers that attend to everything before.
        window: The mask of layers with a sliding window.
        cache: Keys and values before these positions.
    """

    rotary: tuple[Tensor, Tensor] | None
    full: object
    window: object
    cache: Cache | None = None


def run(
    segment: Segment,
    *,
    model: Model,
    layer: int,
    parameters: Mapping[str, Tensor],
    values: Mapping[str, Tensor | AttentionInput],
    local: Local,
) -> dict[str, Tensor]:
    """Compute a segment on one rank's blocks.

    Args:
        segment: What to compute.
        model: The model that it belongs to.
        layer: Index of the layer; -1 outside the layers.
        parameters: The blocks of its parameters, by their names in the model.
        values: The blocks of what it reads, by name; ``mask`` is an `AttentionInput`. The segment
            ``sums`` overwrites ``logits``.
        local: What these blocks are of the whole.

    Returns:
        The blocks of what it writes, by name; partial over split dimensions that it contracts.
    """
    own = {p.name.rpartition(".")[2]: parameters[p.name] for p in segment.parameters}
    given = cast("Mapping[str, Tensor]", values)
    match segment.name:
        case "lookup":
            tokens, positions = given["tokens"], given.get("positions")
            return {"x": lookup(own, tokens, positions, model=model, local=local)}
        case "norm":
            return {"n": norm(own, given["x"], model=model)}
        case "attend":
            mask = cast("AttentionInput", values["mask"])
            return {"d": attend(own, given["n"], mask, model=model, layer=layer, local=local)}
        case "transform":
            return {"d": transform(own, given["n"], model=model, local=local)}
        case "add":
            return {"x": given["x"] + given["d"]}
        case "logits":
            (weight_VE,) = own.values()
            logits_BTV, peak_BT = logits(weight_VE, given["n"], local=local)
            return {"logits": logits_BTV, "peak": peak_BT}
        case "sums":
            total_BT, hit_BT = sums(given["logits"], given["peak"], given["targets"], local=local)
            return {"total": total_BT, "hit": hit_BT}
        case "loss":
            return {"loss": loss(given["total"], given["hit"], given["peak"], given["targets"])}
        case "latent" | "route" | "experts" | "join":
            raise ModelError(model.unsupported)


def accumulation(dtype: torch.dtype) -> torch.dtype:
    """Give the type in which norms and the loss are computed: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


# Embedding


def lookup(
    own: Mapping[str, Tensor],
    tokens_BT: Tensor,
    positions_BT: Tensor | None = None,
    *,
    model: Model,
    local: Local,
) -> Tensor:
    """Give the embeddings (B, T, E) of tokens; zero for those that other ranks hold.

    Args:
        own: ``token`` (V, E) and, with learned positions, ``position``.
        tokens_BT: Tokens.
        positions_BT: Positions in their sequence; only read where positions are learned.
        model: The model.
        local: Which tokens this rank holds, and whether it adds the positions.
    """
    token_VE = own["token"]
    if local.rows == model.vocab:
        x_BTE = F.embedding(tokens_BT, token_VE)
    else:
        here_BT = (tokens_BT >= local.vocab_start) & (tokens_BT < local.vocab_stop)
        row_BT = (tokens_BT - local.vocab_start).masked_fill(~here_BT, 0)
        x_BTE = F.embedding(row_BT, token_VE).masked_fill(~here_BT[..., None], 0)
    if "position" in own and local.leads:
        assert positions_BT is not None, "learned positions need positions"
        x_BTE = x_BTE + F.embedding(positions_BT, own["position"])
    return x_BTE


# Norms


def norm(own: Mapping[str, Tensor], x_BTE: Tensor, *, model: Model) -> Tensor:
    """Give the normalised residual stream (B, T, E): LayerNorm or RMSNorm by `model`."""
    if model.norm == "layer":
        return F.layer_norm(x_BTE, x_BTE.shape[-1:], own["weight"], own["bias"], model.norm_eps)
    return rms_norm(x_BTE, own["weight"], eps=model.norm_eps)


def rms_norm(x: Tensor, weight: Tensor, *, eps: float) -> Tensor:
    """Give x / √(mean(x²) + eps) · weight over the last dimension (Zhang and Sennrich, 2019)."""
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        apply: Callable[..., Tensor] = _RMSNorm.apply
        return apply(x, weight, eps)
    return F.rms_norm(x, x.shape[-1:], weight, eps)


class _RMSNorm(torch.autograd.Function):
    """RMSNorm in few passes; PyTorch's own has no fused backward on a CPU and takes 3× as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        dtype = accumulation(x.dtype)
        scale: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
        scale.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        width, dtype = x.shape[-1], scale.dtype
        x_RE, grad_RE = (t.reshape(-1, width).to(dtype) for t in (x, grads[0]))
        scale_R, weight_E = scale.reshape(-1), weight.to(dtype)
        product_RE = grad_RE * x_RE
        grad_weight_E = torch.mv(product_RE.t(), scale_R)
        along_R = torch.mv(product_RE, weight_E).mul_(scale_R).mul_(scale_R).div_(-width)
        grad_x_RE = (grad_RE * weight_E).addcmul_(x_RE, along_R[:, None]).mul_(scale_R[:, None])
        return grad_x_RE.view(x.shape).to(x.dtype), grad_weight_E.to(weight.dtype), None


# Attention


def attend(
    own: Mapping[str, Tensor],
    n_BTE: Tensor,
    mask: AttentionInput,
    *,
    model: Model,
    layer: int,
    local: Local,
) -> Tensor:
    """Give what attention adds (B, T, E); partial over split heads.

    Args:
        own: ``query`` (K, G, H, E), ``key_value`` (2, K, H, E), ``out`` (E, K, G, H); where the
            model has them ``query_bias``, ``key_value_bias``, ``query_norm``, ``key_norm`` (H) and
            ``out_bias`` (E).
        n_BTE: Normalised residual stream.
        mask: Positions and masks.
        model: The model.
        layer: Index of the layer.
        local: Which query heads are real, and whether this rank adds ``out_bias``.
    """
    query_KGHE, out_EKGH = own["query"], own["out"]
    query_bias_KGH = own.get("query_bias")
    if local.groups is not None and local.groups < query_KGHE.shape[1]:
        query_KGHE, out_EKGH = query_KGHE[:, : local.groups], out_EKGH[:, :, : local.groups]
        query_bias_KGH = None if query_bias_KGH is None else query_bias_KGH[:, : local.groups]
    q_BTNH = _project(n_BTE, query_KGHE, query_bias_KGH)
    k_BTKH, v_BTKH = (
        _project(n_BTE, weight, bias)
        for weight, bias in zip(
            own["key_value"].unbind(),
            own["key_value_bias"].unbind() if "key_value_bias" in own else (None, None),
            strict=True,
        )
    )
    if model.qk_norm:
        q_BTNH = rms_norm(q_BTNH, own["query_norm"], eps=model.norm_eps)
        k_BTKH = rms_norm(k_BTKH, own["key_norm"], eps=model.norm_eps)
    if mask.rotary is not None:
        q_BTNH, k_BTKH = _rotate(q_BTNH, *mask.rotary), _rotate(k_BTKH, *mask.rotary)
    k_BKSH, v_BKSH = k_BTKH.transpose(1, 2), v_BTKH.transpose(1, 2)
    if mask.cache is not None:
        k_BKSH, v_BKSH = mask.cache.extend(layer, key=k_BKSH, value=v_BKSH)
    windowed = model.window and layer not in model.full_layers
    y_BNTH = dot_product(
        q_BTNH.transpose(1, 2), k_BKSH, v_BKSH, mask=mask.window if windowed else mask.full
    )
    bias_E = own.get("out_bias") if local.leads else None
    return F.linear(y_BNTH.transpose(1, 2).flatten(2), out_EKGH.flatten(1), bias_E)


def _project(n_BTE: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Give heads (B, T, heads, H) by a weight (…, H, E)."""
    heads = F.linear(n_BTE, weight.flatten(0, -2), None if bias is None else bias.flatten())
    return heads.view(*n_BTE.shape[:-1], math.prod(weight.shape[:-2]), weight.shape[-2])


def dot_product(q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, *, mask: object) -> Tensor:
    """Give scaled dot-product attention (B, N, T, H); key heads serve N / K query heads each.

    Args:
        q_BNTH: Queries, those of one key head next to each other.
        k_BKSH: Keys; more of them than queries only where a query attends to all of them.
        v_BKSH: Values.
        mask: None for causal attention; a tensor to add to the scores; or a block mask.
    """
    shared = q_BNTH.shape[1] != k_BKSH.shape[1]
    if q_BNTH.shape[1] == 0:  # a rank may hold nothing but padding
        return q_BNTH
    if q_BNTH.dtype == torch.bfloat16 and q_BNTH.device.type == "cpu" and q_BNTH.shape[-1] <= 32:
        # the backward of CPUs is slower in bfloat16 than in float32 for heads this narrow
        wide = (x.float() for x in (q_BNTH, k_BKSH, v_BKSH))
        return dot_product(*wide, mask=_float(mask)).to(torch.bfloat16)
    if mask is None or isinstance(mask, Tensor):
        causal = mask is None and q_BNTH.shape[2] == k_BKSH.shape[2]
        return F.scaled_dot_product_attention(
            q_BNTH, k_BKSH, v_BKSH, attn_mask=mask, is_causal=causal, enable_gqa=shared
        )
    return _flex()(q_BNTH, k_BKSH, v_BKSH, block_mask=mask, enable_gqa=shared)


def _float(mask: object) -> object:
    """Give a mask to add to float32 scores."""
    return mask.float() if isinstance(mask, Tensor) and mask.is_floating_point() else mask


@functools.cache
def _flex() -> Callable[..., Tensor]:
    """Give FlexAttention, compiled; importing the compiler takes a second, so only where used."""
    from torch.nn.attention.flex_attention import flex_attention

    return cast("Callable[..., Tensor]", torch.compile(flex_attention))


def _rotate(x_BTNH: Tensor, cos_T1H: Tensor, sin_T1H: Tensor) -> Tensor:
    """Turn each pair (i, i + H/2) of a head by the angle of its position (Su et al., 2021)."""
    apply: Callable[..., Tensor] = _Rotation.apply
    return apply(x_BTNH, cos_T1H, sin_T1H)


class _Rotation(torch.autograd.Function):
    """A rotation, whose backward is the rotation back; the sine is negative in the first half."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        (grad,) = grads
        swapped = grad.roll(grad.shape[-1] // 2, -1)
        return (grad * cos).addcmul_(swapped, sin, value=-1), None, None


def attention_input(
    model: Model,
    *,
    positions: int,
    documents_BT: Tensor | None,
    device: torch.device,
    dtype: torch.dtype,
    start: int = 0,
    length: int = 0,
    cache: Cache | None = None,
) -> AttentionInput:
    """Prepare what attention needs for one micro-batch.

    Args:
        model: The model.
        positions: T, the positions that are computed.
        documents_BT: The document of each position, anywhere; one never attends to another. None
            for one. Rotary positions are relative, so that documents need not begin at zero.
        device: Where attention runs.
        dtype: The type in which it computes.
        start: The first position, when decoding.
        length: The longest sequence that frequencies must serve, where they depend on it.
        cache: Keys and values before `start`.
    """
    rotary = None
    if model.rope is not None:
        stop = start + positions
        cos_TH, sin_TH = _rotary(model, start=start, stop=stop, length=max(length, stop))
        rotary = cos_TH.to(device, dtype)[:, None], sin_TH.to(device, dtype)[:, None]
    if cache is not None and positions == 1:
        return AttentionInput(rotary, None, None, cache)
    if documents_BT is not None:
        documents_BT = documents_BT.to(device)
    window = model.window if 0 < model.window < positions else 0
    make = _added if device.type == "cpu" else _blocks
    mask = functools.partial(make, positions, documents_BT=documents_BT, device=device, dtype=dtype)
    full = None if documents_BT is None else mask(window=0)
    return AttentionInput(rotary, full, mask(window=window) if window else full, cache)


def _added(
    positions: int,
    *,
    window: int,
    documents_BT: Tensor | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Give the mask (B or 1, 1, T, S) that is added to scores: 0, or -∞ where not to attend."""
    at_T = torch.arange(positions, device=device)
    behind_TS = at_T[:, None] - at_T
    seen = (behind_TS >= 0) & (behind_TS < (window or positions))
    if documents_BT is not None:
        seen = seen & (documents_BT[:, :, None] == documents_BT[:, None, :])
    seen = seen.view(-1, 1, positions, positions)
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, -math.inf)


def _blocks(
    positions: int,
    *,
    window: int,
    documents_BT: Tensor | None,
    device: torch.device,
    dtype: torch.dtype,
) -> object:
    """Give the same mask as FlexAttention takes it: blocks to skip, and a rule for the rest."""
    from torch.nn.attention.flex_attention import create_block_mask

    reach = window or positions

    def seen(b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
        near = (t >= s) & (t - s < reach)
        return near if documents_BT is None else near & (documents_BT[b, t] == documents_BT[b, s])

    batch = None if documents_BT is None else documents_BT.shape[0]
    return create_block_mask(seen, batch, None, positions, positions, device=device)


def _rotary(model: Model, *, start: int, stop: int, length: int) -> tuple[Tensor, Tensor]:
    """Give cosine and signed sine (T, H) of positions from `start` to `stop`, in float64."""
    frequencies, factor = rope_frequencies(model, length=length)
    at_T = torch.arange(start, stop, dtype=torch.float64)
    angle = at_T[:, None] * torch.tensor(frequencies, dtype=torch.float64)
    cos, sin = angle.cos() * factor, angle.sin() * factor
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rope_frequencies(model: Model, *, length: int) -> tuple[list[float], float]:
    """Give the H/2 frequencies of rotary positions in radians a position, and their factor.

    Args:
        model: A model with rotary positions.
        length: Length of the sequence, on which ``dynamic`` and ``longrope`` depend.

    Returns:
        Frequencies, fastest first, and what cosine and sine are multiplied by.
    """
    rope, width = model.rope, model.head_dim
    assert rope is not None, "learned positions have no frequencies"
    base = [rope.theta ** (-i / width) for i in range(0, width, 2)]
    match rope.scaling:
        case "none":
            return base, 1.0
        case "linear":
            return [f / rope.factor for f in base], 1.0
        case "dynamic":
            stretch = max(length / (rope.original_positions or model.positions), 1.0)
            grown = rope.factor * stretch - (rope.factor - 1)
            theta = rope.theta * grown ** (width / max(width - 2, 1))
            return [theta ** (-i / width) for i in range(0, width, 2)], 1.0
        case "llama3":
            return [_llama3(f, rope) for f in base], 1.0
        case "yarn":
            return _yarn(base, rope, width=width), _yarn_factor(rope)
        case "longrope":
            long = length > rope.original_positions
            factors = rope.long_factor if long else rope.short_factor
            return [f / by for f, by in zip(base, factors, strict=True)], _longrope_factor(rope)


def _llama3(frequency: float, rope: Rope) -> float:
    """Keep a fast frequency, divide a slow one; a ramp between (Grattafiori et al., 2024)."""
    turns = rope.original_positions * frequency / (2 * math.pi)
    kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    kept = min(max(kept, 0.0), 1.0)
    return frequency * (kept + (1 - kept) / rope.factor)


def _yarn(base: list[float], rope: Rope, *, width: int) -> list[float]:
    """Keep frequencies of many turns, divide those of few; a ramp between (Peng et al., 2023)."""

    def index(turns: float) -> float:
        period = rope.original_positions / (turns * 2 * math.pi)
        return width * math.log(period) / (2 * math.log(rope.theta))

    low, high = index(rope.beta_fast), index(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    span = high - low or 0.001
    divided = [min(max((i - low) / span, 0.0), 1.0) for i in range(len(base))]
    return [f * (1 - d + d / rope.factor) for f, d in zip(base, divided, strict=True)]


def _yarn_factor(rope: Rope) -> float:
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.factor <= 1:
        return 1.0
    log = 0.1 * math.log(rope.factor)
    if rope.mscale and rope.mscale_all_dim:
        return (rope.mscale * log + 1) / (rope.mscale_all_dim * log + 1)
    return log + 1


def _longrope_factor(rope: Rope) -> float:
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.factor <= 1:
        return 1.0
    return math.sqrt(1 + math.log(rope.factor) / math.log(rope.original_positions))


# Feed-forward


def transform(own: Mapping[str, Tensor], n_BTE: Tensor, *, model: Model, local: Local) -> Tensor:
    """Give what the feed-forward block adds (B, T, E); partial over split units.

    Args:
        own: ``up`` (2, F, E) of gate and value (Shazeer, 2020) or (F, E), ``down`` (E, F); where
            the model has them ``up_bias`` and ``down_bias`` (E).
        n_BTE: Normalised residual stream.
        model: The model.
        local: Whether this rank adds ``down_bias``.
    """
    up, up_bias = own["up"], own.get("up_bias")
    if model.gated:
        biases = (None, None) if up_bias is None else up_bias.unbind()
        gate_BTF, value_BTF = (
            F.linear(n_BTE, weight_FE, bias_F)
            for weight_FE, bias_F in zip(up.unbind(), biases, strict=True)
        )
        h_BTF = _gate(gate_BTF, value_BTF, model.activation)
    else:
        h_BTF = _activate(F.linear(n_BTE, up, up_bias), model.activation)
    return F.linear(h_BTF, own["down"], own.get("down_bias") if local.leads else None)


def _gate(gate: Tensor, value: Tensor, activation: Activation) -> Tensor:
    if activation == "silu" and not torch.compiler.is_compiling():
        apply: Callable[..., Tensor] = _SwiGLU.apply
        return apply(gate, value)
    return _activate(gate, activation) * value


class _SwiGLU(torch.autograd.Function):
    """silu(gate) · value; computes silu(gate) again in backward rather than keep it."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(gate, value)
        return F.silu(gate).mul_(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, value = ctx.saved_tensors
        (grad,) = grads
        return torch.ops.aten.silu_backward(grad * value, gate), F.silu(gate).mul_(grad)


def _activate(x: Tensor, name: Activation) -> Tensor:
    match name:
        case "silu":
            return F.silu(x)
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "relu":
            return F.relu(x)
        case "relu2":
            return F.relu(x).square()


# Head and loss


def logits(weight_VE: Tensor, n_BTE: Tensor, *, local: Local) -> tuple[Tensor, Tensor]:
    """Give the logits (B, T, V) of this rank's tokens, -∞ for padding, and their maxima (B, T)."""
    logits_BTV = F.linear(n_BTE, weight_VE)
    with torch.no_grad():
        if local.rows < len(weight_VE):  # nobody saved them, and padding gets no gradient anyway
            logits_BTV[..., local.rows :] = -math.inf
        peak_BT = logits_BTV.amax(-1).to(accumulation(n_BTE.dtype))
    return logits_BTV, peak_BT


def sums(
    logits_BTV: Tensor, peak_BT: Tensor, targets_BT: Tensor, *, local: Local
) -> tuple[Tensor, Tensor]:
    """Give Σ exp(logit − peak) and the logit of the target; both partial over the vocabulary.

    The logits are overwritten, forward and backward: the cross entropy needs no other tensor of
    their size.

    Args:
        logits_BTV: Logits of this rank's tokens.
        peak_BT: The maximum over the whole vocabulary.
        targets_BT: Targets; `IGNORE` for none.
        local: Which tokens this rank holds.

    Returns:
        Sum and target's logit, (B, T) each; the latter 0 where another rank holds the target.
    """
    row_BT = targets_BT - local.vocab_start
    here_BT = (row_BT >= 0) & (row_BT < local.rows)
    row_BT = row_BT.masked_fill(~here_BT, 0)
    if torch.compiler.is_compiling():  # which fuses by itself, and forbids to overwrite
        real_BTV = logits_BTV.to(peak_BT.dtype)
        hit_BT = real_BTV.gather(-1, row_BT[..., None]).squeeze(-1).masked_fill(~here_BT, 0)
        return (real_BTV - peak_BT[..., None]).exp().sum(-1), hit_BT
    apply: Callable[..., tuple[Tensor, Tensor]] = _Sums.apply
    return apply(logits_BTV, peak_BT, row_BT, here_BT)


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, peak: Tensor, row: Tensor, here: Tensor
    ) -> tuple[Tensor, Tensor]:
        peak_R, row_R, here_R = peak.flatten(), row.flatten(), here.flatten()
        logits_RV = logits.view(-1, logits.shape[-1])
        hit_R = logits_RV.gather(1, row_R[:, None]).squeeze(1).to(peak.dtype)
        hit_R.masked_fill_(~here_R, 0)
        total_R = torch.empty_like(peak_R)
        for part in _chunks(logits_RV):
            exp_RV = logits_RV[part].to(peak.dtype)
            exp_RV.sub_(peak_R[part, None]).exp_()
            torch.sum(exp_RV, -1, out=total_R[part])
            if logits.dtype != peak.dtype:
                logits_RV[part] = exp_RV
        ctx.save_for_backward(logits, peak_R, row_R, here_R, hit_R)
        return total_R.view(peak.shape), hit_R.view(peak.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        exp, peak_R, row_R, here_R, hit_R = ctx.saved_tensors
        grad_total_R, grad_hit_R = (g.flatten() for g in grads)
        exp_RV = exp.view(-1, exp.shape[-1])
        for part in _chunks(exp_RV):
            exp_RV[part] *= grad_total_R[part, None]
        # The entry of a likely target all but cancels: it is not taken from rounded numbers.
        at_target_R = (hit_R - peak_R).exp_() * grad_total_R + grad_hit_R
        at = torch.arange(len(row_R), device=row_R.device), row_R
        exp_RV.index_put_(at, at_target_R.to(exp.dtype).where(here_R, exp_RV[at]))
        return exp, None, None, None


def _chunks(rows_RV: Tensor) -> Iterator[slice]:
    """Give slices of rows that stay in cache over several passes (1 MiB of float32 on a CPU)."""
    elements = 2**18 if rows_RV.device.type == "cpu" else 2**26
    step = max(1, elements // rows_RV.shape[1])
    return (slice(i, i + step) for i in range(0, rows_RV.shape[0], step))


def loss(total_BT: Tensor, hit_BT: Tensor, peak_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Give the cross entropy in nats, summed over targets that are not negative; a scalar."""
    each_BT = (peak_BT - hit_BT) + total_BT.log()  # in this order: both may be large
    return each_BT.masked_fill(targets_BT < 0, 0).sum()
