"""A run or a plan as its page reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stretto.cli.foretold import cluster_of_run, foretold
from stretto.cli.plans import in_words
from stretto.cli.rundir import RunDirectory
from stretto.cluster import Cluster
from stretto.cost import Stack, cost
from stretto.errors import Problem, StrettoError
from stretto.model import Model
from stretto.page.metrics import Metrics
from stretto.page.subject import Subject
from stretto.plan import Plan
from stretto.program.lower import lower
from stretto.simulate import simulate
from stretto.units import show_bytes, show_count

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Where:
    """On what a plan is shown.

    Attributes:
        cluster: The devices.
        stack: The software.
        software: What it is called.
    """

    cluster: Cluster
    stack: Stack
    software: str


def of_run(
    path: Path,
    *,
    cluster: Cluster | None = None,
    metrics: Metrics | None = None,
    others: Sequence[tuple[str, Metrics]] = (),
) -> Subject:
    """Give a run as its page reads it.

    Args:
        path: Its directory.
        cluster: Where it ran; None for what the run itself says, or this machine.
        metrics: What it said, where that is being read already.
        others: Runs that it may be compared with, by name.

    Raises:
        StrettoError: It is no run, or what is wrong with it.
    """
    run = RunDirectory(path)
    start = run.read()
    told = foretold(start, cluster or cluster_of_run(run, start.plan))
    recipe = start.recipe
    tokens = recipe.steps * start.plan.batch.sequences * start.plan.batch.seq
    learnt = (
        f"{recipe.steps:,} steps, {show_count(tokens)} tokens; learning rate {recipe.lr:g}, "
        f"{recipe.schedule}"
    )
    return Subject(
        path.resolve().name,
        start.model,
        start.plan,
        told.cluster,
        told.stack,
        told.estimate,
        words=(*_words(start.model, start.plan, told.cluster), ("recipe", learnt)),
        program=told.program,
        predicted=told.timeline,
        run=path,
        steps=recipe.steps,
        metrics=metrics or Metrics(run.metrics),
        others=tuple(others),
    )


def of_plan(title: str, model: Model, plan: Plan, *, where: Where, say: Say) -> Subject:
    """Give a plan on a cluster as its page reads it.

    Args:
        title: What to call it.
        model: What is trained.
        plan: How.
        where: On what.
        say: Told what is done.
    """
    subject = Subject(
        title,
        model,
        plan,
        where.cluster,
        where.stack,
        cost(model, plan, cluster=where.cluster, stack=where.stack),
        words=(*_words(model, plan, where.cluster), ("software", where.software)),
    )
    try:
        say("lowering the plan to a program")
        program = lower(model, plan)
        say(f"playing a step on {show_count(plan.mesh.size)} ranks")
        line = simulate(program, where.cluster, stack=where.stack)
    except StrettoError as error:  # it can be planned, and cannot be run yet
        return replace(subject, notes=(_priced_only(error.problems),))
    return replace(subject, program=program, predicted=line)


def _priced_only(problems: Sequence[Problem]) -> str:
    """Say why a plan has no step to play, what all reasons say once, and what there is."""
    later = re.compile(r",?( which)? can be planned, but is not run yet$")
    whys = [f"{p.field}: {later.sub('', p.rule)}" for p in problems]
    known = any(later.search(p.rule) for p in problems)
    return (
        f"Priced in closed form only: {'; '.join(whys)}. "
        f"{'This can be planned, but is not run yet. ' if known else ''}Time, memory, stages and "
        "other plans are estimated below; there is no step on a clock."
    )


def _words(model: Model, plan: Plan, cluster: Cluster) -> Iterator[tuple[str, str]]:
    active = model.active_parameter_count
    passed = f" (a token passes {show_count(active)})" if active < model.parameter_count else ""
    yield (
        "model",
        f"{model.name or 'unnamed'}: {show_count(model.parameter_count)} parameters{passed}, "
        f"{model.layers} layers × {model.embed}, vocabulary {model.vocab:,}",
    )
    yield "plan", in_words(plan)
    kinds = " + ".join(
        f"{part.devices:,} × {part.device.name}, {show_bytes(part.device.memory_bytes)} each"
        for part in cluster.parts
    )
    nodes = f"; {cluster.per_node} to a node" if cluster.per_node > 1 else ""
    yield "cluster", f"{cluster.name}: {kinds}{nodes}"
