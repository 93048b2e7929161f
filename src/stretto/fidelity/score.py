"""How good the predictions are: by source, and over all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stretto.errors import Problem
from stretto.fidelity.predict import Prediction
from stretto.fidelity.ranking import Ranking, ranking


@dataclass(frozen=True, slots=True)
class Errors:
    """How far predictions are off, as fractions of what was measured.

    Attributes:
        n: How many.
        bias: Median of the errors.
        mean: Mean of their absolute values.
        median: Median of them.
        p90: Their 90th percentile.
    """

    n: int
    bias: float | None
    mean: float | None
    median: float | None
    p90: float | None


@dataclass(frozen=True, slots=True)
class Fitting:
    """What is predicted to run out of memory, and what did.

    Attributes:
        ran: Rows that ran.
        refused: Of which predicted not to.
        oom: Rows that ran out of memory.
        found: Of which predicted to.
    """

    ran: int
    refused: int
    oom: int
    found: int


@dataclass(frozen=True, slots=True)
class Score:
    """How good the predictions of some rows are.

    Attributes:
        throughput: Tokens or FLOPs a second.
        weighted: The same with equal weight for each source, in it for each table, and in that
            for each configuration.
        peak: Memory, where a row reports its peak.
        fitting: Out of memory, or not.
        ranking: Rows that differ only in plan.
    """

    throughput: Errors
    weighted: Errors
    peak: Errors
    fitting: Fitting
    ranking: Ranking

    def tree(self) -> dict[str, Any]:
        """Give it as an object of JSON."""
        nested = asdict(self)
        return {**nested.pop("throughput"), **nested}


def score(predictions: Sequence[Prediction]) -> Score:
    """Give how good predictions are."""
    timed = [p for p in predictions if p.error is not None]
    errors = [p.error for p in timed]
    ran = [p for p in predictions if p.row.status == "ok"]
    oom = [p for p in predictions if p.row.status != "ok"]
    return Score(
        throughput=_errors(errors),
        weighted=_errors(errors, weights(timed)),
        peak=_errors([p.peak_error for p in predictions if p.peak_error is not None]),
        fitting=Fitting(
            ran=len(ran),
            refused=sum(not p.fits for p in ran),
            oom=len(oom),
            found=sum(not p.fits for p in oom),
        ),
        ranking=ranking(predictions),
    )


def by_source(predictions: Sequence[Prediction]) -> dict[str, Score]:
    """Give how good the predictions of each source are."""
    sources = sorted({p.row.source for p in predictions})
    return {name: score([p for p in predictions if p.row.source == name]) for name in sources}


def weights(predictions: Sequence[Prediction]) -> list[float]:
    """Give what each row counts: sources alike, tables in them, and configurations in those."""
    keys = [(p.row.source, p.row.group, p.row.config) for p in predictions]
    tables = [key[:2] for key in keys]
    each = {source: len({t for t in tables if t[0] == source}) for source in {k[0] for k in keys}}
    within = {table: len({k for k in keys if k[:2] == table}) for table in set(tables)}
    repeats = {key: keys.count(key) for key in set(keys)}
    return [1 / (len(each) * each[k[0]] * within[k[:2]] * repeats[k]) for k in keys]


def quantile(values: ArrayLike, share: float, weights: ArrayLike) -> float:
    """Give a quantile of weighted values: each stands at the middle of its weight."""
    order = np.argsort(values, kind="stable")
    ordered, mass = np.asarray(values, float)[order], np.asarray(weights, float)[order]
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    return float(np.interp(share, middle, ordered))


def tree(predictions: Sequence[Prediction], rejected: Sequence[Problem] = ()) -> dict[str, Any]:
    """Give all as one object of JSON.

    Args:
        predictions: Of every row that could be used.
        rejected: What is wrong with the others.
    """
    return {
        "rows": [p.tree() for p in predictions],
        "sources": {name: one.tree() for name, one in by_source(predictions).items()},
        "summary": score(predictions).tree() | {"rejected": len(rejected)},
        "rejected": [asdict(problem) for problem in rejected],
    }


def _errors(errors: Sequence[Any], weights: Sequence[float] | None = None) -> Errors:
    if not errors:
        return Errors(0, None, None, None, None)
    e = np.asarray(errors, float)
    mass = np.ones(len(e)) if weights is None else np.asarray(weights, float)
    return Errors(
        len(e),
        bias=quantile(e, 0.5, mass),
        mean=float(np.average(abs(e), weights=mass)),
        median=quantile(abs(e), 0.5, mass),
        p90=quantile(abs(e), 0.9, mass),
    )
