"""Seconds of what waits in the host's memory (Ren et al., 2021)."""

from __future__ import annotations

import numpy as np

from stretto.cost.activations import kept_bytes
from stretto.cost.layer import Passes
from stretto.cost.numbers import Number, relu
from stretto.cost.pricing import Pricing

LINK_BYTES_PER_S = 20e9
"""Of a device's link to its host, one way: PCIe 4.0 of 16 lanes, while all of a node use theirs."""

UPDATE_BYTES_PER_S = 15e9
"""That an optimizer on the host moves for each device, of the host's memory bandwidth."""

ADAM_BYTES = 28.0
"""That it moves for each element: gradient, master weight and two moments, read; three written."""


def host_s(p: Pricing, rank: Passes, *, elements: Number) -> Number:
    """Give the seconds of offloading that nothing hides.

    Activations leave during the forward pass and come back during the backward one. Gradients go
    to the host before its update, and weights come back after it.

    Args:
        p: What is priced.
        rank: The passes of a micro-batch.
        elements: That a rank's optimizer updates.
    """
    c = p.choice
    if not np.any((c.offload > 0) | (c.optimizer_offload > 0)):
        return np.zeros(())
    away = c.offload * kept_bytes(p) * p.shape.layers / c.pp / LINK_BYTES_PER_S
    exposed = relu(away - rank.forward.seconds) + relu(away - rank.backward_s)
    carried = (c.gradient_bytes + c.value_bytes) / LINK_BYTES_PER_S
    update = c.optimizer_offload * elements * (carried + ADAM_BYTES / UPDATE_BYTES_PER_S)
    return c.micro_batches * exposed + update
