"""``stretto plan``."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from stretto.cli.arguments import Parser
from stretto.cli.plan_files import can_emit, emitted, refusal, refuse_model, save
from stretto.cli.plan_more import more, over_parts
from stretto.cli.plan_request import LONGEST, PRECISIONS, Request, request
from stretto.cli.say import show, table
from stretto.cost import stacks
from stretto.errors import InputError
from stretto.search import (
    KEYS,
    OBJECTIVES,
    TOKENS_PER_PARAMETER,
    Change,
    Found,
    answer,
    nothing,
    rescues,
    search_with_host,
    why_not,
)
from stretto.units import show_seconds

_ABOUT = """\
Finds how to train a model on a cluster: which parallelism, which schedule, what to shard and what
to recompute. Says how long a step takes, whether it fits, what the training costs, which plans come
near and why they lose. Nothing is run, and no device is needed.

MODEL is a preset, a config.json or a directory with one. CLUSTER is an accelerator and a number,
as h100x64, a system, as frontierx1024, or a TOML file. key=value demands a decision of the plan;
with --why-not it asks why the best plan has another.
"""

_KEYS = textwrap.fill(", ".join(KEYS), 98, initial_indent="  ", subsequent_indent="  ")

_EXAMPLES = f"""\
keys, with =, !=, <=, >=, < or > in --constraint:
{_KEYS}

examples:
  stretto plan llama-3-70b --cluster h100x64
  stretto plan llama-3-70b --cluster h100 --devices 64 --batch-tokens 4M --seq 8192 --tokens 15T
  stretto plan my/config.json --cluster frontierx3072 --constraint 'tp<=8' zero=1
  stretto plan llama-3-8b --cluster h100x8 --constraint 'memory<=70GB' --why-not tp=8 zero=0
  stretto plan llama-3-8b --cluster h100x8 runs=true --save plan.toml     for stretto train --plan
  stretto plan llama-3-8b --cluster h100x16 --emit megatron --save plan.toml
