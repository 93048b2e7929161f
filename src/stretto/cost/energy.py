"""Energy and money of a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stretto.cost.layer import embedding, head, mean_layer, parts
from stretto.cost.numbers import Number
from stretto.cost.pricing import Pricing
from stretto.cost.step import StepTime


@dataclass(frozen=True, slots=True)
class States:
    """Seconds of a step by what a device does in them, which decides what it draws.

    It draws what compute-bound kernels do, what memory-bound ones do, or idle power (You et al.,
    2023). That is so wherever energy is told: in closed form, and of a step that is played.

    Attributes:
        products_s: Products and attention run: as compute-bound kernels.
        streams_s: Other kernels run, or a message that nothing hides is under way: its memory or
            a link is what bounds it.
        waits_s: It waits for other ranks, for the slowest by chance, or for its host.
    """

    products_s: Number
    streams_s: Number
    waits_s: Number

    def joules(
        self, *, compute_w: Number, memory_w: Number, idle_w: Number
    ) -> tuple[Number, Number, Number]:
        """Give what is drawn in each of them."""
        return self.products_s * compute_w, self.streams_s * memory_w, self.waits_s * idle_w


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
    """Give energy and money of a step: what a device draws by `States`, times all devices.

    What the rank with most to do has more of than the mean stage, others wait for.
    """
    products, passes = _passes(p, time)
    streams = passes + time.send_s + time.data_s + time.optimizer_s + time.host_s
    states = States(products, streams, time.total_s - products - streams)
    devices, machine = p.choice.devices, p.machine
    compute_j, memory_j, idle_j = states.joules(
        compute_w=machine.compute_w, memory_w=machine.memory_w, idle_w=machine.idle_w
    )
    return Bill(
        compute_j=devices * compute_j,
        memory_j=devices * memory_j,
        idle_j=devices * idle_j,
        money=devices * time.total_s * machine.price_per_s,
    )


def _passes(p: Pricing, time: StepTime) -> tuple[Number, Number]:
    """Give seconds of products, and of all else but waits, in the passes of the mean stage."""
    c, shape = p.choice, p.shape
    products = time.matrix_s + time.attention_s
    others = time.pointwise_s + time.tensor_s + time.context_s + time.expert_s
    if np.all(c.pp == 1):
        return products, others
    works = [
        work.times(count * c.micro_batches / c.pp)
        for piece, count in (
            (mean_layer(p), shape.layers), (embedding(p), np.ones(())), (head(p), shape.heads_out),
        )
        for work in parts(piece)
    ]  # fmt: skip
    mean = sum((work.matrix_s + work.attention_s for work in works), np.zeros(()))
    beside = sum((work.pointwise_s + work.moves_s for work in works), np.zeros(()))
    return np.where(c.pp > 1, mean, products), np.where(c.pp > 1, beside, others)
