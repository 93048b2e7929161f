"""What `plan` is asked for, put together and checked."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from stretto.cli.arguments import Pairs
from stretto.cli.models import cluster_word, model_of
from stretto.cli.plan_more import survivor_problems
from stretto.cli.say import attempt
from stretto.cluster import Cluster, find
from stretto.cluster.names import split
from stretto.cost import stack
from stretto.cost.stacks import DEFAULT, own, own_name
from stretto.errors import ClusterError, InputError, Problem
from stretto.plan import DType, Matrix
from stretto.search import TOKENS_PER_PARAMETER, Constraint, Task
from stretto.search.batch import Sequences, count, sequences, usual
from stretto.search.constraint import contradictions

PRECISIONS: Mapping[str, tuple[DType, Matrix]] = MappingProxyType(
    {
        "bfloat16": ("bfloat16", "same"),
        "float8": ("bfloat16", "float8"),
        "float4": ("bfloat16", "float4"),
        "float32": ("float32", "same"),
    }
)
"""What matrix products may multiply in."""

_MANY = 1024  # times the devices of which accelerators are asked for

LONGEST = 8192
"""The most positions of a sequence where nobody says."""


@dataclass(frozen=True, slots=True)
class Request:
    """A plan that is asked for.

    Attributes:
        task: What to search for.
        tokens: That a whole training sees.
        constraints: What is demanded of the plan.
        keys: What ``key=value`` state of it.
        notes: What was assumed.
    """

    task: Task
    tokens: int
    constraints: tuple[Constraint, ...]
    keys: tuple[Constraint, ...]
    notes: tuple[str, ...]


def request(options: argparse.Namespace, keys: Pairs, problems: list[Problem]) -> Request:
    """Give what is asked for.

    Args:
        options: The options of the command.
        keys: ``key=value``.
        problems: What is wrong already.

    Raises:
        InputError: All that is wrong, with `problems`.
    """
    problems += _word_problems(options, keys)
    demands = _constraints(options.constraint, problems)
    own = _constraints([f"{name}={_text(value)}" for name, value in keys], problems)
    run = tuple(c for c in dict.fromkeys((*demands, *own)) if c.key == "runs")
    if options.why_not:  # what is to run is both that are compared
        demands, own = (tuple(dict.fromkeys((*some, *run))) for some in (demands, own))
    problems += contradictions(own if options.why_not else (*demands, *own))
    notes: list[str] = []
    here = any(c.sign == "=" and 1.0 in c.values for c in run)
    named = options.stack or (None if here else DEFAULT)
    task = _task(options, named, notes, problems)
    problems += survivor_problems(options.survivors, task)
    if options.confirm is not None and options.confirm < 1:
        problems.append(Problem("--confirm", f"is {options.confirm}", "use 1 or more"))
    if task is not None and options.objective == "cost" and not task.machine.price_per_s:
        rule = f"a device of {task.cluster.name} has no price"
        problems.append(Problem("--objective", rule, "state price_usd_per_hour in its file"))
    tokens = attempt(lambda: _tokens(options.tokens, task, notes), problems)
    if options.stack is None and task is not None:
        notes.append(f"{named or own_name(task.cluster)} software (--stack)")
    if problems or task is None or tokens is None:
        raise InputError(dict.fromkeys(problems))
    return Request(task, tokens, demands, own, tuple(notes))


def _word_problems(options: argparse.Namespace, keys: Pairs) -> Iterator[Problem]:
    if not options.model:
        yield Problem("MODEL", "is missing", "name a preset or a config.json")
    for extra in options.model[1:]:
        limit = re.search("[<>!]=?", extra)
        remedy = f"write --constraint '{extra}'" if limit else "name one"
        other = Problem(extra, "is no model" if limit else "a second model", remedy)
        yield cluster_word(extra) or other
    if options.cluster is None:
        yield Problem("--cluster", "is missing", "write --cluster h100x64")
    if options.top < 0:
        yield Problem("--top", f"is {options.top}, below 0", "use 0 or more")
    if options.why_not and not keys:
        yield Problem("--why-not", "asks about no plan", "state one: tp=2 pp=4")
    file: Path | None = options.save
    if file is not None and file.exists():
        yield Problem(str(file), "exists already", "name a new file")
    elif file is not None and not file.parent.is_dir():
        yield Problem(str(file), f"there is no directory {file.parent}", "make it first")


def _task(
    options: argparse.Namespace, software: str | None, notes: list[str], problems: list[Problem]
) -> Task | None:
    """Give what to search for, with the software that is named or ours; add what was assumed."""
    named, where = options.model[:1], options.cluster
    model = attempt(lambda: model_of(named[0]), problems) if named else None
    cluster = None
    if where is not None:
        cluster = attempt(lambda: find(where, devices=options.devices), problems)
    ours = own(cluster) if cluster is not None else None
    priced = attempt(lambda: stack(software), problems) if software else ours
    if model is None or cluster is None or priced is None:
        return None
    seq = options.seq
    if seq is None:
        seq = min(model.positions, LONGEST)
        notes.append(f"{seq:,} positions a sequence (--seq)")
    dtype, matrix = PRECISIONS[options.precision]

    def made() -> Task:
        batch = _batch(options.batch_tokens, seq, cluster)
        notes.extend([batch.note] if batch.note else [])
        whole = _system(where, cluster)
        return Task(model, cluster, batch.count, seq, dtype, matrix, priced, whole)

    return attempt(made, problems)


def _system(where: str, cluster: Cluster) -> Cluster | None:
    """Give what a cluster is a part of: a whole system, or more of the same accelerators."""
    name = where if where.endswith(".toml") else split(where)[0]
    try:
        return find(name)
    except ClusterError:  # there can be any number of them
        return find(name, devices=_MANY * cluster.devices)


def _batch(text: str | None, seq: int, cluster: Cluster) -> Sequences:
    if seq < 1:
        raise InputError(Problem("--seq", f"is {seq}, below 1", "use 1 or more"))
    if text is None:
        return usual(seq=seq, devices=cluster.devices)
    return sequences(text, seq=seq, field="--batch-tokens")


def _tokens(text: str | None, task: Task | None, notes: list[str]) -> int | None:
    if text is not None:
        return count(text, field="--tokens")
    notes.append(f"{TOKENS_PER_PARAMETER} tokens a parameter (--tokens)")
    return TOKENS_PER_PARAMETER * task.model.active_parameter_count if task else None


def _constraints(texts: Iterable[str], problems: list[Problem]) -> tuple[Constraint, ...]:
    found = [attempt(partial(Constraint.read, text), problems) for text in texts]
    return tuple(c for c in found if c is not None)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
