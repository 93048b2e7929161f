"""What spare nodes are worth: the same training with none, with one, with more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stretto.forecast.failures import Failures, Needs
from stretto.forecast.play import Progress, play
from stretto.forecast.result import PARTS, Forecast
from stretto.forecast.setup import Setup, Spares

_MOST = 4096
_SUFFICE = 0.99


@dataclass(frozen=True, slots=True)
class Price:
    """What a training takes besides time.

    Attributes:
        device_s: Money for a device and a second, whether it trains or waits.
        step_j: Energy of a step on all devices, in joules; 0 where nobody knows.
        idle_w: Power of a device that waits.
    """

    device_s: float = 0.0
    step_j: float = 0.0
    idle_w: float = 0.0

    def money(self, forecast: Forecast) -> float:
        """Give what a training costs on average, with its spare nodes."""
        return self.device_s * _devices(forecast.setup) * _mean_s(forecast)

    def energy_j(self, forecast: Forecast) -> float:
        """Give its energy on average: of all steps, lost or not, and of waiting."""
        job = forecast.setup.job
        seconds: dict[str, float]
        seconds = dict(zip(PARTS, forecast.parts_s.mean(axis=0).tolist(), strict=True))
        stepping = seconds["training"] + seconds["lost work"]
        waiting = _mean_s(forecast) - stepping - seconds["degraded"]
        spare = (_devices(forecast.setup) - job.devices) * _mean_s(forecast)
        return stepping / job.step_s * self.step_j + self.idle_w * (job.devices * waiting + spare)


def _devices(setup: Setup) -> int:
    return setup.job.devices + setup.spares.nodes * setup.job.per_node


def _mean_s(forecast: Forecast) -> float:
    return float(forecast.parts_s.sum(axis=1).mean())


def nodes_away(setup: Setup, failures: Failures) -> float:
    """Give how many nodes are reset or repaired at a time on average, if the run never waits."""
    job, recovery = setup.job, setup.recovery
    away = {
        Needs.RESTART: 0.0, Needs.RESET: recovery.reset_s, Needs.REPAIR: recovery.repair_s,
    }  # fmt: skip
    return sum(
        c.rate_per_s(devices=job.devices, nodes=job.nodes) * away[c.needs]
        for c in failures.components
    )


def enough(setup: Setup, failures: Failures) -> int:
    """Give as many spare nodes as suffice 99 % of the time.

    How many nodes are away at a time has Poisson's distribution, however long each stays (Palm,
    1943).
    """
    mean, nodes = nodes_away(setup, failures), 0
    share = total = math.exp(-mean)
    while total < _SUFFICE and nodes < _MOST and share > 0.0:
        nodes += 1
        share *= mean / nodes
        total += share
    return nodes


def counts(setup: Setup, failures: Failures) -> tuple[int, ...]:
    """Give numbers of spare nodes that are worth comparing: 0, 1, 2, 4, … until more change little.

    Args:
        setup: The training.
        failures: What fails.
    """
    ample = 2 * nodes_away(setup, failures) + 4
    powers = [1 << i for i in range(_MOST.bit_length()) if 1 << i < 2 * ample]
    return (0, *(n for n in powers if n <= _MOST))


def with_spares(
    setup: Setup,
    failures: Failures,
    *,
    nodes: Sequence[int],
    runs: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Forecast, ...]:
    """Play a training with each number of spare nodes, under the same failures.

    Args:
        setup: The training; of its own spares the kind counts: all hot, or all warm.
        failures: What fails.
        nodes: The numbers.
        runs: Of each.
        seed: Of the random numbers.
        progress: Is told now and then which share is done.
    """
    warm = setup.spares.hot == 0 and setup.spares.warm > 0
    kinds = [Spares(warm=n) if warm else Spares(hot=n) for n in nodes]
    setups = [replace(setup, spares=kind) for kind in kinds]
    return play(setups, failures, runs=runs, seed=seed, progress=progress)
