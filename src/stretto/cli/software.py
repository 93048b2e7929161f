"""Which software is meant: the one that is named, ours for what it runs, else the newest."""

from __future__ import annotations

from stretto.cluster import Cluster
from stretto.cost import Stack, stack
from stretto.cost.stacks import DEFAULT, own, own_name
from stretto.model import Model
from stretto.plan import Plan

SOFTWARE = "the software that a plan is priced for (default: ours if it runs it, else modern)"
"""What the option says."""


def software(
    name: str | None, *, plan: Plan | None, model: Model | None, cluster: Cluster | None
) -> tuple[str, Stack] | None:
    """Give the name and the constants of the software that a plan is priced for.

    None where it is neither named nor follows from what is known.

    Raises:
        InputError: There is none of that name.
    """
    if name is not None:
        return name, stack(name)
    if plan is None or model is None or cluster is None:
        return None
    if model.unsupported or plan.unsupported(model):
        return DEFAULT, stack(DEFAULT)
    return own_name(cluster), own(cluster)
