"""What a forecast gives: when training ends, and where the time goes, for each of many runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto.forecast.draws import Number
from stretto.forecast.failures import Failures
from stretto.forecast.setup import Setup

PARTS = ("training", "checkpoints", "degraded", "lost work", "detection", "waiting", "restart")
"""What the seconds of a run are spent on. They sum to all of them.

``training``: steps that count, at full speed. ``checkpoints``: steps that wait for a snapshot.
``degraded``: what steps take longer while replicas are missing. ``lost work``: steps that are run
again, at full speed. ``detection``: until it is known what failed. ``waiting``: for another node,
or for one to come back. ``restart``: starting, loading, warming up.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """A training that was played many times.

    Attributes:
        setup: What was played.
        failures: What failed.
        finish_s: Seconds until training ends, by run; infinite for a run that was given up.
        parts_s: Seconds by run and `PARTS`.
        interruptions: Their number by run and component.
    """

    setup: Setup
    failures: Failures
    finish_s: Number
    parts_s: Number
    interruptions: Number

    @property
    def goodput(self) -> Number:
        """The share of the time that went into steps that count, by run."""
        return np.asarray(self.parts_s[:, 0] / self.parts_s.sum(axis=1))

    @property
    def given_up(self) -> int:
        """The number of runs that did not end in many times what they take if nothing fails."""
        return int(np.sum(~np.isfinite(self.finish_s)))

    @property
    def shares(self) -> dict[str, float]:
        """The share of all time that went into each of `PARTS`."""
        seconds = self.parts_s.sum(axis=0)
        return dict(zip(PARTS, (seconds / seconds.sum()).tolist(), strict=True))


def quantiles(values: NDArray[np.float64], q: Sequence[float] = (0.1, 0.5, 0.9)) -> list[float]:
    """Give quantiles, each a value that occurs: a run that never ends spoils none but its own."""
    return [float(v) for v in np.quantile(values, q, method="inverted_cdf")]
