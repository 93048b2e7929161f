"""How much memory a plan fills while nothing runs."""

from __future__ import annotations

import math

from stretto.model import Model, Parameter
from stretto.plan.value import DTYPE_BYTES, Decisions
from stretto.rules import Placement, Rules, Store


def resting_bytes(plan: Decisions, model: Model) -> float:
    """Give the bytes of parameters, gradients, master weights and moments on the fullest rank.

    Pipeline ranks are taken to hold even shares of the parameters.
    """
    compute, master = DTYPE_BYTES[plan.numerics.dtype], DTYPE_BYTES[plan.numerics.master]
    on_device = 1.0 - plan.memory.optimizer_offload
    placements: dict[Rules, Placement] = {}
    seen: set[str] = set()
    total = 0.0
    for block in model.blocks:
        rules = plan.at(block.layer).rules if plan.groups else plan.rules
        placement = placements.setdefault(rules, Placement(model, plan.mesh, rules))
        for parameter in block.parameters:
            if parameter.name in seen:
                continue
            seen.add(parameter.name)
            count = {store: _count(placement, parameter, store) for store in Store}
            same = compute == master and count[Store.PARAMETER] == count[Store.OPTIMIZER]
            total += compute * count[Store.PARAMETER] + master * count[Store.GRADIENT]
            total += on_device * master * count[Store.OPTIMIZER] * (2 if same else 3)
    return total / plan.extent("pp")


def _count(placement: Placement, parameter: Parameter, store: Store) -> int:
    """Give how many numbers of a parameter, or of what goes with it, rest on a rank."""
    layout = placement.resting(parameter, store)
    shape = placement.rest_shape(parameter, layout)
    return math.prod(layout.local(shape, mesh=placement.mesh))
