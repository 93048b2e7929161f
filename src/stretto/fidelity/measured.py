"""What a row measured: throughput of a device, in the unit that the row prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from stretto.cost import Number, Pricing, Shape
from stretto.fidelity.fields import Fields

Unit = Literal["tokens/s", "TFLOP/s", "tokens/s of a layer"]


@dataclass(frozen=True, slots=True)
class Measured:
    """A throughput per device.

    Attributes:
        value: In `unit`; None where the row has none.
        unit: ``tokens/s``; ``TFLOP/s`` where the row prints only this or MFU; ``tokens/s of a
            layer`` where it times one layer's forward and backward pass.
        per_token: What one token a second counts in the unit.
    """

    value: float | None
    unit: Unit = "tokens/s"
    per_token: float = 1.0

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens per second of a device; None where a row has none, or has them of a layer."""
        if self.value is None or self.unit == "tokens/s of a layer":
            return None
        return self.value / self.per_token


def measured(f: Fields, pricing: Pricing) -> Measured:
    """Give what a row measured: tokens if it can, TFLOP/s by the row's convention if it must."""
    tree = f.tree
    devices, seq = tree["n_gpus"], tree["seq_len"]
    if tree.get("measurement_kind") == "per_layer_fwd_bwd":
        return _layer(f, pricing)
    tokens = tree["derived"].get("tokens_per_s_per_gpu") or tree.get("tokens_per_s_per_gpu")
    for name, share in (
        ("tokens_per_s", 1 / devices),
        ("samples_per_s_per_gpu", seq),
        ("samples_per_s", seq / devices),
    ):
        tokens = tokens or (tree[name] * share if tree.get(name) else None)
    if not tokens and tree.get("step_time_s") and tree.get("gbs"):
        tokens = tree["gbs"] * seq / tree["step_time_s"] / devices
    return Measured(float(tokens)) if tokens else _flops(f, pricing)


def _layer(f: Fields, pricing: Pricing) -> Measured:
    tree, c = f.tree, pricing.choice
    unit: Unit = "tokens/s of a layer"
    if not tree.get("step_time_s"):
        return Measured(None, unit)
    tokens = float(c.micro_batch) * tree["seq_len"] / float(c.tp * c.cp)
    return Measured(tokens / tree["step_time_s"], unit)


def _flops(f: Fields, pricing: Pricing) -> Measured:
    """Give TFLOP/s as printed, or from MFU or HFU and the peak, and what a token counts."""
    tree, hardware = f.tree, f.tree.get("flops_def") == "hardware"
    rate = tree.get("tflops_per_gpu")
    if rate is None:
        share = tree.get("mfu") or tree.get("hfu")
        if share is None:
            return Measured(None)
        hardware = tree.get("mfu") is None
        if tree.get("peak_tflops_assumed") is None:
            peak = float(pricing.machine.peak(pricing.choice.precision)) / 1e12
            rate = share * f.get("peak_tflops_assumed", round(peak, 1))
        else:
            rate = share * tree["peak_tflops_assumed"]
    causal = f.get("attn_flops", "full") == "causal_half"
    per_token = flops_per_token(pricing, causal=causal, again=hardware) / 1e12
    return Measured(float(rate), "TFLOP/s", per_token)


def flops_per_token(pricing: Pricing, *, causal: bool, again: bool) -> float:
    """Give the FLOPs of a token by a convention.

    Args:
        pricing: What is trained, and how.
        causal: Whether a position attends to half of the sequence, or to all of it.
        again: Whether what is recomputed counts (Korthikanti et al., 2022).
    """
    shape, c = pricing.shape, pricing.choice
    matrices = shape.step_flops(tokens=np.ones(()), seq=c.seq)
    matrices = matrices - 6 * _scores(shape, shape.attended(c.seq))
    scores = 6 * _scores(shape, c.seq / 2 if causal else c.seq)
    layers = matrices - 6 * shape.heads_out * shape.vocabulary_parameters
    recomputed = (c.again_core * scores + c.again_matrix * layers) / 3 if again else 0.0
    return float(matrices + scores + recomputed)


def _scores(shape: Shape, attended: Number) -> Number:
    """Give multiplications and additions of a token's attention scores, as parameters count."""
    return shape.layers * shape.heads * (shape.head_dim + shape.value_dim) * attended
