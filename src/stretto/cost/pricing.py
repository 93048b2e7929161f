"""What is priced: a model, a plan, a cluster and the software that runs it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stretto.cost.choice import Choice
from stretto.cost.machine import Machine
from stretto.cost.numbers import Number
from stretto.cost.shape import Shape
from stretto.cost.stack import Stack


@dataclass(frozen=True, slots=True)
class Pricing:
    """What is priced; each part a single one or an array.

    Attributes:
        shape: The model.
        choice: The plan.
        machine: The cluster.
        stack: The software.
    """

    shape: Shape
    choice: Choice
    machine: Machine
    stack: Stack

    @property
    def tokens(self) -> Number:
        """Of a micro-batch, on a rank."""
        return self.choice.micro_batch * self.choice.seq / self.choice.cp

    @property
    def plain_parameters(self) -> Number:
        """Elements of parameters on the fullest rank, in use, but for experts."""
        shape, c = self.shape, self.choice
        layers = (
            shape.layers * shape.attention_parameters
            + (shape.layers - shape.expert_layers) * shape.plain_parameters
            + shape.expert_layers * shape.shared_parameters
        )
        ends = np.where(c.pp > 1, 1.0, 2.0 - shape.tied) * shape.vocabulary_parameters
        return (layers / c.pp + ends) / c.tp

    @property
    def expert_parameters(self) -> Number:
        """Elements of experts on a rank, in use."""
        shape, c = self.shape, self.choice
        return shape.expert_layers * shape.routed_parameters / (c.ep * c.etp * c.pp)

    @property
    def expert_replicas(self) -> Number:
        """Ranks that hold the same experts."""
        c = self.choice
        return np.maximum(c.dp * c.cp * c.tp / (c.ep * c.etp), 1.0)
