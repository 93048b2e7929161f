"""Rows that differ only in plan: does the model know which is fastest?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stretto.fidelity.predict import Prediction
from stretto.fidelity.rows import Row

ALIKE = (
    "source_key", "framework", "software_version", "attention_kernel", "optimizer",
    "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "ffn_gated", "vocab", "seq_len",
    "tied_embeddings", "n_experts", "top_k", "moe_ffn", "shared_expert_ffn", "model_extra",
    "hardware", "accel_mem_gb", "n_gpus", "inter_node_gbps_per_gpu", "gbs", "precision",
    "measurement_kind",
)  # fmt: skip
"""What rows that differ only in plan have in common."""

PLANNED = ("async_tp", "local_batch_size", "zero1", "model_parallel_size", "fwd_ms", "bwd_ms")
"""Keys of ``config_extra`` that are of the plan, or measured."""

CLOSE = 0.02
"""How much slower than the measured best a pick may be."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well plans are told apart, over groups of rows that differ only in plan.

    Attributes:
        groups: Groups with two rows or more that ran.
        right: Of which the plan predicted to be fastest is the measured best, or within 2 % of it.
        large: Groups with three rows or more that ran.
        large_right: Of which that holds.
        loss: Mean of how much slower than the measured best the pick is.
        safe: Groups in which that holds of the fastest plan that is predicted to fit, of all
            plans in it, those that ran out of memory too.
        spearman: Mean rank correlation over groups of three rows or more; None without any.
    """

    groups: int
    right: int
    large: int
    large_right: int
    loss: float
    safe: int
    spearman: float | None


def ranking(predictions: Sequence[Prediction]) -> Ranking:
    """Give how well the model tells plans apart.

    Args:
        predictions: Of rows of any kind; they are put into groups here.
    """
    losses: list[float] = []
    large: list[float] = []
    ranks: list[float] = []
    safe = 0
    for group in alike(predictions):
        ran = [p for p in group if p.error is not None]
        if len({p.row.config for p in ran}) < 2:
            continue
        losses.append(_loss(ran, ran))
        safe += _loss([p for p in group if p.fits], ran) <= CLOSE
        if len(ran) > 2:
            large.append(losses[-1])
            ranks.append(spearman([p.throughput for p in ran], [_measured(p) for p in ran]))
    return Ranking(
        groups=len(losses),
        right=sum(loss <= CLOSE for loss in losses),
        large=len(large),
        large_right=sum(loss <= CLOSE for loss in large),
        loss=fmean(losses) if losses else 0.0,
        safe=safe,
        spearman=fmean(ranks) if ranks else None,
    )


def alike(predictions: Sequence[Prediction]) -> list[list[Prediction]]:
    """Give groups of rows that differ only in plan."""
    found: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        found.setdefault(_likeness(prediction.row), []).append(prediction)
    return list(found.values())


def _likeness(row: Row) -> str:
    extra = {k: v for k, v in row.tree["config_extra"].items() if k not in PLANNED}
    return repr([row.tree.get(name) for name in ALIKE] + sorted(extra.items()))


def _loss(candidates: Sequence[Prediction], ran: Sequence[Prediction]) -> float:
    """Give how much slower than the best that ran the pick among `candidates` is.

    One that runs out of memory is as slow as can be; plans predicted alike share their mean.
    """
    if not candidates:
        return 1.0
    fastest = max(p.throughput for p in candidates)
    picked = [p for p in candidates if p.throughput == fastest]
    best = max(map(_measured, ran))
    return 1 - fmean(map(_measured, picked)) / best


def _measured(p: Prediction) -> float:
    return (p.row.measured.value or 0.0) if p.error is not None else 0.0


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Give the rank correlation of two lists (Spearman, 1904); 0 where one is all alike."""
    x, y = _ranks(np.asarray(a, float)), _ranks(np.asarray(b, float))
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / scale) if scale else 0.0


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the rank of each value; equal ones share their mean."""
    ranks = np.empty(len(values))
    order = sorted(range(len(values)), key=values.__getitem__)
    start = 0
    for _, same in itertools.groupby(order, key=values.__getitem__):
        places = list(same)
        ranks[places] = start + (len(places) - 1) / 2
        start += len(places)
    return ranks
