"""A plan and a model, as `show` and `verify` take them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stretto.cli.keys import sort
from stretto.cli.models import model_of
from stretto.cli.plans import Wish, plan_of, read_plan
from stretto.cli.rundir import RunDirectory
from stretto.cli.say import attempt
from stretto.cluster import Cluster, find
from stretto.cluster.names import split
from stretto.errors import Problem
from stretto.model import Model
from stretto.plan import Plan


def subject(
    names: Iterable[str], keys: Iterable[tuple[str, Any]], problems: list[Problem]
) -> tuple[Plan | None, Model | None]:
    """Give the plan and the model that are named, and add what is wrong to `problems`.

    Args:
        names: A plan's file or a run, which may be left out, then a model, which may be too.
        keys: ``key=value``: words for a mesh, and keys of the plan.
        problems: Is added to.
    """
    first, *rest = [*names, ""]
    home = Path(first)
    stated = bool(first) and (home.suffix == ".toml" or RunDirectory(home).is_one)
    models = [name for name in (rest if stated else [first, *rest]) if name]
    problems += [Problem(n, "a second model", "name a plan and a model") for n in models[1:]]
    sorted_keys = sort(keys, problems, kinds=("mesh", "plan"))

    def named() -> Model:
        of_run = stated and not models and RunDirectory(home).is_one
        return RunDirectory(home).read().model if of_run else model_of(next(iter(models), None))

    model = attempt(named, problems)

    def made() -> Plan:
        base = read_plan(home) if stated else None
        return plan_of(Wish(base, stated, sorted_keys.mesh, sorted_keys.plan), model)

    return attempt(made, problems), model


def devices_of(where: str, plan: Plan) -> Cluster:
    """Give a cluster that is named, with as many devices as a plan uses where nobody says.

    Args:
        where: ``h100``, ``h100x64``, or a TOML file.
        plan: The plan.

    Raises:
        ClusterError: There is none; all that is wrong with its file.
    """
    sized = where.endswith(".toml") or split(where)[1] is not None
    return find(where) if sized else find(where, devices=plan.mesh.size)
