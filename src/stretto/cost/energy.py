"""Energy and money of a step."""

from __future__ import annotations

from dataclasses import dataclass

from stretto.cost.numbers import Number
from stretto.cost.pricing import Pricing
from stretto.cost.step import StepTime


@dataclass(frozen=True, slots=True)
class Bill:
    """What a step takes on all devices together.

    Attributes:
        compute_j: Energy while products run, in joules.
        memory_j: While memory or a link is waited for.
        idle_j: While a device waits for others.
        money: What the devices cost meanwhile, in the currency of the cluster.
    """

    compute_j: Number
    memory_j: Number
    idle_j: Number
    money: Number

    @property
    def energy_j(self) -> Number:
        """All of it."""
        return self.compute_j + self.memory_j + self.idle_j


def bill(p: Pricing, time: StepTime) -> Bill:
    """Give energy and money of a step: power by what bounds a device, times its seconds.

    Products draw what compute-bound kernels do, all other work and every exposed transfer what
    memory-bound ones do, and waiting draws idle power (You et al., 2023).
    """
    products = time.matrix_s + time.attention_s
    idle = time.bubble_s + time.straggle_s + time.launch_s + time.fixed_s
    rest = time.total_s - products - idle
    devices, machine = p.choice.devices, p.machine
    return Bill(
        compute_j=devices * products * machine.compute_w,
        memory_j=devices * rest * machine.memory_w,
        idle_j=devices * idle * machine.idle_w,
        money=devices * time.total_s * machine.price_per_s,
    )
