"""A forecast as JSON."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stretto.forecast import Forecast, quantiles
from stretto.forecast.answer import Answer
from stretto.forecast.failures import DAY_S
from stretto.forecast.spares import Price

Tree = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """A forecast for people.

    Attributes:
        title: What is trained, and on what.
        start: When it begins.
        price: What time costs; None where nobody knows.
        notes: What was assumed.
        answer: The forecast, and what it depends on.
    """

    title: str
    start: datetime.date
    price: Price | None
    notes: tuple[str, ...]
    answer: Answer

    def date(self, seconds: float) -> datetime.date | None:
        """Give the day so many seconds after the start; None for never, or too late to say."""
        try:
            return self.start + datetime.timedelta(days=seconds / DAY_S)
        except OverflowError:
            return None


def tree(told: Told) -> Tree:
    """Give all of a forecast."""
    forecast, curve = told.answer.forecast, told.answer.intervals
    setup = forecast.setup
    by_component = forecast.interruptions
    return {
        "what": told.title,
        "assumed": told.notes,
        "start": told.start.isoformat(),
        "setup": asdict(setup),
        "failures": {
            "name": forecast.failures.name,
            "about": forecast.failures.about,
            "source": forecast.failures.source,
            "mtbf_s": _number(
                forecast.failures.mtbf_s(devices=setup.job.devices, nodes=setup.job.nodes)
            ),
        },
        "runs": len(forecast.finish_s),
        "given_up": forecast.given_up,
        "without_failures_s": setup.least_s,
        "finish_s": _spread(forecast.finish_s),
        "finish": {
            name: None if (day := told.date(s)) is None else day.isoformat()
            for name, s in zip(_NAMES, quantiles(forecast.finish_s), strict=True)
        },
        **_spent(forecast, told.price),
        "time": forecast.shares,
        "interruptions": _spread(by_component.sum(axis=1)),
        "components": [
            {
                "name": component.name,
                "needs": component.needs.value,
                "mean": float(np.mean(column)),
                "interruptions": _spread(column),
            }
            for component, column in zip(forecast.failures.components, by_component.T, strict=True)
        ],
        "checkpoints": {
            "every_s": setup.checkpoint.every_s,
            "best_s": curve.best_s,
            "as_good_s": curve.flat_s,
            "young_s": _number(curve.young_s),
            "daly_s": _number(curve.daly_s),
            "curve": [
                {"every_s": every, "goodput": share}
                for every, share in zip(curve.every_s, curve.goodput, strict=True)
            ],
        },
        "spares": [
            {
                "nodes": one.setup.spares.nodes,
                "finish_s": _spread(one.finish_s),
                **_spent(one, told.price),
            }
            for one in told.answer.spares
        ],
    }


_NAMES = ("p10", "p50", "p90")


def _spread(values: Any) -> Tree:
    """Give what a tenth, half and nine tenths of the runs stay below; null for never."""
    return dict(zip(_NAMES, map(_number, quantiles(values)), strict=True))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _spent(forecast: Forecast, price: Price | None) -> Tree:
    found: dict[str, Any] = {"goodput": _spread(forecast.goodput)}
    if price is not None and price.device_s:
        found["money"] = price.money(forecast)
    if price is not None and price.step_j:
        found["energy_j"] = price.energy_j(forecast)
    return found