"""

_TRAINERS = ("megatron", "torchtitan", "deepspeed", "nanotron")


def run(arguments: Sequence[str]) -> int:
    """Print the best plan and what is worth telling, or why there is none."""
    parser = _parser()
    asked, keys, problems = parser.read(arguments)
    wanted = request(asked, keys, problems)
    return _compared(wanted, asked) if asked.why_not else _planned(wanted, asked)


def _planned(wanted: Request, asked: argparse.Namespace) -> int:
    """Print the best plan, and save and emit it if that is asked for."""
    task, trainer = wanted.task, asked.emit
    if trainer:
        refuse_model(trainer, task)
    found = answer(
        task,
        tokens=wanted.tokens,
        constraints=(*wanted.constraints, *wanted.keys),
        objective=asked.objective,
        top=asked.top,
        accepts=partial(can_emit, trainer, task) if trainer else None,
    )
    if isinstance(found, Found):
        return _only_over_parts(found, wanted, asked)
    told = more(found.found, asked)
    plan = found.best.plan if trainer or told.plan is None else told.plan.plan
    files = dict(emitted(trainer, found.found.task, plan).files) if trainer else {}
    if asked.save:
        save(asked.save, plan, model=asked.model[0], beside=files)
    if asked.json:
        from stretto.report.plan_json import tree

        _print_json({"assumed": wanted.notes, **tree(found), **told.tree, "emitted": files})
        return 0
    from stretto.report.plan import page

    show(page(found, notes=wanted.notes, running=told.running))
    for part in told.pages:
        show(part)
    if asked.save:
        fastest = ", the fastest of these plans" if told.plan and not trainer else ""
        print(f"\nin {asked.save.parent}: {', '.join((asked.save.name, *files))}{fastest}")
    else:
        for name, text in files.items():
            print(f"\n# {name}\n{text}", end="")
    return 0


def _only_over_parts(found: Found, wanted: Request, asked: argparse.Namespace) -> int:
    """Print the plan that fits over unlike devices, where none does if all are the slowest.

    Raises:
        InputError: None does, or it cannot be emitted.
    """
    told = over_parts(found)
    if told.plan is None or asked.emit:
        _give_up(found, asked)
    if asked.save:
        save(asked.save, told.plan.plan, model=asked.model[0], beside={})
    if asked.json:
        _print_json(told.tree)
        return 0
    from stretto.report.plan_head import heading

    show(heading(found, wanted.notes))
    for part in told.pages:
        show(part)
    return 0


def _compared(wanted: Request, asked: argparse.Namespace) -> int:
    """Print why the best plan is not as stated."""
    found = search_with_host(wanted.task, constraints=wanted.constraints, objective=asked.objective)
    if found.best is None:
        _give_up(found, asked)
    why = why_not(wanted.task, wanted.keys)
    if asked.json:
        from stretto.report import plan_json

        _print_json(plan_json.why_not(why, found.best))
        return 0
    from stretto.report.plan import comparison
    from stretto.report.plan_head import heading

    show(heading(found, wanted.notes))
    print()
    if why.problems:
        print("no plan can be so" if why.priced is None else "no plan that is so fits")
        print("\n".join(table(why.problems)))
    if why.priced is not None:
        show(comparison(why.priced, found.best))
    return 0


def _give_up(found: Found, asked: argparse.Namespace) -> NoReturn:
    """Say why no plan will do, and what would help.

    Raises:
        InputError: Always.
    """
    problems, helped = nothing(found), tuple[Change, ...]()
    if problems:
        helped = rescues(found)
    else:  # there are plans, but none that can be emitted
        problems = refusal(asked.emit, found)
    if asked.json:
        from stretto.report import plan_json

        _print_json(plan_json.nothing(found, problems, helped))
    would = [
        f"{c.what} ({show_seconds(c.found.best.step_s)} a step)" for c in helped if c.found.best
    ]
    if would:
        problems = (*problems[:-1], replace(problems[-1], remedy=f"use {', or '.join(would)}"))
    raise InputError(problems)


def _print_json(tree: Mapping[str, Any]) -> None:
    print(json.dumps(tree, indent=2, ensure_ascii=False))


def _parser() -> Parser:
    parser = Parser(
        "plan",
        usage="MODEL --cluster CLUSTER [key=value …] [options]",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("model", nargs="*", metavar="MODEL", help="what is trained")
    add("--cluster", metavar="CLUSTER", help="on what")
    add("--devices", "--gpus", type=int, metavar="N", help="how many, where CLUSTER does not say")
    add("--batch-tokens", metavar="T", help="of a step: 4M, 4Mi, 4194304 (default: about 4Mi)")
    add(
        "--seq", type=int, metavar="N",
        help=f"positions of a sequence (default: the model's, at most {LONGEST})",
    )  # fmt: skip
    add(
        "--tokens", metavar="T",
        help=f"of the whole training: 15T (default: {TOKENS_PER_PARAMETER} for each parameter)",
    )  # fmt: skip
    add(
        "--precision", choices=tuple(PRECISIONS), default="bfloat16", metavar="P",
        help=f"of matrix products: {', '.join(PRECISIONS)} (default: bfloat16)",
    )  # fmt: skip
    add(
        "--objective", choices=OBJECTIVES, default="time", metavar="O",
        help=f"what is best: {', '.join(OBJECTIVES)} (default: time)",
    )  # fmt: skip
    add(
        "--constraint", action="append", default=[], metavar="C",
        help="what the plan must meet: 'tp<=8', 'memory<=70GB'; may be given again",
    )  # fmt: skip
    add(
        "--stack", metavar="NAME",
        help=f"software: {', '.join(stacks.names())} "
        f"(default: {stacks.DEFAULT}; with runs=true ours)",
    )  # fmt: skip
    add(
        "--survivors", nargs="?", type=int, const=0, metavar="N",
        help="what to go on with when nodes fail, down to N devices (default: half)",
    )  # fmt: skip
    add(
        "--layerwise", action="store_true", help="let layers differ in what they run again or shard"
    )
    add(
        "--confirm", nargs="?", type=int, const=3, metavar="N",
        help="simulate the best N plans that run today, instruction by instruction (default: 3)",
    )  # fmt: skip
    add("--why-not", action="store_true", help="compare the best plan with that of key=value …")
    add("--top", type=int, default=3, metavar="N", help="other plans of each sort (default: 3)")
    add(
        "--emit", choices=_TRAINERS, metavar="TRAINER",
        help=f"the best plan that it can be told, as its files: {', '.join(_TRAINERS)}",
    )  # fmt: skip
    add("--save", type=Path, metavar="FILE", help="write the plan; what is emitted, beside it")
    add("--json", action="store_true", help="print all of it as JSON")
    return parser
