"""``stretto simulate``."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, overload

from stretto.cli.arguments import Parser
from stretto.cli.plans import in_words
from stretto.cli.rundir import refusing
from stretto.cli.say import show, wrapped
from stretto.cli.simulate_request import STEPS, Request, halts, request
from stretto.cli.subject import assumed
from stretto.cost import cost
from stretto.cost.stacks import OWN, names
from stretto.errors import InputError, Problem
from stretto.program.lower import lower
from stretto.report import simulate as simulated
from stretto.report.quantities import step
from stretto.report.simulate_fit import fullest, misfit
from stretto.report.simulate_svg import picture
from stretto.report.step import step_lines
from stretto.simulate import Fault
from stretto.simulate.fold import Folded, Played, fold, played
from stretto.simulate.jitter import Jitter, jittered
from stretto.simulate.simulate import uncollected
from stretto.simulate.stop import stopped
from stretto.timeline.chrome import PREDICTED, Mark, chrome
from stretto.timeline.memory import MemoryCurve, curve
from stretto.units import show_count

if TYPE_CHECKING:
    from stretto.simulate.energy import Frontier

_ABOUT = """\
Plays a step of a plan on a cluster, instruction by instruction: every rank's list as stretto train
runs it, on devices and links that are shared, with what is slow or breaks. Says where the time of
each kind of rank goes, what the step's length is made of, and what fills the memory. Nothing runs.

PLAN is a plan in TOML, or a run; without it, a plan is made of the keys. MODEL is a preset, a
config.json or a directory with one (default: the one that the plan names, else the small one that
is shipped).
"""

_EXAMPLES = """\
examples:
  stretto simulate plan.toml --cluster h100x64
  stretto simulate gpt2 pp=4 dp=2 batch.sequences=64 --cluster h100x8 --trace step.json
  stretto simulate plan.toml --cluster h100x64 --slow-rank 5x1.3
  stretto simulate plan.toml --cluster h100x64 --slow-link spine:8-15x4 --crash 3@40%
  stretto simulate plan.toml --cluster dgx-h100x512 --network hash:flows=4
  stretto simulate plan.toml --cluster h100x64 --jitter 0.05 --steps 50
  stretto simulate plan.toml --cluster h100x64 --energy
