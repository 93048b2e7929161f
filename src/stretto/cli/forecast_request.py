"""What `forecast` is asked for, put together and checked."""

from __future__ import annotations

import argparse
import datetime
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from stretto.cli.arguments import Pairs
from stretto.cli.forecast_setup import PER_DEVICE_BYTES, Trained, setup_of
from stretto.cli.say import attempt
from stretto.cli.software import software
from stretto.cli.subject import assumed, devices_of, misplaced, subject
from stretto.cluster import Cluster, find
from stretto.cost import cost
from stretto.errors import InputError, Problem
from stretto.forecast import Failures, Job, Setup, Spares
from stretto.forecast import toml as known
from stretto.forecast.spares import Price, enough
from stretto.model import Model
from stretto.plan import Plan
from stretto.report.quantities import counted
from stretto.search import TOKENS_PER_PARAMETER
from stretto.search.batch import count
from stretto.units import Quantity, parse, show_bytes, show_count

_STATE_BYTES = 12  # of a parameter: it and two moments in float32
_PER_NODE = 8  # devices, where nobody says
_QUANTITIES: Mapping[str, tuple[Quantity, str, float, float]] = {
    "step": ("s", "7.5s", 1e-9, 1e7),
    "checkpoint_bytes": ("bytes", "5.67TB", 1.0, 1e18),
    "storage": ("bytes_per_s", "100GB/s", 1.0, 1e18),
}
"""What options measure, an example, the least and the most that they can be."""

_COUNTS: Mapping[str, tuple[int, int]] = {
    "devices": (1, 10**7), "steps": (1, 10**12), "replicas": (1, 10**7), "spares": (0, 10**5),
    "warm_spares": (0, 10**5), "seeds": (1, 10**5),
}  # fmt: skip
"""The least and the most of what options count."""


@dataclass(frozen=True, slots=True)
class Request:
    """A forecast that is asked for.

    Attributes:
        title: What is trained, and on what.
        setup: What is played; with ``auto`` its interval between checkpoints is a first guess.
        failures: What fails.
        price: What time costs; None where no cluster says.
        start: When training begins.
        auto: Whether the best interval between checkpoints is to be found.
        notes: What was assumed.
    """

    title: str
    setup: Setup
    failures: Failures
    price: Price | None
    start: datetime.date
    auto: bool
    notes: tuple[str, ...]


def request(options: argparse.Namespace, keys: Pairs, problems: list[Problem]) -> Request:
    """Give what is asked for.

    Args:
        options: The options of the command.
        keys: ``key=value`` of a plan.
        problems: What is wrong already.

    Raises:
        InputError: All that is wrong, with `problems`.
    """
    notes: list[str] = []
    problems += _word_problems(options)
    for name in _QUANTITIES:
        setattr(options, name, attempt(partial(_quantity, options, name), problems))
    failing = attempt(lambda: known.find(options.failures), problems)
    start = attempt(lambda: _date(options.start), problems)
    stated = bool(options.words or keys)
    make = _planned if stated else _stated
    what = make(options, keys, notes, problems)
    if what is None or failing is None or start is None or problems:
        raise InputError(dict.fromkeys(problems))
    failures, recovery = failing
    setup = attempt(lambda: setup_of(options, what, recovery, notes), problems)
    if setup is None or problems:
        raise InputError(dict.fromkeys(problems))
    if options.spares is None and not options.warm_spares:
        nodes = enough(setup, failures)
        setup = replace(setup, spares=Spares(nodes))
        notes.append(f"{counted(nodes, 'spare node')}, enough 99 % of the time (--spares)")
    auto = options.checkpoint_every == "auto"
    return Request(what.title, setup, failures, what.price, start, auto, tuple(notes))


def _word_problems(options: argparse.Namespace) -> Iterator[Problem]:
    for name, (least, most) in _COUNTS.items():
        count = getattr(options, name)
        if count is not None and not least <= count <= most:
            rule = f"is {count:,}, " + (f"below {least}" if count < least else f"above {most:,}")
            yield Problem(f"--{name.replace('_', '-')}", rule, f"use {least} to {most:,}")
    if options.svg is not None and not options.svg.parent.is_dir():
        yield Problem("--svg", f"there is no directory {options.svg.parent}", "make it first")


def _quantity(options: argparse.Namespace, name: str) -> float | None:
    """Give an option with a unit."""
    kind, example, least, most = _QUANTITIES[name]
    text, field = getattr(options, name), f"--{name.replace('_', '-')}"
    value = None if text is None else parse(text, kind, field=field, example=example)
    if value is not None and not least <= value <= most:
        rule = f"is {text}, " + ("which is too little" if value < least else "which is too much")
        unit = example.lstrip("0123456789.")
        scale = parse(f"1{unit}", kind)
        raise InputError(
            Problem(field, rule, f"use {least / scale:g}{unit} to {most / scale:g}{unit}")
        )
    return value


def _date(text: str | None) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text) if text else datetime.date.today()
    except ValueError:
        raise InputError(Problem("--start", f"{text!r} is no date", "write 2026-05-01")) from None


