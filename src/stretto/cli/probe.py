"""``stretto probe``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stretto.cli.arguments import Parser
from stretto.cli.plans import devices
from stretto.cli.probed import as_json, as_toml, in_words, report
from stretto.cli.say import attempt
from stretto.errors import InputError, MachineError, Problem
from stretto.runtime.environment import check_port, from_environment

if TYPE_CHECKING:
    from stretto.cluster import Sample
    from stretto.runtime.environment import World

BUDGET_S, QUICK_S = 40.0, 8.0
"""How long measuring takes, about; starting and fitting take a few seconds more."""

_DEFAULT = Path("cluster.toml")

_ABOUT = """\
Measures this machine, or the running cluster, and writes it as a cluster's file for
`stretto plan MODEL --cluster FILE`: matrix products by shape and precision, memory bandwidth,
launch latency, every collective by axis and message size, and the bandwidth from each device to
each. The constants of the file are fitted to all of it.

Alone, it starts a rank for each GPU or core. Under torchrun, or under Slurm's srun, it is one rank
of all. Whatever else runs on the machines is measured too: let them rest.
"""

_EXAMPLES = """\
examples:
  stretto probe
  stretto probe --quick --ranks 2 --out here.toml
  torchrun --nproc-per-node 8 -m -- stretto probe --out pod.toml
  srun --nodes 16 --ntasks-per-node 8 stretto probe --out cluster.toml --json > cluster.json
"""


_EACH = 4
"""The most ranks that may share a GPU or core where they are measured."""


def run(arguments: Sequence[str]) -> int:
    """Measure, fit, write the file, and print what was found."""
    parser = _parser()
    options, keys, problems = parser.read(arguments)
    problems += [Problem(key, "there are no keys here", f"see {parser.prog}") for key, _ in keys]
    world = attempt(lambda: from_environment(os.environ), problems)
    if world is not None:
        attempt(lambda: check_port(world, os.environ), problems)
        if options.ranks not in (None, world.size):
            rule = f"{options.ranks} are asked for, but {world.size} were started"
            problems.append(Problem("--ranks", rule, "leave it out"))
    most = _EACH * devices()
    if world is None and options.ranks is not None and options.ranks > most:
        rule = f"{options.ranks} ranks would share {devices()} devices, and measure their waiting"
        problems.append(Problem("--ranks", rule, f"use at most {most}"))
    if world is None or world.rank == 0:
        problems += _refused(options.out)
    if problems:
        raise InputError(problems)
    from stretto.runtime.launch import launch

    out = options.out or _DEFAULT
    budget_s = QUICK_S if options.quick else BUDGET_S
    stopped = launch(
        lambda world: _work(world, out, budget_s=budget_s, as_data=options.json),
        nproc=options.ranks or devices(),
    )
    return 0 if stopped is None else 128 + stopped


def _refused(out: Path | None) -> Iterator[Problem]:
    """Give why a file cannot be written, as far as can be known before there is what to write."""
    path = out or _DEFAULT
    if path.is_dir():
        yield Problem("--out", f"{path} is a directory", "name a file")
    elif not path.parent.is_dir():
        yield Problem("--out", f"there is no directory {path.parent}", "make it, or name another")
    elif out is None and path.exists():
        rule = f"{path} exists, and would be written by default"
        yield Problem("--out", rule, f"say --out {path} to replace it, or name another")


def _work(world: World, out: Path, *, budget_s: float, as_data: bool) -> None:
    """Be a rank; the first one writes and prints what was found.

    Raises:
        MachineError: The file cannot be written; it has been printed instead.
    """
    from stretto.runtime.survey import survey
    from stretto.runtime.surveyed import fitted

    telling = _Telling(budget_s)
    found = survey(world, budget_s=budget_s, tell=telling)
    if world.rank:
        return
    telling.done()
    fit = fitted(found)
    text = as_toml(found, fit)
    lines = [as_json(found, fit, toml=text)] if as_data else [*report(found, fit)]
    print("\n".join(lines), flush=True)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        if not as_data:
            print(f"\n{text}", flush=True)
        rule = f"{out} cannot be written: {error.strerror}"
        raise MachineError(
            Problem("--out", rule, "keep what was printed: it is all there")
        ) from None
    if not as_data:
        print(f"\nwrote {out}; plan with it:  stretto plan MODEL --cluster {out}", flush=True)


class _Telling:
    """Tells on standard error what is measured: on a terminal in one line, elsewhere by kind."""

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._live = sys.stderr.isatty()
        self._told = ""

    def __call__(self, sample: Sample, now_s: float) -> None:
        clock = f"{now_s:4.1f} of about {self._budget_s:.0f} s"
        if self._live:
            print(f"\r{clock}  {in_words(sample)}\x1b[K", end="", file=sys.stderr, flush=True)
        elif sample.kind != self._told:
            print(f"{clock}  {sample.kind.replace('_', '-')} …", file=sys.stderr, flush=True)
        self._told = sample.kind

    def done(self) -> None:
        """Clear the line."""
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; write a whole number of 1 or more")
    return int(text)


def _parser() -> Parser:
    parser = Parser(
        "probe", usage="[--ranks N] [--out FILE] [--quick] [--json]", about=_ABOUT,
        examples=_EXAMPLES,
    )  # fmt: skip
    add = parser.add_argument
    add(
        "--ranks",
        type=_positive,
        metavar="N",
        help="ranks to start here (default: one for each GPU or core)",
    )
    add("--out", type=Path, metavar="FILE", help=f"the file to write (default: {_DEFAULT})")
    add("--quick", action="store_true", help=f"take {QUICK_S:.0f} s instead of {BUDGET_S:.0f}")
    add("--json", action="store_true", help="print all that was found as JSON instead of tables")
    return parser
