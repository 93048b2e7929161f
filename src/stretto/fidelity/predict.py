"""What the model says of every row: throughput, memory, and how far off it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stretto.cost import Pricing, estimate, gathered
from stretto.cost.layer import layer
from stretto.fidelity.rows import Row


@dataclass(frozen=True, slots=True)
class Prediction:
    """A row and what is predicted of it.

    Attributes:
        row: The measurement.
        throughput: Of a device, in the unit that the row prints.
        peak_bytes: Memory of the fullest device at its fullest moment, counted as the row does.
        fits: Whether the device has as much.
    """

    row: Row
    throughput: float
    peak_bytes: float
    fits: bool

    @property
    def error(self) -> float | None:
        """Predicted over measured throughput, less 1; None where none was measured."""
        measured = self.row.measured.value
        return self.throughput / measured - 1 if measured and self.row.status == "ok" else None

    @property
    def peak_error(self) -> float | None:
        """Predicted over measured peak of memory, less 1; None where none was measured."""
        measured = self.row.peak_bytes
        return self.peak_bytes / measured - 1 if measured else None

    def tree(self) -> dict[str, Any]:
        """Give it as an object of JSON."""
        row = self.row
        return {
            "id": row.id,
            "source_key": row.source,
            "group": row.group,
            "predicted": self.throughput,
            "measured": row.measured.value if row.status == "ok" else None,
            "error": self.error,
            "unit": row.measured.unit,
            "status": row.status,
            "fits": self.fits,
            "peak_bytes_predicted": self.peak_bytes,
            "peak_bytes_measured": row.peak_bytes,
            "assumed": list(row.assumed),
            "stack": row.software.stack,
        }


def predict(rows: Sequence[Row]) -> tuple[Prediction, ...]:
    """Give what is predicted of each row, all priced at once.

    Args:
        rows: At least one.
    """
    p = gathered([row.pricing for row in rows])
    priced = estimate(p)
    tokens = np.where(
        [row.measured.unit == "tokens/s of a layer" for row in rows],
        _layer_tokens_per_s(p),
        priced.tokens_per_s_per_device,
    )
    memory = priced.memory
    counts = {
        "device": memory.total_bytes,
        "reserved": memory.reserved_bytes,
        "allocated": memory.allocated_bytes,
    }
    return tuple(
        Prediction(
            row,
            throughput=float(tokens[i]) * row.measured.per_token,
            peak_bytes=float(counts[_counted(row)][i]),
            fits=bool(priced.fits[i]),
        )
        for i, row in enumerate(rows)
    )


def _counted(row: Row) -> Literal["device", "reserved", "allocated"]:
    """Give what a row's peak counts: all of the device's memory unless it is said otherwise."""
    kind = str(row.tree.get("mem_kind") or "").lower()
    if "reserved" in kind or row.software.logs_reserved:
        return "reserved"
    return "allocated" if "allocated" in kind else "device"


def _layer_tokens_per_s(p: Pricing) -> NDArray[np.float64]:
    """Give the tokens per second and device of one layer, forward and backward."""
    c, share = p.choice, p.shape.expert_layers / p.shape.layers
    return c.micro_batch * c.seq / (layer(p, experts=share).seconds * c.tp * c.cp)
