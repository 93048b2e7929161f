"""The recipe: optimizer, learning-rate schedule and length of a run. A pure function of step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Recipe:
    """How weights change. AdamW (Loshchilov and Hutter, 2019) with clipping by global norm.

    Attributes:
        steps: Optimizer steps of the run.
        lr: Peak learning rate.
        schedule: After the warm-up ``cosine`` (Loshchilov and Hutter, 2017) falls to `final_lr`;
            ``wsd`` (warm-up, stable, decay: Hu et al., 2024) stays and falls linearly over the last
            `decay` of the steps; ``constant`` stays.
        warmup: Share of the steps in which the rate rises linearly from zero.
        decay: Share of the steps in which ``wsd`` falls.
        final_lr: Share of `lr` at the end.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay, of matrices only.
        clip: Largest global gradient norm; 0 for none.
        seed: Of initial weights and sample order.
    """

    steps: int = 400
    lr: float = 1e-3
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup: float = 0.05
    decay: float = 0.2
    final_lr: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0

    def lr_at(self, step: int) -> float:
        """Give the learning rate of `step`, counted from 0."""
        warm = max(1, round(self.warmup * self.steps))
        if step < warm:
            return self.lr * (step + 1) / warm
        match self.schedule:
            case "constant":
                return self.lr
            case "cosine":
                done = (step - warm) / max(1, self.steps - warm)
                share = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
            case "wsd":
                span = max(1, round(self.decay * self.steps))
                share = min(1.0, max(0.0, (self.steps - step) / span))
        return self.lr * (self.final_lr + (1 - self.final_lr) * share)
