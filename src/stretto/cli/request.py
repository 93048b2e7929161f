"""What `train` is asked for, put together and checked, before torch is imported."""

from __future__ import annotations

import datetime
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stretto.checkpoint.commit import find, open_checkpoint
from stretto.checkpoint.manifest import check
from stretto.cli.foretold import cluster_for
from stretto.cli.keys import Keys, Settings
from stretto.cli.models import model_of, recipe_for
from stretto.cli.plans import Wish, cluster_of, crowded, model_in, plan_of, read_plan
from stretto.cli.rundir import RunDirectory, Start, new_name
from stretto.cli.say import attempt
from stretto.cli.texts import text_problems, tokenizer_problems
from stretto.cluster import Cluster
from stretto.data.corpus import shipped
from stretto.errors import InputError, ModelError, Problem
from stretto.model import Model
from stretto.plan import Plan
from stretto.recipe import Recipe
from stretto.runtime.environment import World, check_port, from_environment
from stretto.units import show_bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of a ``train`` command.

    Attributes:
        model: The word for the model; None for that of the plan's file, if it names one.
        data: Paths of text; none for the shipped text, or that of the run.
        plan: A plan's file.
        nproc: Ranks.
        weights: Where weights come from.
        resume: A run to go on with.
        run: The directory of the new run.
        tokenizer: A tokenizer.
        keys: ``key=value``.
        cluster: Where the run is taken to run.
    """

    model: str | None
    data: tuple[Path, ...]
    plan: Path | None
    nproc: int | None
    weights: Path | None
    resume: Path | None
    run: Path | None
    tokenizer: Path | None
    keys: Keys
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A run that can be.

    Attributes:
        start: What decides it.
        run: Its directory.
        resume: Whether it goes on from a checkpoint.
        world: This process among ranks that others start; None to start them here.
        nproc: Ranks in all.
        cluster: Where it runs, as its steps are predicted; None where nobody can say.
    """

    start: Start
    run: RunDirectory
    resume: bool
    world: World | None
    nproc: int
    cluster: Cluster | None


def request(asked: Asked, problems: list[Problem]) -> Request:
    """Give the run that is asked for.

    Args:
        asked: The words.
        problems: What is wrong already.

    Raises:
        InputError: All that is wrong, with `problems`.
    """
    if asked.plan is not None and not (asked.model or asked.weights or asked.resume):
        asked = replace(asked, model=model_in(asked.plan))
    before = _before(asked, problems)
    world = _world(problems)
    model = _model(asked, before, problems)
    recipe = replace(before.recipe if before else recipe_for(model), **asked.keys.recipe)
    settings = replace(before.settings if before else Settings(), **asked.keys.run)
    tokenizer = _tokenizer(asked, before)
    weights = _weights(asked, before)
    data = asked.data or (before.data if before else (shipped(),))
    if model is not None and settings.vocab and not before:
        model = replace(model, vocab=settings.vocab)
    plan = _plan(asked, before, model, world, problems)
    ranks = world.size if world else asked.nproc or (plan.mesh.size if plan else 1)
    if model is not None:
        problems += model.unsupported
    here = world.local_size if world else ranks
    before_at = asked.resume and RunDirectory(asked.resume).cluster
    cluster = attempt(
        lambda: cluster_for(asked.cluster, ranks=ranks, here=here, before=before_at), problems
    )
    if world is None:
        problems += crowded(ranks)
    if model is not None and plan is not None:
        problems += plan.obstacles(model, cluster_of(ranks, here=here))
    problems += text_problems(data, field=settings.field)
    problems += tokenizer_problems(tokenizer, model)
    problems += _contradictions(asked, before, tokenizer)
    if world is None or world.rank == 0:  # the others may see what it makes
        problems += _run_problems(asked, model)
    problems += _resume_problems(asked, before, model, plan, recipe)
    if problems or model is None or plan is None:
        raise InputError(dict.fromkeys(problems))
    start = Start(model, plan, recipe, settings, data, tokenizer, weights)
    run = _directory(asked, model)
    return Request(start, run, bool(asked.resume), world, ranks, cluster)


def _before(asked: Asked, problems: list[Problem]) -> Start | None:
    """Give what decided the run that is gone on with."""
    return attempt(RunDirectory(asked.resume).read, problems) if asked.resume else None


def _world(problems: list[Problem]) -> World | None:
    """Give this process's place where others start the ranks."""
    world = attempt(lambda: from_environment(os.environ), problems)
    if world is not None:
        attempt(lambda: check_port(world, os.environ), problems)
    return world


def _model(asked: Asked, before: Start | None, problems: list[Problem]) -> Model | None:
    named = asked.model
    if named is None and before is not None:
        return before.model
    if named is None and asked.weights is not None:
        named = str(pretrained(asked.weights))
    if named is None and asked.resume is not None:
        return None
    return attempt(lambda: model_of(named), problems)


def pretrained(path: Path) -> Path:
    """Give the directory in Hugging Face format that is meant: that of a run, or itself."""
    inner = RunDirectory(path).model
    return inner if RunDirectory(path).is_one and inner.is_dir() else path


