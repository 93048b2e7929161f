"""A row to change, and predictions to score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stretto.fidelity.measured import Measured
from stretto.fidelity.predict import Prediction
from stretto.fidelity.rows import Row, row

PLAIN: dict[str, Any] = {
    "id": "a-1", "source_key": "a", "group": "a/t", "config_key": "c1", "year": 2024,
    "framework": "Megatron-Core", "layers": 24, "hidden": 2048, "heads": 16, "kv_heads": 16,
    "head_dim": 128, "ffn": 8192, "ffn_gated": False, "vocab": 51200, "tied_embeddings": True,
    "seq_len": 2048, "hardware": "A100-80GB", "accel_mem_gb": 80, "n_gpus": 16,
    "gpus_per_node": 8, "inter_node_gbps_per_gpu": 200, "tp": 2, "pp": 1, "vpp": 1, "cp": 1,
    "dp": 8, "sequence_parallel": True, "tp_comm_overlap": False, "dp_sharding": "zero1",
    "mbs": 2, "gbs": 64, "recompute": "none", "precision": "bf16", "status": "ok",
    "step_time_s": 1.0,
}  # fmt: skip
"""A row that leaves nothing open."""


def changed(**values: Any) -> dict[str, Any]:
    """Give `PLAIN` with other values; without the keys whose value is None."""
    return {key: value for key, value in (PLAIN | values).items() if value is not None}


def made(**values: Any) -> Row:
    """Give the row that `changed` describes."""
    return row(changed(**values))


BASE = made()


def prediction(
    predicted: float, measured: float | None, *, fits: bool = True, peak: float = 1e9, **values: Any
) -> Prediction:
    """Give a prediction of tokens per second, and what was measured, for scoring.

    Args:
        predicted: Tokens per second.
        measured: The same; None where it ran out of memory.
        fits: Whether it is predicted to fit.
        peak: Predicted bytes.
        values: Attributes of the row that differ; ``plan`` names its configuration.
    """
    plan = values.pop("plan", "c1")
    tree = dict(BASE.tree) | values.pop("tree", {})
    made_of = replace(
        BASE,
        config=plan,
        status="ok" if measured else "OOM",
        measured=Measured(measured),
        tree=tree,
        **values,
    )
    return Prediction(made_of, throughput=predicted, peak_bytes=peak, fits=fits)