def _planned(
    options: argparse.Namespace, keys: Pairs, notes: list[str], problems: list[Problem]
) -> Trained | None:
    """Give a plan for a model on a cluster, priced."""
    for name in ("devices", "step", "steps", "replicas"):
        if getattr(options, name) is not None:
            rule = "follows from the plan"
            problems.append(Problem(f"--{name}", rule, "leave it out, or name no plan"))
    if options.cluster is None:
        problems.append(Problem("--cluster", "is missing", "write --cluster h100x64"))
    plan, model = subject(options.words, keys, problems)
    if plan is not None:
        notes += assumed(options.words, keys, plan)
    tokens = attempt(lambda: _tokens(options.tokens, model, notes), problems)
    where: str | None = options.cluster
    cluster = attempt(lambda: _cluster(where, plan), problems) if where and plan else None
    with_what = attempt(
        lambda: software(options.stack, plan=plan, model=model, cluster=cluster), problems
    )
    if plan is not None and model is not None and cluster is not None:
        problems += misplaced((plan, model), cluster, asked=options, keys=keys)
    if plan is None or model is None or cluster is None or tokens is None or with_what is None:
        return None
    if problems:
        return None
    name, constants = with_what
    if options.stack is None:
        notes.append(f"{name} software (--stack)")
    estimate = cost(model, plan, cluster=cluster, stack=constants)
    devices, idle_w = plan.mesh.size, cluster.device.power_w.idle
    a_step = plan.batch.sequences * plan.batch.seq
    job = Job(math.ceil(tokens / a_step), float(estimate.time.total_s), devices, cluster.per_node)
    per_s = cluster.device.price_per_hour / 3600
    return Trained(
        f"{model.name or 'the model'}, {show_count(model.parameter_count)} parameters, "
        f"{show_count(tokens)} tokens, on {devices:,} × {cluster.device.name}",
        job,
        plan.replicas,
        options.checkpoint_bytes or float(_STATE_BYTES * model.parameter_count),
        devices if plan.words.zero else max(1, devices // plan.replicas),
        Price(per_s, float(estimate.bill.energy_j), idle_w),
    )


def _cluster(where: str, plan: Plan) -> Cluster:
    """Give as much of a cluster as a plan uses."""
    cluster, size = devices_of(where, plan), plan.mesh.size
    return cluster.at(size) if cluster.devices > size else cluster


def _tokens(text: str | None, model: Model | None, notes: list[str]) -> int | None:
    if text is not None:
        return count(text, field="--tokens")
    notes.append(f"{TOKENS_PER_PARAMETER} tokens a parameter (--tokens)")
    return TOKENS_PER_PARAMETER * model.active_parameter_count if model else None


def _stated(
    options: argparse.Namespace, _: Pairs, notes: list[str], problems: list[Problem]
) -> Trained | None:
    """Give steps of a stated time on stated devices."""
    if options.tokens is not None:
        problems.append(Problem("--tokens", "needs a plan", "name one, or state --steps"))
    wrong = {problem.field for problem in problems}
    where = options.cluster
    cluster = None
    if where is not None:
        cluster = attempt(lambda: find(where, devices=options.devices), problems)
    devices = cluster.devices if cluster else options.devices
    if devices is None and where is None and "--devices" not in wrong:
        remedy = "name a plan, or write --devices 16384 --step 7.5s --steps 60000"
        problems.append(Problem("--devices", "is missing", remedy))
    for name, example in (("steps", "60000"), ("step", "7.5s")):
        if getattr(options, name) is None and f"--{name}" not in wrong:
            problems.append(Problem(f"--{name}", "is missing", f"write --{name} {example}"))
    if devices is None or options.steps is None or options.step is None or problems:
        return None
    if options.replicas and devices % options.replicas:
        count = options.replicas
        rule = f"{count:,} must divide {devices:,} devices, but {devices} % {count} = "
        near = min(_divisors(devices), key=lambda one: abs(one - count))
        remedy = f"use {near:,}, or another number that divides {devices:,}"
        problems.append(Problem("--replicas", f"{rule}{devices % count}", remedy))
        return None
    per_node, price = _PER_NODE, None
    if cluster is None:
        notes.append(f"nodes of {per_node} devices (--cluster)")
    else:
        per_node = cluster.per_node
        price = Price(cluster.device.price_per_hour / 3600)
    held = options.checkpoint_bytes
    if held is None:
        held = PER_DEVICE_BYTES * devices
        size = show_bytes(PER_DEVICE_BYTES)
        whence = "as 405 G parameters on 8,960 devices: Wan et al., 2025"
        notes.append(f"{size} of checkpoint a device, {whence} (--checkpoint-bytes)")
    job = Job(options.steps, options.step, devices, per_node)
    title = f"{devices:,} × {cluster.device.name}" if cluster else counted(devices, "device")
    return Trained(title, job, options.replicas or job.nodes, held, devices, price)


def _divisors(number: int) -> Iterator[int]:
    for one in range(1, math.isqrt(number) + 1):
        if number % one == 0:
            yield from (one, number // one)
