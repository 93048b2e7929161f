"""All that somebody wants to know who asks when a training will be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from stretto.forecast.failures import Failures
from stretto.forecast.interval import Intervals, alone, intervals, usual
from stretto.forecast.play import Progress, play
from stretto.forecast.result import Forecast
from stretto.forecast.setup import Setup
from stretto.forecast.spares import counts, with_spares

_CURVE_RUNS, _SPARES_RUNS = 50, 100  # of each interval, of each number of spare nodes
_FIRST_RUNS = 8  # if none of so many is done, nothing is compared

Telling = Callable[[str, float], None]
"""Is told what is done, and which share of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A forecast, and what it depends on.

    Attributes:
        forecast: The training.
        intervals: The same with other intervals between checkpoints.
        spares: With other numbers of spare nodes, in order; empty where nothing fails.
    """

    forecast: Forecast
    intervals: Intervals
    spares: tuple[Forecast, ...]

    @property
    def hopeless(self) -> bool:
        """Whether no run is done, and so nothing else was tried."""
        return self.forecast.given_up == len(self.forecast.finish_s) and not self.spares


def answer(
    setup: Setup,
    failures: Failures,
    *,
    best_interval: bool,
    runs: int = 200,
    seed: int = 0,
    telling: Telling | None = None,
) -> Answer:
    """Play a training, and what else is worth telling of it.

    Args:
        setup: The training.
        failures: What fails.
        best_interval: Save as often as is best, whatever `setup` says.
        runs: How often to play it; what it is compared with is played less often.
        seed: Of the random numbers.
        telling: Is told now and then how much is done.
    """

    def about(what: str) -> Progress | None:
        return None if telling is None else lambda share: telling(what, share)

    if best_interval:
        setup = replace(setup, checkpoint=usual(setup, failures))
    first = min(runs, _FIRST_RUNS)
    told = about(f"playing {first} runs")
    (forecast,) = play([setup], failures, runs=first, seed=seed, progress=told)
    if forecast.given_up == first and failures.components:
        return Answer(forecast, alone(forecast), ())
    curve = intervals(
        setup, failures, runs=min(runs, _CURVE_RUNS), seed=seed,
        progress=about("trying intervals between checkpoints"),
    )  # fmt: skip
    if best_interval:
        saved = replace(setup.checkpoint, every_s=curve.best_s)
        setup = replace(setup, checkpoint=saved)
    told = about(f"playing {runs} runs")
    (forecast,) = play([setup], failures, runs=runs, seed=seed, progress=told)
    spares: tuple[Forecast, ...] = ()
    if failures.components:
        spares = with_spares(
            setup, failures, nodes=sorted({*counts(setup, failures), setup.spares.nodes}),
            runs=min(runs, _SPARES_RUNS), seed=seed, progress=about("trying numbers of spares"),
        )  # fmt: skip
    return Answer(forecast, curve, spares)
