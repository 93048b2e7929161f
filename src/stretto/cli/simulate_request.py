"""What `simulate` is asked for: a program on a cluster, what is wrong there, and the network."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

from stretto.cli.arguments import Pairs
from stretto.cli.foretold import cluster_of_run
from stretto.cli.rundir import RunDirectory
from stretto.cli.say import attempt
from stretto.cli.subject import devices_of, homeless, misplaced, subject
from stretto.cluster import Cluster, local
from stretto.cost import Stack, stack
from stretto.cost.stacks import own, own_name
from stretto.errors import InputError, Problem
from stretto.model import Model
from stretto.plan import Plan
from stretto.simulate import Fault, Halt, Network, SlowLink, SlowRank
from stretto.simulate.fold import foldings, least_played, steady
from stretto.simulate.network import Balance

STEPS = 20
"""Of which chance is told where nobody says."""

_SLOW_RANK = re.compile(r"(\d+)x([\d.]+)")
_SLOW_LINK = re.compile(r"(\w+):([\d,-]+)x([\d.]+)")
_HALT = re.compile(r"(\d+)(?:@(\d+)(%?))?")
_NETWORK = re.compile(rf"({'|'.join(get_args(Balance))})(?::flows=(\d+))?")


@dataclass(frozen=True, slots=True)
class Stop:
    """A rank that stops.

    Attributes:
        rank: Which.
        at: Before which instruction; a share of them where it is below 1.
        how: A crash or a hang.
    """

    rank: int
    at: float
    how: str


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Attributes:
        model: What is trained.
        plan: How.
        cluster: Where.
        stack: With which software.
        software: What it is called.
        slow: Ranks and links that are slow.
        stops: Ranks that stop.
        network: How transfers share what lies between switches.
        counts: How many micro-batches to play, first fewer; None for all.
        ranks: Whom to tell of; none for those who work most and least.
        chance: (sigma, steps, seed) of tasks that take more or less time by chance; None for none.
        typed: Faults as they were typed, in the order of `slow` and `stops`.
    """

    model: Model
    plan: Plan
    cluster: Cluster
    stack: Stack
    software: str
    slow: tuple[Fault, ...]
    stops: tuple[Stop, ...]
    network: Network
    counts: tuple[int, int] | None
    ranks: tuple[int, ...]
    chance: tuple[float, int, int] | None
    typed: tuple[str, ...] = ()


def request(options: argparse.Namespace, keys: Pairs, problems: list[Problem]) -> Request:
    """Give what is asked for.

    Args:
        options: The options of the command.
        keys: ``key=value`` of a plan.
        problems: What is wrong already.

    Raises:
        InputError: All that is wrong, with `problems`.
    """
    slow: list[Fault] = []
    for read, texts in ((_slow_rank, options.slow_rank), (_slow_link, options.slow_link)):
        found = [attempt(partial(read, text), problems) for text in texts]
        slow += [fault for fault in found if fault is not None]
    stops = [
        *_stops(options.crash, "crash", problems),
        *_stops(options.hang, "hang", problems),
    ]
    network = attempt(lambda: _network(options.network, options.seed), problems)
    plan, model = subject(options.words, keys, problems)
    home = RunDirectory(Path(options.words[0])) if options.words else None
    run = home if home is not None and home.is_one else None
    cluster = attempt(lambda: _cluster(options.cluster, run, plan), problems)
    software = attempt(lambda: _software(options.stack, cluster), problems)
    counts, ranks, chance = None, tuple[int, ...](), None
    if plan is not None and model is not None:
        problems += plan.obstacles(model)
        if cluster is not None:
            problems += (
                homeless(plan, model)
                if options.cluster is None and run is None
                else misplaced((plan, model), cluster, asked=options, keys=keys)
            )
        counts = _counts(options.micro_batches, plan, model, tuple(stops), problems)
        ranks = _shown(options.ranks, plan, problems)
    if options.jitter is not None:
        chance = options.jitter, options.steps, options.seed
        if stops:
            rule = "a step that halts has no length"
            problems.append(Problem("--jitter", rule, "leave out --crash and --hang, or it"))
    elif options.steps != STEPS:
        problems.append(Problem("--steps", "are for --jitter", "write --jitter 0.05"))
    if options.seed < 0:
        problems.append(Problem("--seed", f"is {options.seed}, below 0", "use 0 or more"))
    if problems or not (plan and model and cluster and software and network):
        raise InputError(dict.fromkeys(problems))
    named, constants = software
    return Request(
        model, plan, cluster, constants, named, tuple(slow), tuple(stops), network, counts, ranks,
        chance, tuple(_typed(options)),
    )  # fmt: skip


