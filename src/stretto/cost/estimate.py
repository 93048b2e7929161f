"""What a plan takes: seconds, bytes, joules and money, each in parts that sum to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto.cluster import Cluster
from stretto.cost.choice import Choice
from stretto.cost.energy import Bill, bill
from stretto.cost.machine import Machine
from stretto.cost.memory import MemoryUse, memory
from stretto.cost.numbers import Number
from stretto.cost.pricing import Pricing
from stretto.cost.shape import Shape
from stretto.cost.stack import Stack
from stretto.cost.step import StepTime, step_time
from stretto.model import Model
from stretto.plan import Plan


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan takes, or what each of an array of plans does.

    Attributes:
        pricing: What was priced.
        time: Seconds of a step on the rank that takes longest.
        memory: Bytes on the fullest rank at its fullest moment.
        bill: Energy and money of a step on all devices.
    """

    pricing: Pricing
    time: StepTime
    memory: MemoryUse
    bill: Bill

    @property
    def fits(self) -> NDArray[np.bool_]:
        """Whether the fullest rank has the memory."""
        return np.asarray(self.memory.total_bytes <= self.pricing.machine.memory_bytes)

    @property
    def tokens_per_s_per_device(self) -> Number:
        """Tokens that a device trains on in a second."""
        c = self.pricing.choice
        return c.tokens / (self.time.total_s * c.devices)

    @property
    def mfu(self) -> Number:
        """Model FLOPs over those of the peak (Chowdhery et al., 2022); causal attention by half."""
        return self._utilisation(0.0)

    @property
    def hfu(self) -> Number:
        """The same with what is recomputed (Korthikanti et al., 2022)."""
        return self._utilisation(1.0)

    def _utilisation(self, recomputed: float) -> Number:
        p, c = self.pricing, self.pricing.choice
        seconds = self.time.total_s * c.devices
        model = p.shape.step_flops(tokens=c.tokens, seq=c.seq)
        scores = p.shape.score_flops(tokens=c.tokens, seq=c.seq)
        products = p.shape.layer_flops(tokens=c.tokens)
        again = (c.again_core * scores + c.again_matrix * products) / 3
        return (model + recomputed * again) / (seconds * p.machine.peak(c.precision))


def estimate(p: Pricing) -> Estimate:
    """Give what is priced takes: one plan, or arrays of 10⁵ at once."""
    time = step_time(p)
    return Estimate(p, time, memory(p), bill(p, time))


def cost(model: Model, plan: Plan, *, cluster: Cluster, stack: Stack) -> Estimate:
    """Give what a step of `plan` takes to train `model` on `cluster`.

    Args:
        model: What is trained.
        plan: How.
        cluster: On what.
        stack: With which software.
    """
    return estimate(Pricing(Shape.of(model), Choice.of(plan, model), Machine.of(cluster), stack))