def _weights(asked: Asked, before: Start | None) -> Path | None:
    if asked.weights is not None:
        return pretrained(asked.weights)
    return before.weights if before else None


def _tokenizer(asked: Asked, before: Start | None) -> Path | None:
    """Give the tokenizer: the one named, that of weights or model; None to train one."""
    if asked.tokenizer is not None:
        return asked.tokenizer
    if before is not None and asked.resume is not None:
        return RunDirectory(asked.resume).tokenizer if before.tokenizer else None
    homes = [pretrained(asked.weights)] if asked.weights else []
    homes += [Path(asked.model)] if asked.model else []
    found = (home if home.is_dir() else home.parent for home in homes if home.exists())
    return next((h / "tokenizer.json" for h in found if (h / "tokenizer.json").is_file()), None)


def _plan(
    asked: Asked,
    before: Start | None,
    model: Model | None,
    world: World | None,
    problems: list[Problem],
) -> Plan | None:
    ranks = world.size if world else asked.nproc
    base = before.plan if before else None

    def made() -> Plan:
        stated = read_plan(asked.plan) if asked.plan else base
        wish = Wish(stated, asked.plan is not None, asked.keys.mesh, asked.keys.plan, ranks)
        return plan_of(wish, model)

    return attempt(made, problems)


def _contradictions(
    asked: Asked, before: Start | None, tokenizer: Path | None
) -> Iterator[Problem]:
    if asked.resume is not None:
        for word, path in (("--from", asked.weights), ("--run", asked.run)):
            if path not in (None, asked.resume):
                yield Problem(word, "a run that goes on has its own", "leave it out, or --resume")
    if "vocab" in asked.keys.run and (tokenizer is not None or before is not None):
        where = tokenizer or "the run's tokenizer"
        yield Problem("vocab", f"{where} has its own vocabulary", "leave it out")
    if asked.weights is not None and asked.model is not None:
        yield from _misfits(asked.model, pretrained(asked.weights))
    if asked.weights is not None and tokenizer is None and not asked.resume:
        rule = "weights are nothing without their tokenizer, and there is no tokenizer.json"
        yield Problem(str(asked.weights), rule, "put it there, or name it with --tokenizer")


def _misfits(name: str, weights: Path) -> Iterator[Problem]:
    """Say so if the model that is named is not that of the weights."""
    try:
        model, other = model_of(name), model_of(str(weights))
    except ModelError:
        return  # said already, or will be of the weights
    if replace(model, name="") != replace(other, name=""):
        yield Problem(str(weights), f"its weights are not of {name}", f"leave {name} out")


def _run_problems(asked: Asked, model: Model | None) -> Iterator[Problem]:
    """What is wrong with where the run is to be kept."""
    if asked.run is not None and asked.resume is None and asked.run.exists():
        if not asked.run.is_dir():
            yield Problem(str(asked.run), "is a file", "name a directory")
            return
        if any(asked.run.iterdir()):
            remedy = f"name a new one, or go on with it: --resume {asked.run}"
            yield Problem(str(asked.run), "exists already", remedy)
    place = asked.resume or asked.run or Path("runs")
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        yield Problem(str(place), "cannot be written", "give leave, or name another with --run")
        return
    if model is not None:
        need = 12 * model.parameter_count * 3  # weights and moments; two are kept, one is written
        free = shutil.disk_usage(place).free
        if free < need:
            rule = f"{show_bytes(free)} are free, but three checkpoints take {show_bytes(need)}"
            yield Problem(str(place), rule, "make room, or name another disk with --run")


def _resume_problems(
    asked: Asked, before: Start | None, model: Model | None, plan: Plan | None, recipe: Recipe
) -> Iterator[Problem]:
    """What keeps a run from going on: its checkpoint, or an order of samples that would change."""
    if asked.resume is None or before is None:
        return
    now: Mapping[str, Any] = {"seed": recipe.seed}
    old: Mapping[str, Any] = {"seed": before.recipe.seed}
    if plan is not None:
        now = {**now, "batch.sequences": plan.batch.sequences, "batch.seq": plan.batch.seq}
        batch = before.plan.batch
        old = {**old, "batch.sequences": batch.sequences, "batch.seq": batch.seq}
    for key, value in now.items():
        if value != old[key]:
            rule = f"was {old[key]}, is {value}: which samples are left depends on it"
            yield Problem(key, rule, f"keep it, or begin a new run: --from {asked.resume}")
    try:
        path = find(RunDirectory(asked.resume).checkpoints).path
        manifest = open_checkpoint(path, model=None)
    except InputError as error:
        yield from error.problems
        return
    yield from check(manifest, model)
    if manifest.step >= recipe.steps:
        rule = f"the run has done {manifest.step} of its {recipe.steps} steps"
        yield Problem("steps", rule, f"ask for more: steps={2 * manifest.step}")


def _directory(asked: Asked, model: Model) -> RunDirectory:
    path = asked.resume or asked.run
    if path is None:
        path = Path("runs") / new_name(model, datetime.datetime.now())
        names = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
        path = next(names) if path.exists() else path
    return RunDirectory(path)
