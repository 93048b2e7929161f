"""The best plans found for what was published, beside the published ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fidelity.markdown import table
from stretto.fidelity.rows import Row

SHOWN = 12
"""How many of those that differ most are listed."""

_AS_FAST = 0.999


def best(entries: Sequence[Mapping[str, Any]], rows: Mapping[str, Row]) -> Iterator[str]:
    """Give the section.

    Args:
        entries: What published.json holds.
        rows: The rows by their names.
    """
    known = [e for e in entries if "faster" in e]
    factors = np.array([e["faster"] for e in known])
    yield "## The best plan, beside the published one"
    yield ""
    yield (
        f"`stretto plan` was asked for the best plan of each of {len(entries)} published models, "
        "clusters and batches, both plans priced alike (`python -m fidelity.published`). It is at "
        f"least as fast, by its own estimate, in {int((factors >= _AS_FAST).sum())} of {len(known)}"
        f"; by the median {np.median(factors) - 1:.0%} faster, at the 90th percentile "
        f"{np.quantile(factors, 0.9) - 1:.0%}."
    )
    yield ""
    yield (
        "Why the largest differences, below, can be believed: most of these published plans "
        "recompute everything, and fill their pipelines or replicas with few micro-batches. The "
        "best keep what fits, cut stages smaller, and some use a schedule that is younger than "
        "the row."
    )
    yield ""
    most = sorted(known, key=lambda e: -e["faster"])[:SHOWN]
    yield from table(
        ("row", "on", "published", "best", "times as fast"),
        [
            (
                f"`{e['id']}`",
                _where(rows[e["id"]]),
                published(rows[e["id"]]),
                e["best"],
                f"{e['faster']:.2f}",
            )
            for e in most
        ],
    )


def _where(row: Row) -> str:
    t = row.tree
    return f"{t['model_name']}, {t['n_gpus']} {t['hardware']}"


def published(row: Row) -> str:
    """Give a row's plan in the words of a plan's keys."""
    t = row.tree
    words = [
        f"{axis}={t[axis]}" for axis in ("pp", "dp", "cp", "tp", "ep") if (t.get(axis) or 1) > 1
    ]
    words += [f"{t['dp_sharding']}"] if t.get("dp_sharding") else []
    words += [f"{t['schedule']}"] if t.get("schedule") else []
    words += [f"recompute {t['recompute']}"] if t.get("recompute") else []
    words += [f"micro-batch {t['mbs']}"] if t.get("mbs") else []
    return ", ".join(words)
