"""A plan as commands and configuration for other people's trainers.

What a trainer cannot be told is refused, with the rule and what would satisfy it; what it does in a
way of its own is noted. Nothing that the plan decides is left out in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

from stretto.emit import deepspeed, megatron, nanotron, torchtitan
from stretto.emit.job import Job
from stretto.emit.launch import Emitted
from stretto.errors import PlanError
from stretto.model import Model
from stretto.plan import Plan
from stretto.recipe import Recipe

Trainer = Literal["megatron", "torchtitan", "deepspeed", "nanotron"]
TRAINERS: tuple[Trainer, ...] = get_args(Trainer)

_WRITERS: Mapping[Trainer, Callable[[Job], Emitted]] = {
    "megatron": megatron.emit,
    "torchtitan": torchtitan.emit,
    "deepspeed": deepspeed.emit,
    "nanotron": nanotron.emit,
}
_RECIPE = Recipe()


def emit(
    trainer: Trainer, *, model: Model, plan: Plan, recipe: Recipe = _RECIPE, per_node: int = 8
) -> Emitted:
    """Give a plan as the files that another trainer is started with.

    Args:
        trainer: Whose.
        model: What is trained.
        plan: How it lies on the ranks.
        recipe: How its weights change.
        per_node: Devices of a node.

    Raises:
        PlanError: All that is impossible in the plan, or that the trainer cannot do as it says.
    """
    problems = plan.check(model)
    if problems:
        raise PlanError(problems)
    return _WRITERS[trainer](Job(model, plan, recipe, per_node))


__all__ = ["TRAINERS", "Emitted", "Trainer", "emit"]