"""

_WRONG = (
    ("slow-rank", "RxF", "5x1.3: rank 5 takes 1.3 times as long"),
    ("slow-link", "L:RxF", "spine:8-15x4: these ranks' links into a level carry a quarter"),
    (
        "crash",
        "R[@I]",
        "3@40%%: rank 3 dies before that share of its instructions, and what it sends "
        "is lost; without @ before its first",
    ),
    (
        "hang",
        "R[@I]",
        "3@120: rank 3 stops before its instruction 120, and what it had sent arrives",
    ),
)


def run(arguments: Sequence[str]) -> int:
    """Print what a step takes, played."""
    options, keys, problems = _parser().read(arguments)
    problems += [*_out_problems("--trace", options.trace), *_out_problems("--svg", options.svg)]
    asked = request(options, keys, problems)
    with _as_typed(asked, options):
        told, faults = _told(asked)
    program, line, held = told.folded.most.program, told.folded.line, told.memory
    if options.trace is not None:
        with refusing(options.trace), options.trace.open("w", encoding="utf-8") as file:
            file.writelines(
                chrome(
                    line, program, name="predicted", first=PREDICTED, memory=held,
                    marks=_marks(told),
                )
            )  # fmt: skip
    if options.svg is not None:
        drawn = picture(line, program, title=_title(asked, told), stopped=told.stopped)
        with refusing(options.svg):
            options.svg.write_text(drawn, encoding="utf-8")
    spent = _energy(asked, told, faults) if options.energy else None
    if options.json:
        tree = simulated.tree(told)
        if spent is not None:
            from stretto.report.energy import energy_json

            tree["energy"] = energy_json(spent)
        print(json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    print("\n".join(wrapped(_lines(asked, told))))
    if spent is not None:
        from stretto.report.energy import energy_page

        print()
        show(energy_page(spent))
    after = [*wrapped(simulated.speed(told))]
    if notes := assumed(options.words, keys, asked.plan):
        after += wrapped([f"assumed: {'; '.join(notes)}"])
    if options.trace is not None:
        after.append(
            f"{_drawn(told.folded, 'the step')} for https://ui.perfetto.dev in {options.trace}"
        )
    if options.svg is not None:
        after.append(f"drawn in {options.svg}")
    if after:
        print("", *after, sep="\n")
    return 0


@contextlib.contextmanager
def _as_typed(asked: Request, options: argparse.Namespace) -> Iterator[None]:
    """Let what is wrong with a step name the options as they were typed."""
    names = {"mesh": "--cluster", "network": "--network", "seed": f"--seed {options.seed}",
             "jitter": f"--jitter {options.jitter}", "steps": f"--steps {options.steps}",
             "network.flows": f"--network {options.network}"}  # fmt: skip
    names |= {f"faults.{i}": typed for i, typed in enumerate(asked.typed)}
    try:
        yield
    except InputError as error:
        raise InputError(
            replace(problem, field=names.get(problem.field, problem.field))
            for problem in error.problems
        ) from None


def _title(asked: Request, told: simulated.Told) -> str:
    """Give what stands above the picture of a step."""
    name = asked.model.name or "a model"
    if told.folded.line.finished:
        return f"{name}, {_drawn(told.folded, 'a step')} of {step(told.step_s)}"
    ends = [
        f"rank {one.rank} {one.verb} after {step(one.at_s)}"
        for one in told.stopped
        if one.at_s is not None
    ]
    return f"{name}, a step that does not end: {', '.join(ends)}"


def _drawn(folded: Folded, whole: str) -> str:
    """Give what of a step a picture or a trace has; `whole` is how it is called."""
    if folded.fewer is None:
        return whole
    return f"{folded.most.micro_batches} of {folded.micro_batches:,} micro-batches of {whole}"


def _marks(told: simulated.Told) -> list[Mark]:
    """Give the moments at which ranks stop."""
    return [
        (one.rank, one.at_s, f"rank {one.rank} {one.verb} before {one.name}")
        for one in told.stopped
        if one.at_s is not None
    ]


def _told(asked: Request) -> tuple[simulated.Told, tuple[Fault, ...]]:
    """Play what is asked for, and give what there is to tell of it, and the faults."""
    faults, say = asked.slow, f"playing a step on {show_count(asked.plan.mesh.size)} ranks"
    if asked.counts is not None:
        fewer, more = asked.counts
        _say(f"{say}, with {fewer} and {more} micro-batches")
        folded = fold(
            asked.model, asked.plan, asked.cluster, stack=asked.stack, faults=faults,
            network=asked.network, counts=asked.counts,
        )  # fmt: skip
    else:
        _say("lowering the plan to a program")
        with uncollected():
            program = lower(asked.model, asked.plan)
        at = {stop.rank: stop.rank % asked.plan.mesh.size for stop in asked.stops}
        lengths = {rank: len(program.of(there).instructions) for rank, there in at.items()}
        faults = (*faults, *halts(asked.stops, lengths))
        _say(say)
        whole = played(
            program, asked.cluster, stack=asked.stack, faults=faults, network=asked.network
        )
        folded = Folded(asked.plan.micro_batches, whole)
    chance = _chance(asked, folded, faults) if asked.chance else None
    estimate = cost(asked.model, asked.plan, cluster=asked.cluster, stack=asked.stack)
    memory, most = _Curves(folded.most), folded.most
    need = fullest(folded, asked.cluster, memory=memory)
    stops = stopped(most.line, most.program, faults=faults)
    return simulated.Told(folded, estimate, memory, chance, need, len(faults), stops), faults


class _Curves(Sequence[MemoryCurve]):
    """What the ranks that were played hold over the step, each found when it is asked for."""

    def __init__(self, it: Played) -> None:
        self._played = it
        self._one = cache(lambda player: curve(it.line, it.program, player))

    def __len__(self) -> int:
        return len(self._played.line.alike)

    @overload
    def __getitem__(self, player: int) -> MemoryCurve: ...

    @overload
    def __getitem__(self, player: slice) -> Sequence[MemoryCurve]: ...

    def __getitem__(self, player: int | slice) -> MemoryCurve | Sequence[MemoryCurve]:
        if isinstance(player, slice):
            return [self[i] for i in range(*player.indices(len(self)))]
        if not 0 <= player < len(self):
            raise IndexError(player)
        return self._one(player)


def _chance(asked: Request, folded: Folded, faults: Sequence[Fault]) -> Jitter:
    """Play the step again and again, with tasks that take more or less time by chance."""
    assert asked.chance is not None, "it is asked for"
    sigma, steps, seed = asked.chance
    _say(f"playing {steps} steps with chance, every rank by itself")
    some = folded.fewer or folded.most
    return jittered(
        some.program, asked.cluster, stack=asked.stack, sigma=sigma, steps=steps, seed=seed,
        faults=faults, network=asked.network,
    )  # fmt: skip


def _energy(asked: Request, told: simulated.Told, faults: Sequence[Fault]) -> Frontier:
    """Give the frontier of the step that is told, in proportion to what was played of it."""
    from stretto.simulate.energy import drawn_j, frontier

    _say("finding clocks that take less energy")
    folded = told.folded
    most = frontier(folded.most.program, asked.cluster, stack=asked.stack, faults=faults)
    whole_j = most.full_j
    if folded.fewer is not None:
        fewer_j = drawn_j(folded.fewer.program, asked.cluster, stack=asked.stack, faults=faults)
        whole_j = folded.parts({"j": whole_j}, {"j": fewer_j})["j"]
    return most.of_whole(step_s=told.step_s, energy_j=whole_j)


def _lines(asked: Request, told: simulated.Told) -> Iterator[str]:
    plan, line = asked.plan, told.folded.line
    yield f"{asked.model.name or 'the model'} on {asked.cluster.name}, {asked.software} software"
    yield in_words(plan)
    if told.need is not None and not told.need.fits:
        yield misfit(told.need)
    yield ""
    if line.finished:
        yield from simulated.head(told)
        yield ""
    yield from step_lines(
        line,
        told.folded.most.program,
        memory=told.memory,
        folded=told.folded,
        ranks=asked.ranks,
        stopped=told.stopped,
    )
    if not line.finished:
        yield simulated.blame(line, told.stopped)


def _out_problems(option: str, out: Path | None) -> Iterator[Problem]:
    """Give what keeps a file from being written, before work is done for it."""
    if out is not None and not out.parent.is_dir():
        yield Problem(option, f"there is no directory {out.parent}", "make it first")


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text} …", end="", file=sys.stderr, flush=True)


def _parser() -> Parser:
    parser = Parser(
        "simulate",
        usage="[PLAN] [MODEL] [key=value …] [--cluster C] [options]",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="PLAN, MODEL, key=value", help="see above")
    add(
        "--cluster", metavar="C",
        help="where: h100x64, a TOML file (default: what a run says, or this machine)",
    )  # fmt: skip
    add(
        "--stack", metavar="NAME",
        help=f"software: {', '.join(names())} (default: ours, {OWN})",
    )  # fmt: skip
    for name, shape, what in _WRONG:
        add(f"--{name}", action="append", default=[], metavar=shape, help=what)
    add(
        "--network", default="fair", metavar="N",
        help="between switches: fair, hash[:flows=K], spray, planned (default: fair)",
    )  # fmt: skip
    add(
        "--micro-batches", metavar="N",
        help="play only N, or all (default: some where there are very many)",
    )  # fmt: skip
    add(
        "--jitter", type=float, metavar="S",
        help="tasks take by chance more or less, log-normal: 0.05 for 5 %%; every rank is played",
    )  # fmt: skip
    add("--steps", type=int, default=STEPS, metavar="N", help=f"with --jitter (default: {STEPS})")
    add("--seed", type=int, default=0, metavar="N", help="of chance, from 0 on")
    add("--ranks", nargs="+", metavar="R", help="tell of these only: 0,3,8-15")
    add("--energy", action="store_true", help="also what slower clocks would save")
    add("--trace", type=Path, metavar="FILE", help="write the step for Perfetto")
    add("--svg", type=Path, metavar="FILE", help="draw the step")
    add("--json", action="store_true", help="print it as JSON")
    return parser
