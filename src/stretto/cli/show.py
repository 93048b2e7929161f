"""``stretto show``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from stretto.cli.arguments import Parser
from stretto.cli.plans import in_words
from stretto.cli.subject import assumed, model_word, subject
from stretto.errors import InputError, Problem
from stretto.model import Model
from stretto.presets import PRESETS
from stretto.program.cut import block_cost
from stretto.program.instruction import Program
from stretto.program.lower import lower
from stretto.program.memory import memory
from stretto.program.render import lines, summary
from stretto.schedule import SCHEDULES, grid
from stretto.units import show_bytes, show_count

_ABOUT = """\
Checks a plan for a model, and shows what it makes of it: the schedule, the stages, and the program
that each rank runs. Nothing is run, and no device is needed.

PLAN is a plan in TOML, or a run; without it, a plan is made of the keys. MODEL is a preset, a
config.json or a directory with one (default: the one that the plan names, else the small one that
is shipped).
"""

_PRESETS = textwrap.fill(
    ", ".join(PRESETS), 98, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
)

_EXAMPLES = f"""\
presets:
{_PRESETS}

examples:
  stretto show plan.toml
  stretto show gpt2 pp=4 dp=2 zero=1 batch.sequences=64 batch.micro_batch=4
  stretto show gpt2 tp=2 --program --stage 0
  stretto show gpt2 dp=8 zero=3 --toml > plan.toml
"""

_MOST_MICRO_BATCHES = 32  # of which a grid is drawn


def run(arguments: Sequence[str]) -> int:
    """Print a plan's program, or what is wrong with the plan."""
    parser = _parser()
    options, keys, problems = parser.read(arguments)
    plan, model = subject(options.words, keys, problems)
    if plan is not None and model is not None:
        problems += plan.check(model) if options.toml else plan.obstacles(model)
        if options.stage is not None and options.stage not in range(plan.stages):
            rule = f"there is no stage {options.stage}: the plan has {plan.stages}"
            remedy = f"choose from 0 to {plan.stages - 1}" if plan.stages > 1 else "leave it out"
            problems.append(Problem("--stage", rule, remedy))
    if problems or plan is None or model is None:
        raise InputError(problems)
    if options.toml:
        print(plan.to_toml(model=model_word(options.words, file=Path())), end="")
        return 0
    print(f"model  {_of(model)}")
    print(f"plan   {in_words(plan)}")
    if notes := assumed(options.words, keys, plan):
        print(f"assumed: {'; '.join(notes)}")
    print()
    if model.mtp_layers:
        print("a program that predicts several tokens is not made yet")
        return 0
    program = lower(model, plan)
    stages = range(plan.stages) if options.stage is None else (options.stage,)
    print("\n".join((*_grid(program), *_table(program))))
    for stage in stages:
        print("\n" + "\n".join(summary(program, stage)))
        if options.program:
            print("\n".join(lines(program, stage)))
    if not options.program:
        print(f"\n{parser.prog} … --program prints all instructions")
    return 0


def _of(model: Model) -> str:
    """Give a model's name and parameters, and what it cannot do here."""
    count, active = model.parameter_count, model.active_parameter_count
    passed = f", of which a token passes {show_count(active)}" if active < count else ""
    return f"{model.name}: {show_count(count)} parameters{passed}" + "".join(
        f"\n       {problem.rule}" for problem in model.unsupported
    )


def _grid(program: Program) -> Iterator[str]:
    plan = program.plan
    if plan.stages == 1:
        return
    if plan.micro_batches > _MOST_MICRO_BATCHES:
        yield f"{plan.micro_batches} micro-batches: too many to draw\n"
        return
    yield grid(SCHEDULES[plan.pipeline.schedule](plan.stages, plan.micro_batches))
    yield ""


def _table(program: Program) -> Iterator[str]:
    """Give a line for each stage: its blocks, its share of the work, and what a rank holds."""
    costs = [
        block_cost(program.model, block, positions=program.plan.batch.seq)
        for block in program.chain
    ]
    yield "stage     blocks    work  instructions     at rest     at most"
    for stage in program.stages:
        first, stop = stage.blocks
        share = sum(costs[first:stop]) / sum(costs)
        held = memory(stage, program.placement)
        yield (
            f"{stage.stage:>5}  {f'{first}–{stop - 1}':>9}  {share:>6.1%}  "
            f"{len(stage.instructions):>12}  {show_bytes(held.resting_bytes):>10}  "
            f"{show_bytes(held.peak_bytes):>10}"
        )


def _parser() -> Parser:
    parser = Parser(
        "show",
        usage="[PLAN] [MODEL] [key=value …] [--stage N] [--program] [--toml]",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="PLAN, MODEL, key=value", help="see above")
    add("--stage", type=int, metavar="N", help="show this stage only")
    add("--program", action="store_true", help="print every instruction")
    add("--toml", action="store_true", help="print the plan as TOML, and nothing else")
    return parser
