"""Seconds for which a rank waits while the pipeline fills and drains, where ranks differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stretto.cost.choice import SCHEDULES, Choice
from stretto.cost.numbers import Number, relu
from stretto.plan import ScheduleName
from stretto.schedule.closed import bubble_slots


@dataclass(frozen=True, slots=True)
class Load:
    """Seconds of a micro-batch on a pipeline rank.

    Attributes:
        forward_s: Its forward.
        inputs_s: Its input gradient, recomputation included.
        weights_s: Its weight gradient.
    """

    forward_s: Number
    inputs_s: Number
    weights_s: Number

    @property
    def total_s(self) -> Number:
        """All of it."""
        return self.forward_s + self.inputs_s + self.weights_s


def bubble_s(c: Choice, *, slowest: Load, others: Load) -> Number:
    """Give the seconds for which the slowest rank waits for others in a step.

    A step is that of `Schedule.step_s`: an update waits for no other rank. Where it waits for all,
    as for a vote on the norm of gradients, ``zb-2p`` takes (p - 1)·f more, unless ranks check and
    roll back afterwards (Qi et al., 2023, section 4).

    A step that is played takes as long as this says where stages are alike but for the last: with
    ``zb-v`` within 3 %, with all others exactly; if the backward is split, where a weight gradient
    takes no longer than a forward, and that than an input gradient. Where other stages differ too,
    and there are fewer than 2p micro-batches, this may be 10 % too much.

    Args:
        c: The plan.
        slowest: The rank that has most to do: the last, if any, which has the head.
        others: The mean of the other ranks.
    """
    values = (c.pp, c.schedule, slowest.total_s, others.total_s)
    seconds = np.zeros(np.broadcast_shapes(*(v.shape for v in values)))
    for i in np.unique(c.schedule):
        idle = _idle_s(SCHEDULES[int(i)], c, slowest=slowest, others=others)
        seconds = np.where(c.schedule == i, idle, seconds)
    return np.where(c.pp > 1, seconds, 0.0)


def _idle_s(name: ScheduleName, c: Choice, *, slowest: Load, others: Load) -> Number:
    """Give the seconds that a rank waits under a schedule; with ranks alike, `bubble_slots`."""
    fill, after = c.pp - 1.0, c.micro_batches - 1.0
    f, b, w = others.forward_s, others.inputs_s, others.weights_s
    match name:
        case "zb-1p" | "zb-2p":
            # The first rank ends last: after the others' forwards, the last rank's work but for
            # the weight gradients that it leaves for the end, and the way back.
            late = np.minimum(after, fill * (1.0 if name == "zb-1p" else 2.0))
            filler = np.minimum(slowest.forward_s, slowest.weights_s)
            return relu(fill * (f + b) + w - slowest.weights_s - late * filler)
        case "zb-v":
            # The first rank has the head. It waits for its first micro-batch to go down and up
            # the ranks, doing more forwards of its first stage, and for its last, doing backwards.
            first = relu(fill * f - np.minimum(after, 2.0 * fill) * f / 2)
            backwards = np.minimum(after, fill) * (b + w) / 2
            last = relu(fill * b - (slowest.weights_s - w / 2) - backwards)
            # The others are not done sooner than if all were as fast, but for one micro-batch.
            even = bubble_slots(name, p=c.pp, v=c.interleave, m=c.micro_batches, f=f, b=b, w=w)
            longer = slowest.weights_s - w + after * (slowest.total_s - others.total_s)
            return np.maximum(first + last, even - longer)
        case _:
            # Forwards and backwards of one micro-batch through the others: as for ranks alike.
            return bubble_slots(name, p=c.pp, v=c.interleave, m=c.micro_batches, f=f, b=b, w=w)
