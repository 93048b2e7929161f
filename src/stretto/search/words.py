"""A plan of a search in the words in which one demands it: ``pp=4 tp=4 zero=1 schedule=zb-1p``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType

from stretto.cost import SCHEDULES
from stretto.search.row import CODECS, ORDERS, Row
from stretto.search.task import RECOMPUTES

_USUAL: Mapping[str, float] = MappingProxyType(
    {
        **dict.fromkeys(("pp", "dp", "cp", "tp", "ep", "interleave", "regather"), 1),
        **dict.fromkeys(
            ("zero", "recompute", "recompute_layers", "tensor_overlap", "two_level"), 0
        ),
        **dict.fromkeys(("codec", "offload", "optimizer_offload", "order"), 0),
    }
)


_ORDER = (
    *("pp", "dp", "cp", "tp", "ep", "etp", "zero", "shard", "schedule", "interleave"),
    *("micro_batch", "micro_batches"),
)
"""The words that come first."""

_MESH = ("pp", "dp", "cp", "tp", "ep", "micro_batch")
"""The words that tell plans apart at a glance."""


def words(row: Row) -> dict[str, str]:
    """Give a single plan as the constraints that it alone meets, without what is usual."""
    n = {f.name: getattr(row, f.name).item() for f in fields(Row)}
    usual: dict[str, float] = {
        **_USUAL,
        "etp": n["tp"] if n["ep"] == 1 else 0,
        "shard": n["dp"] * n["cp"] if n["zero"] else 1,
        "schedule": n["schedule"] if n["pp"] == 1 else -1,
        "interleave": 2 if SCHEDULES[int(n["schedule"])] == "zb-v" else 1,
        "sequence": n["tp"] > 1,
        "micro_batch": 0,
        "micro_batches": n["micro_batches"],  # what the batch leaves
    }
    names = dict.fromkeys((*_ORDER, *n))
    return {name: _word(name, n[name]) for name in names if n[name] != usual[name]}


def line(row: Row, *, beside: Row | None = None) -> str:
    """Give a single plan in a line.

    Args:
        row: The plan.
        beside: A plan that is known: all but mesh and micro-batch is left out where it is as there.
    """
    own = words(row)
    if beside is not None:
        known = words(beside)
        usual = [k for k in known if k not in own and k not in _MESH and not _moot(k, row)]
        own = {k: v for k, v in own.items() if k in _MESH or known.get(k) != v}
        own |= {k: _word(k, getattr(row, k).item()) for k in usual}
    names = dict.fromkeys((*_ORDER, *own))
    return " ".join(f"{name}={own[name]}" for name in names if name in own)


def _moot(name: str, row: Row) -> bool:
    """Tell whether another decision of a plan leaves nothing to decide here."""
    match name:
        case "schedule" | "interleave":
            return bool(row.pp == 1)
        case "order":
            return bool(row.pp == 1 or row.dp == 1)
        case "tensor_overlap" | "sequence":
            return bool(row.tp == 1)
        case "regather" | "shard":
            return bool(row.zero < 3)
        case "recompute_layers":
            return RECOMPUTES[int(row.recompute)] != "full"
        case _:
            return name == "etp"


def _word(name: str, value: float) -> str:
    match name:
        case "schedule":
            return SCHEDULES[int(value)]
        case "recompute":
            return RECOMPUTES[int(value)]
        case "codec":
            return CODECS[int(value)]
        case "order":
            return "-".join(ORDERS[int(value)])
        case "regather" | "sequence" | "tensor_overlap" | "two_level":
            return "true" if value else "false"
        case _:
            return f"{value:g}"
