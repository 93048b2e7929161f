"""The best plan for each number of devices that are left, worked out before any fails.

When a node fails, what to go on with is looked up (He et al., 2023). A step keeps its sequences, so
that training goes on as if nothing had happened, and devices with which no plan is faster wait as
spares. Where a few sequences more or fewer would let them work, that is told besides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from stretto.search.candidates import Priced
from stretto.search.change import narrowed
from stretto.search.found import Found
from stretto.search.options import Options
from stretto.search.search import search
from stretto.search.task import RECOMPUTES, Task

SLACK = 0.02
"""Of the sequences of a step, how many more or fewer another batch may have."""

_WORTH = 1.01  # times as many tokens a second, from which on another batch is told
_FULL = RECOMPUTES.index("full")


@dataclass(frozen=True, slots=True)
class Survivors:
    """What to go on with when so many devices are left.

    Attributes:
        devices: That are left.
        best: The best plan that keeps the sequences of a step; None if none fits.
        other: The best with a few sequences more or fewer, where it is faster; else None.
    """

    devices: int
    best: Priced | None
    other: Priced | None

    @property
    def spares(self) -> int:
        """Devices that wait under `best`."""
        return self.devices - (self.best.task.devices if self.best else 0)


def tokens_per_s(plan: Priced | None) -> float:
    """Give the tokens that a plan trains on in a second; 0 for none."""
    return plan.task.tokens / plan.step_s if plan else 0.0


def survivors(
    found: Found, *, least: int | None = None, step: int | None = None
) -> tuple[Survivors, ...]:
    """Give what to go on with for each number of devices, all of them first.

    Args:
        found: A search that found a plan for all devices.
        least: The fewest devices that may be left; None for half of them.
        step: Devices that fail together; None for a node, of a single node for one of its devices.
    """
    task = found.task
    step = step or (task.cluster.per_node if task.cluster.nodes > 1 else 1)
    least = least or max(1, task.devices // 2)
    options = narrowed(found)
    options = replace(options, recompute=tuple({*options.recompute, _FULL}))
    kept, changed = {task.devices: found.best}, dict[int, Priced | None]()
    for devices in range(task.devices - step, 0, -step):
        rate = max(tokens_per_s(plan) / n for n, plan in kept.items())
        if devices < least and tokens_per_s(_best(kept, least)) >= rate * devices:
            break  # even if fewer scale perfectly they are slower than what is known
        on = task.on(task.cluster.at(devices))
        kept[devices] = _search(found, on, options)
        if (near := _near(task.sequences, devices // step)) != task.sequences:
            changed[devices] = _search(found, replace(on, sequences=near), options)
    return tuple(
        Survivors(devices, best := _best(kept, devices), _worth(_best(changed, devices), best))
        for devices in range(task.devices, least - 1, -step)
    )


def _search(found: Found, task: Task, options: Options) -> Priced | None:
    return search(
        task, options=options, constraints=found.constraints, objective=found.objective
    ).best


def _best(plans: dict[int, Priced | None], devices: int) -> Priced | None:
    """Give the fastest plan for so many devices or fewer."""
    fitting = [plan for n, plan in plans.items() if n <= devices and plan is not None]
    return max(fitting, key=tokens_per_s, default=None)


def _worth(other: Priced | None, best: Priced | None) -> Priced | None:
    return other if tokens_per_s(other) > _WORTH * tokens_per_s(best) else None


def _near(sequences: int, units: int) -> int:
    """Give a number of sequences close by that so many nodes divide, if they do not divide it.

    What of the nodes is odd divides it, and as many powers of two as that leaves near.
    """
    odd = units // (units & -units)
    if sequences % odd == 0:
        return sequences
    for power in range(sequences.bit_length(), -1, -1):
        unit = odd << power
        near = max(1, round(sequences / unit)) * unit
        if abs(near - sequences) <= SLACK * sequences:
            return near
    return sequences
