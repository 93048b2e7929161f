"""What `plan` writes: the plan, and what is emitted for other people's trainers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stretto.cli.models import word_of
from stretto.errors import InputError, MachineError, PlanError, Problem
from stretto.plan import Batch, Plan
from stretto.search import Found, Task

if TYPE_CHECKING:
    from stretto.emit import Emitted, Trainer


def emitted(trainer: Trainer, task: Task, plan: Plan) -> Emitted:
    """Give a plan as the files of a trainer.

    Raises:
        PlanError: All that the trainer cannot be told.
    """
    from stretto.emit import emit

    return emit(trainer, model=task.model, plan=plan, per_node=task.cluster.per_node)


def can_emit(trainer: Trainer, task: Task, plan: Plan) -> bool:
    """Tell whether a trainer can be told a plan."""
    try:
        emitted(trainer, task, plan)
    except PlanError:
        return False
    return True


def refuse_model(trainer: Trainer, task: Task) -> None:
    """Refuse a model that a trainer does not know, whatever the plan.

    Raises:
        PlanError: All that the trainer does not know of it.
    """
    try:
        emitted(trainer, task, Plan(numerics=task.numerics, batch=Batch(1, 1, task.seq)))
    except PlanError as error:
        if own := [p for p in error.problems if p.field.partition(".")[0] == "model"]:
            raise PlanError(own) from None


def refusal(trainer: Trainer, found: Found) -> tuple[Problem, ...]:
    """Give why a trainer can be told neither the best plan nor any like it."""
    assert found.best is not None, "there are plans"
    try:
        emitted(trainer, found.task, found.best.plan)
    except PlanError as error:
        return error.problems
    raise AssertionError("it was refused before")


def save(file: Path, plan: Plan, *, model: str, beside: Mapping[str, str]) -> None:
    """Write a plan, and other files into the same directory.

    Args:
        file: Of the plan.
        plan: What to write.
        model: For which it was made, as the command line names it.
        beside: Texts of the others by their name.

    Raises:
        InputError: The others that exist: nobody named them.
        MachineError: A file cannot be written.
    """
    files = {file.parent / name: text for name, text in beside.items()}
    there = [path for path in files if path.exists()]
    if there:
        rule, remedy = "exists already, and would be written too", "save in another directory"
        raise InputError(Problem(str(path), rule, remedy) for path in there)
    for path, text in {file: plan.to_toml(model=word_of(model, file=file)), **files}.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            rule, remedy = f"cannot be written: {error.strerror}", "name another place"
            raise MachineError(Problem(str(path), rule, remedy)) from None
