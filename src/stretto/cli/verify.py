"""``stretto verify``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from stretto.cli.arguments import Parser
from stretto.cli.plans import in_words
from stretto.cli.subject import subject
from stretto.errors import InputError, Problem

if TYPE_CHECKING:
    from stretto.model import Model
    from stretto.plan import Plan

MOST_RANKS = 16
"""Ranks that are started here at most."""

_ABOUT = """\
Proves that a plan computes what one rank does. The model is shrunk to something that runs here; the
plan is run on as many local ranks as it needs (up to 16), and compared in float64 with one rank and
with the reference on arrays: the loss and every gradient of two optimizer steps. The status is 0
only if every relative difference is below 1e-9.

PLAN is a plan in TOML, or a run; without it, a plan is made of the keys. MODEL is a preset, a
config.json or a directory with one (default: the one that the plan names, else the small one that
is shipped).
"""

_EXAMPLES = """\
examples:
  stretto verify plan.toml
  stretto verify plan.toml qwen3-8b
  stretto verify llama-3-8b dp=2 tp=2 zero=3 memory.recompute=full
  stretto verify --random 60 --seed 1
"""


def run(arguments: Sequence[str]) -> int:
    """Compare plans with one rank; print a line for each."""
    parser = _parser()
    options, keys, problems = parser.read(arguments)
    cases: Iterator[tuple[str, Model, Plan]]
    if options.random is None:
        plan, model = subject(options.words, keys, problems)
        if plan is not None and model is not None:
            problems += (*model.unsupported, *plan.obstacles(model))
            problems += _too_large(plan)
        if problems or plan is None or model is None:
            raise InputError(problems)
        cases = iter([(model.name or "the model", *_shrunk(model, plan))])
    else:
        if options.random < 1:
            problems.append(Problem("--random", f"is {options.random}", "use 1 or more"))
        if problems:
            raise InputError(problems)
        cases = _drawn(options.random, options.seed)
    results = [_compare(name, model, plan, seed=options.seed) for name, model, plan in cases]
    passed = sum(results)
    if len(results) > 1:
        print(f"{passed} of {len(results)} plans compute what one rank does")
    return 0 if passed == len(results) else 1


def _too_large(plan: Plan) -> list[Problem]:
    if plan.mesh.size <= MOST_RANKS:
        return []
    rule = f"{plan.mesh.size} ranks, and at most {MOST_RANKS} are started here"
    return [Problem("mesh", rule, "verify a smaller mesh with the same axes")]


def _shrunk(model: Model, plan: Plan) -> tuple[Model, Plan]:
    from stretto.runtime.parity import shrunk

    return shrunk(model, plan)


def _drawn(count: int, seed: int) -> Iterator[tuple[str, Model, Plan]]:
    from stretto.program.draw import draw

    for number in range(count):
        model, plan = draw(seed + number)
        yield f"seed {seed + number}", model, plan


def _compare(name: str, model: Model, plan: Plan, *, seed: int) -> bool:
    """Compare one plan, print a line, and tell whether it passed."""
    from stretto.runtime.parity import TOLERANCE, check, exact

    passed, parts = True, []
    for other, gap in check(model, plan, seed=seed):
        alike = gap.gradient < TOLERANCE
        passed = passed and alike and gap.loss < TOLERANCE
        where = "" if alike else f" ({gap.parameter})"
        parts.append(f"{other}: loss {gap.loss:.1e}, gradients {gap.gradient:.1e}{where}")
    verdict = "same" if passed else "DIFFERS"
    print(f"{verdict:8}{name}  {'  '.join(parts)}  [{in_words(exact(plan))}]", flush=True)
    return passed


def _parser() -> Parser:
    parser = Parser(
        "verify",
        usage="[PLAN] [MODEL] [key=value …] | --random N [--seed S]",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="PLAN, MODEL, key=value", help="see above")
    add("--random", type=int, metavar="N", help="draw N legal plans, and models to go with them")
    add("--seed", type=int, default=0, metavar="S", help="of what is drawn (default: 0)")
    return parser