def _typed(options: argparse.Namespace) -> Iterator[str]:
    """Give all faults as they were typed."""
    for name in ("slow_rank", "slow_link", "crash", "hang"):
        yield from (f"--{name.replace('_', '-')} {text}" for text in getattr(options, name))


def _counts(
    text: str | None, plan: Plan, model: Model, stops: tuple[Stop, ...], problems: list[Problem]
) -> tuple[int, int] | None:
    """Give how many micro-batches to play, first fewer; None for all."""
    if text is None:
        return None if stops else foldings(plan, blocks=len(model.blocks))
    if text == "all":
        return None
    least, apart = least_played(plan), steady(plan)
    if not text.isdigit() or int(text) < least:
        rule = f"is {text}: a pipeline of {plan.stages} is full and even only after some"
        problems.append(Problem("--micro-batches", rule, f"use {least} or more, or all"))
        return None
    if stops:
        rule = "of a step that halts all are played"
        problems.append(Problem("--micro-batches", rule, "leave it out, or use a smaller batch"))
    count = int(text)
    if count > plan.micro_batches:
        rule = f"is {count:,}, but a step of this plan has {plan.micro_batches:,}"
        remedy = f"use {least} to {plan.micro_batches:,}" if least < plan.micro_batches else "use"
        problems.append(Problem("--micro-batches", rule, f"{remedy}, or all"))
    return (count - apart, count) if count < plan.micro_batches else None


def _shown(texts: list[str] | None, plan: Plan, problems: list[Problem]) -> tuple[int, ...]:
    if texts is None:
        return ()
    found, size = listed(" ".join(texts)), plan.mesh.size
    if not found:
        rule = f"is {' '.join(texts)!r}"
        problems.append(Problem("--ranks", rule, "write ranks, as 0,3,8-15"))
    elif max(found) >= size:
        rule = f"there is no rank {max(found)} of {size}"
        problems.append(Problem("--ranks", rule, f"use 0 to {size - 1}"))
        return ()
    return found


def halts(stops: tuple[Stop, ...], lengths: dict[int, int]) -> Iterator[Halt]:
    """Give the stops as faults.

    Args:
        stops: The stops.
        lengths: How many instructions each of their ranks has.
    """
    for stop in stops:
        length = lengths.get(stop.rank, 0)
        at = int(stop.at * length) if stop.at < 1 else int(stop.at)
        yield Halt(stop.rank, at, "crash" if stop.how == "crash" else "hang")


def _slow_rank(text: str) -> Fault:
    found = _SLOW_RANK.fullmatch(text)
    if found is None:
        raise InputError(Problem("--slow-rank", f"is {text!r}", "write RANKxFACTOR, as 5x1.3"))
    return SlowRank(int(found[1]), float(found[2]))


def _slow_link(text: str) -> Fault:
    found = _SLOW_LINK.fullmatch(text)
    ranks = listed(found[2]) if found else ()
    if found is None or not ranks:
        remedy = "write LEVEL:RANKSxFACTOR, as spine:8-15x4"
        raise InputError(Problem("--slow-link", f"is {text!r}", remedy))
    return SlowLink(ranks, found[1], float(found[3]))


def listed(text: str) -> tuple[int, ...]:
    """Read ``0,3,8-15`` or ``0 3 8-15``; nothing if it is no such text."""
    found: list[int] = []
    for part in re.split(r"[,\s]+", text.strip()):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            return ()
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def _stops(texts: list[str], how: str, problems: list[Problem]) -> Iterator[Stop]:
    for text in texts:
        found = _HALT.fullmatch(text)
        if found is None or (found[3] and int(found[2]) >= 100):
            remedy = "write RANK, RANK@INSTRUCTION or RANK@SHARE%, as 5@40%"
            problems.append(Problem(f"--{how}", f"is {text!r}", remedy))
            continue
        at = int(found[2] or 0)
        yield Stop(int(found[1]), at / 100 if found[3] else float(at), how)


def _network(text: str, seed: int) -> Network:
    found = _NETWORK.fullmatch(text)
    if found is None or (found[2] and found[1] != "hash"):
        known = ", ".join(get_args(Balance))
        remedy = f"use {known}, or hash:flows=4"
        raise InputError(Problem("--network", f"is {text!r}", remedy))
    balance: Balance = next(b for b in get_args(Balance) if b == found[1])
    return Network(balance, int(found[2] or 1), seed)


def _cluster(name: str | None, run: RunDirectory | None, plan: Plan | None) -> Cluster | None:
    if plan is None:
        return None
    if name is not None:
        return devices_of(name, plan)
    if run is not None:
        return cluster_of_run(run, plan)
    return local(devices=plan.mesh.size)


def _software(name: str | None, cluster: Cluster | None) -> tuple[str, Stack] | None:
    if name is not None:
        return name, stack(name)
    if cluster is None:
        return None
    return own_name(cluster), own(cluster)
