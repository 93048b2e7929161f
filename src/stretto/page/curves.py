"""The curves of a training: its metrics, thinned so that a page can draw a million steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stretto.errors import InputError, Problem
from stretto.page.head import RECENT, typical
from stretto.page.incidents import incidents
from stretto.page.metrics import Column, Metrics, Table
from stretto.page.origin import predicted_bytes, predicted_mfu
from stretto.page.packed import packed
from stretto.page.standing import begun
from stretto.page.subject import Subject

BINS = 1333
"""The most bins of a curve; each is a lowest, a highest and a mean value: 4,000 points at most."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture, with an axis of its own.

    Attributes:
        name: What it is called in the page.
        title: What it is called by people.
        unit: Which of the page's formats shows its values.
        curves: (column, what it is called) of each curve.
    """

    name: str
    title: str
    unit: str
    curves: tuple[tuple[str, str], ...]


CHARTS = (
    Chart("loss", "Loss, nats a token", "number",
          (("loss", "training"), ("valid_loss", "held-out"))),
    Chart("norm", "Gradient norm", "number", (("norm", "before clipping"),)),
    Chart("lr", "Learning rate", "number", (("lr", "learning rate"),)),
    Chart("tokens_per_s", "Tokens a second", "count", (("tokens_per_s", "measured"),)),
    Chart("mfu", "MFU", "percent", (("mfu", "measured"),)),
    Chart("step_s", "Step time", "seconds", (("step_s", "measured"),)),
    Chart("memory_bytes", "Memory, the most a rank has held", "bytes",
          (("memory_bytes", "measured"),)),
    Chart("lost", "Share of a step spent waiting", "percent",
          (("data_wait", "for data"), ("overhead", "for the interpreter"))),
    Chart("expert_load", "Expert load, the fullest over the mean", "number",
          (("expert_load", "measured"),)),
)  # fmt: skip
"""What is drawn, in order; a chart of which a run has no column is left out."""

PATIENCE_S = 0.1
"""Seconds that a live page waits for metrics that are being read before it draws what there is."""

_NOT_DRAWN = {"step", "steps", "tokens", "eta_s", "applied", "predicted_s"}


def data(subject: Subject) -> dict[str, Any] | None:
    """Give the curves of a run and of those beside it; None for a plan."""
    if subject.metrics is None:
        return None
    beside = dict(subject.others)
    drawn = {subject.title: subject.metrics} | {name: beside[name] for name in subject.beside}
    tables = {name: metrics.table() for name, metrics in drawn.items()}
    return {
        "charts": _charts(tables.values()),
        "runs": [
            _thinned(subject, name, drawn[name], table=table) for name, table in tables.items()
        ],
        "choices": [name for name, _ in subject.others],
        "steps": subject.steps,
        "recent": RECENT,
    }


def answer(subject: Subject, query: Mapping[str, str]) -> dict[str, Any]:
    """Give a part of the curves of a run.

    Args:
        subject: The run that the page is about.
        query: ``of``, the name of it or of one beside it; ``from`` and ``to``, steps.

    Raises:
        KeyError: There is no such run.
        InputError: A step is no number.
    """
    if subject.metrics is None:
        raise KeyError("curves")
    name = query.get("of", subject.title)
    metrics = ({subject.title: subject.metrics} | dict(subject.others))[name]
    table = metrics.read(within_s=PATIENCE_S)
    first, last = _number(query, "from", -np.inf), _number(query, "to", np.inf)
    found = _thinned(subject, name, metrics, table=table, first=first, last=last)
    return found | {"charts": _charts([table])}


def _thinned(
    subject: Subject,
    name: str,
    metrics: Metrics,
    *,
    table: Table,
    first: float = -np.inf,
    last: float = np.inf,
) -> dict[str, Any]:
    """Give the curves of a run on the page of `subject`, and what was foretold of it."""
    since = begun(metrics.path.parent)
    own = next((one for one in (subject, *subject.rivals) if one.title == name), None)
    now = _predicted(own, table.since(since)) if own else {}
    return thinned(name, metrics, table, first=first, last=last) | {
        "foretold": foretold(table, since=since, now=now),
        "summary": summary(table, since=since),
    }


def thinned(
    name: str, metrics: Metrics, table: Table, *, first: float = -np.inf, last: float = np.inf
) -> dict[str, Any]:
    """Give the curves of a run from step `first` to `last`, in at most `BINS` bins.

    A bin holds a power of two of steps and begins at a multiple of it, so that bins stay what they
    are while the run goes on.
    """
    step = table["step"]
    start, stop = int(np.searchsorted(step, first)), int(np.searchsorted(step, last, side="right"))
    start, stop = max(0, start - 1), min(table.rows, stop + 1)  # lines lead out of the picture
    size = 1
    while (stop - start) / size > BINS - 1:  # the first and the last bin may be parts
        size *= 2
    edges = np.unique(np.append(np.arange(start // size * size, stop, size).clip(start), stop))
    elapsed = np.nancumsum(table["step_s"])
    axes = {"step": step, "tokens": table["tokens"], "elapsed_s": elapsed}
    columns, sparse, newest = {}, {}, {}
    for column in sorted(table.columns.keys() - _NOT_DRAWN):
        if len(known := np.flatnonzero(np.isfinite(table[column]))):
            newest[column] = float(table[column][known[-1]])
        values = table[column][start:stop]
        rows = np.flatnonzero(np.isfinite(values))
        if 2 * len(rows) > len(values):
            columns[column] = _binned(values, edges - start)
        elif len(rows):
            kept = rows[:: -(-len(rows) // (2 * BINS))] + start
            sparse[column] = _places(axes, kept) | {"mean": _numbers(table[column][kept])}
    return {
        "name": name,
        "rows": table.rows,
        "size": size,
        "read": table.share,
        "first": float(step[0]) if table.rows else 0.0,
        "last": float(step[-1]) if table.rows else 0.0,
        **_places(axes, (edges[:-1] + edges[1:] - 1) // 2),
        "columns": columns,
        "sparse": sparse,
        "newest": newest,
        "incidents": incidents(metrics.path.parent, table),
    }


def _binned(values: Column, edges: NDArray[np.int64]) -> dict[str, Any]:
    """Give the mean of each bin, and its lowest and highest value where a bin is of several."""
    if len(edges) == len(values) + 1:
        return {"mean": _numbers(values)}
    finite = np.isfinite(values)
    count = np.add.reduceat(finite, edges[:-1], dtype=np.float64)
    total = np.add.reduceat(np.where(finite, values, 0.0), edges[:-1])
    mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return {
        "mean": _numbers(mean),
        "low": _numbers(np.fmin.reduceat(values, edges[:-1])),
        "high": _numbers(np.fmax.reduceat(values, edges[:-1])),
    }


def _places(axes: Mapping[str, Column], rows: NDArray[np.int64]) -> dict[str, Any]:
    return {"x": {name: packed(column[rows], dtype="float64") for name, column in axes.items()}}


def _numbers(values: Column) -> dict[str, Any]:
    return packed(values, dtype="float32")


def _charts(tables: Iterable[Table]) -> list[dict[str, Any]]:
    """Give the charts of which a run has a curve, and one for each column that nobody foresaw."""
    has = {name for table in tables for name in table.columns}
    known = {column for chart in CHARTS for column, _ in chart.curves}
    drawn = [chart for chart in CHARTS if any(column in has for column, _ in chart.curves)]
    drawn += [
        Chart(name, name, "number", ((name, name),)) for name in sorted(has - known - _NOT_DRAWN)
    ]
    return [
        {
            "id": chart.name,
            "title": chart.title,
            "unit": chart.unit,
            "curves": [{"column": c, "label": label} for c, label in chart.curves if c in has],
        }
        for chart in drawn
    ]


def _predicted(subject: Subject, recent: Table) -> dict[str, float]:
    """Give what is foretold of each chart that has one, for the plan that the run has now.

    Args:
        subject: The run.
        recent: Its metrics since it has that plan.
    """
    step_s = subject.predicted_s
    return {
        "step_s": step_s,
        "tokens_per_s": subject.tokens / step_s,
        "mfu": predicted_mfu(subject, recent),
        "memory_bytes": predicted_bytes(subject),
    }


def foretold(table: Table, *, since: int, now: Mapping[str, float]) -> dict[str, list[list[float]]]:
    """Give, of each chart that has one, [first step, last step, value] of every prediction.

    A run that went on under another plan has one for each: what it wrote down as it went.

    Args:
        table: Its metrics.
        since: Steps that were done before its last start.
        now: What the page foretells of the steps since; empty where it foretells nothing.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in ("step_s", "tokens_per_s", "mfu")}
    step = table["step"]
    written = np.searchsorted(step, since, side="right") if now else table.rows
    told_s = np.nan_to_num(table["predicted_s"][:written])
    edges = [0, *(np.flatnonzero(np.diff(told_s)) + 1), written]
    for start, stop in itertools.pairwise(edges if written else []):
        if told_s[start] <= 0:  # nobody foretold anything
            continue
        ends, value_s = [float(step[start]), float(step[stop - 1])], float(told_s[start])
        found["step_s"].append([*ends, value_s])
        for name in ("tokens_per_s", "mfu"):  # tokens, and shares of a second, that a step takes
            each = table[name][start:stop] * table["step_s"][start:stop]
            if np.isfinite(each).any():
                found[name].append([*ends, float(np.nanmedian(each)) / value_s])
    first = float(step[written]) if written < table.rows else float(since)
    last = float(step[-1]) if table.rows else first
    for name, value in now.items():
        found.setdefault(name, []).append([first, last, value])
    return {name: pieces for name, pieces in found.items() if pieces}


def summary(table: Table, *, since: int) -> dict[str, float | None]:
    """Give the figures by which runs are compared: the last ones, and what a step takes usually."""
    found: dict[str, float | None] = {}
    for name in ("loss", "valid_loss"):
        known = np.flatnonzero(np.isfinite(table[name]))
        found[name] = float(table[name][known[-1]]) if len(known) else None
        found[f"{name}_step"] = float(table["step"][known[-1]]) if len(known) else None
    recent = table.since(since)
    for name in ("step_s", "tokens_per_s"):
        found[name] = typical(recent[name])
    found["step"] = float(table["step"][-1]) if table.rows else None
    return found


def _number(query: Mapping[str, str], name: str, usual: float) -> float:
    try:
        return float(query.get(name, usual))
    except ValueError:
        rule = f"is {query[name]!r}, which is no number"
        raise InputError(Problem(name, rule, "write a step")) from None
