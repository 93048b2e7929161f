"""AdamW on the shards that a rank owns, through PyTorch's fused kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stretto.recipe import Recipe

Owned = tuple[bool, Tensor, Tensor, Tensor, Tensor]
"""(whether weight decay applies, gradient, master weight, first moment, second moment)."""


def adamw(tensors: Sequence[Owned], *, recipe: Recipe, lr: float, step: int, factor: float) -> None:
    """Take one AdamW step in place (Loshchilov and Hutter, 2019).

    The functional form is used because the optimizer class imports the compiler when it is built.

    Args:
        tensors: What is updated.
        recipe: Decay rates, epsilon and weight decay.
        lr: Learning rate.
        step: The number of the step, counted from 1; steps that did not count are counted too.
        factor: What gradients are multiplied by: on the way, but the kernel takes it in float32
            only.
    """
    for decay in (True, False):
        some = [t[1:] for t in tensors if t[0] is decay and t[1].numel()]
        if not some:
            continue
        gradients, masters, firsts, seconds = (list(column) for column in zip(*some, strict=True))
        device = masters[0].device
        steps = [torch.tensor(float(step), device=device)] * len(some)
        scale = None
        if masters[0].dtype == torch.float64:
            torch._foreach_mul_(gradients, factor)
        else:
            scale = torch.tensor(1.0 / factor, device=device)
        torch._fused_adamw_(
            masters, gradients, firsts, seconds, [], steps,
            lr=lr, beta1=recipe.beta1, beta2=recipe.beta2, eps=recipe.eps,
            weight_decay=recipe.weight_decay if decay else 0.0,
            amsgrad=False, maximize=False,
            grad_scale=scale,
        )  # fmt: skip
