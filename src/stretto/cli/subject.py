"""A plan and a model, as `show` and `verify` take them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stretto.cli.arguments import Pairs
from stretto.cli.keys import MESH, sort
from stretto.cli.models import DEFAULT, cluster_word, model_of, word_of
from stretto.cli.plans import Wish, model_beside, model_in, plan_of, read_plan
from stretto.cli.rundir import RunDirectory
from stretto.cli.say import attempt
from stretto.cluster import Cluster, find, local
from stretto.cluster.names import split
from stretto.errors import Problem
from stretto.model import Model
from stretto.plan import Plan
from stretto.report.quantities import counted
from stretto.units import show_bytes

_SOME = 8  # names of runs that are told


def subject(
    names: Iterable[str], keys: Iterable[tuple[str, Any]], problems: list[Problem]
) -> tuple[Plan | None, Model | None]:
    """Give the plan and the model that are named, and add what is wrong to `problems`.

    Args:
        names: A plan's file or a run, and a model. Either may be left out: the model is then that
            of the plan's file, or of the run.
        keys: ``key=value``: words for a mesh, and keys of the plan.
        problems: Is added to.
    """
    names = [*names]
    if mistakes := [problem for name in names if (problem := mistaken(name))]:
        problems += mistakes
        return None, None
    home, models = _words(names)
    of_run = home is not None and RunDirectory(home).is_one
    problems += [
        cluster_word(n) or Problem(n, "a second model", "name a plan and a model")
        for n in models[1:]
    ]
    if of_run and models:
        rule = "the run has a model of its own"
        problems.append(Problem(models[0], rule, f"leave it out, or name {home}/plan.toml"))
    sorted_keys = sort(keys, problems, kinds=("mesh", "plan"))

    def named() -> Model:
        if home is None or models:
            return model_of(models[0] if models else None)
        return RunDirectory(home).read().model if of_run else model_beside(home)

    model = attempt(named, problems)

    def made() -> Plan:
        base = read_plan(home) if home else None
        return plan_of(Wish(base, home is not None, sorted_keys.mesh, sorted_keys.plan), model)

    return attempt(made, problems), model


def _words(names: Iterable[str]) -> tuple[Path | None, list[str]]:
    """Give the plan's file or the run that is named, if one is, and the models that are."""
    words = [name for name in names if name]
    home = next((word for word in words if _states(word)), None)
    if home is None:
        return None, words
    words.remove(home)
    return Path(home), words


def model_word(names: Iterable[str], *, file: Path) -> str:
    """Give how a plan's file is to name the model that is meant; empty if nobody said.

    Args:
        names: As for `subject`.
        file: Of the plan.
    """
    home, models = _words(names)
    name = models[0] if models else home and model_in(home)
    return word_of(name, file=file) if name else ""


def mistaken(name: str) -> Problem | None:
    """Give what is wrong with a word that means a run, where there is none of that name."""
    path = Path(name)
    if RunDirectory(path).is_one or path.is_file() or (path / "config.json").exists():
        return None
    if path.is_dir() and not any(path.iterdir()):
        return Problem(name, "is an empty directory", "name a run, a plan or a model")
    if inside := _runs(path):
        rule = f"is a directory of runs: {_listed(inside)}"
        return Problem(name, rule, f"name one of them: {path / inside[0]}")
    if not path.exists() and len(path.parts) > 1 and (beside := _runs(path.parent)):
        rule = f"there is no run {name}; there {'are' if len(beside) > 1 else 'is'} "
        return Problem(name, rule + _listed(beside), f"name one of them: {path.parent / beside[0]}")
    return None


def _runs(path: Path) -> list[str]:
    """Give the names of the runs in a directory."""
    found = path.iterdir() if path.is_dir() else ()
    return sorted(one.name for one in found if RunDirectory(one).is_one)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SOME]) + (f" and {len(names) - _SOME} more" * (len(names) > _SOME))


def misplaced(
    subject: tuple[Plan, Model],
    cluster: Cluster,
    *,
    asked: argparse.Namespace,
    keys: Pairs,
) -> Iterator[Problem]:
    """Give what is wrong with a plan on a cluster that is named, and that first of all lacks.

    Args:
        subject: The plan and the model.
        cluster: As much of it as is used.
        asked: The options of the command: its words, and what the cluster was called.
        keys: As for `subject`.
    """
    plan, model = subject
    meshed = any(key in MESH or key.startswith("mesh.") for key, _ in keys)
    stated = any(_states(word) for word in asked.words)
    if not meshed and not stated and asked.cluster is not None:
        devices = devices_of(asked.cluster, plan).devices
        if plan.mesh.size != devices:
            rule = f"is missing: of {model.name or 'a model'} on {devices:,} devices there are many"
            name = f"stretto plan {model.name or 'MODEL'} --cluster {asked.cluster}"
            yield Problem("PLAN", rule, f"make a plan first: {name} --save plan.toml")
            return
    yield from plan.check(model, cluster)


def homeless(plan: Plan, model: Model) -> Iterator[Problem]:
    """Give what is wrong with a plan on this machine, where no cluster is named."""
    here = local()
    own, found = plan.check(model), plan.check(model, local(devices=plan.mesh.size))
    yield from own
    if len(found) > len(own):
        memory = show_bytes(here.memory_bytes * here.devices)
        rule = f"is missing, and this machine has {counted(here.devices, 'core')} and {memory}"
        yield Problem("--cluster", rule, "name --cluster: h100x64, or a TOML file")


def _states(word: str) -> bool:
    return Path(word).suffix == ".toml" or (bool(word) and RunDirectory(Path(word)).is_one)


def assumed(names: Iterable[str], keys: Iterable[tuple[str, Any]], plan: Plan) -> tuple[str, ...]:
    """Give what nobody said of a plan and a model, each with how to say it.

    Args:
        names: As for `subject`.
        keys: As for `subject`.
        plan: What came of them.
    """
    home, models = _words(names)
    known = models or (home and (RunDirectory(home).is_one or model_in(home)))
    notes = [] if known else [f"{DEFAULT} (MODEL)"]
    if home:
        return tuple(notes)
    said, batch = {key for key, _ in keys}, plan.batch
    for key, what in (
        ("batch.sequences", f"{batch.sequences} sequences a step"),
        ("batch.seq", f"{batch.seq} positions a sequence"),
        ("batch.micro_batch", f"{batch.micro_batch} a micro-batch"),
        ("numerics.dtype", plan.numerics.dtype),
        ("dp", f"dp={plan.replicas}"),
        ("zero", f"zero={plan.words.zero}"),
    ):
        if key not in said and not (key in ("dp", "zero") and plan.replicas == 1):
            notes.append(f"{what} ({key})" if "." in key else what)
    return tuple(notes)


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
