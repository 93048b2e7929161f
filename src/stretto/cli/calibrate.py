"""``stretto calibrate``."""

from __future__ import annotations

import datetime
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stretto.cli.arguments import Parser
from stretto.cli.foretold import cluster_of_run
from stretto.cli.rundir import RunDirectory, refusing
from stretto.cli.say import attempt
from stretto.cluster import Cluster, dumps, find
from stretto.errors import InputError, Problem
from stretto.plan import Plan
from stretto.report.metrics import read as read_metrics
from stretto.report.quantities import step

if TYPE_CHECKING:
    from stretto.calibrate import Evidence

_ABOUT = """\
Fits a cluster's constants to what runs recorded (record_every of stretto train), and says what
changed: so the same step, and others there, are predicted better. What the runs tell nothing of
stays as it was.

The cluster is that of --cluster, or else that of the first run. Without --out, what was fitted is
for RUN/cluster.toml, by which the run's steps are predicted. No file is replaced unless --write
says so.
"""

_EXAMPLES = """\
examples:
  stretto calibrate runs/2026-05-01-1200-gpt2
  stretto calibrate runs/2026-05-01-1200-gpt2 --write
  stretto calibrate runs/a runs/b --cluster pod.toml --out pod-calibrated.toml
  stretto train gpt2 --cluster pod-calibrated.toml
"""

RESTLESS = 0.3
"""How far steps are apart on a machine that does other things too."""


def run(arguments: Sequence[str]) -> int:
    """Fit, say what changed, and write the file if that is wanted."""
    parser = _parser()
    options, keys, problems = parser.read(arguments)
    problems += [Problem(k, "there are no keys here", "leave it out") for k, _ in keys]
    homes = [RunDirectory(path) for path in {p.resolve(): p for p in options.runs}.values()]
    if not homes:
        problems.append(Problem("RUN", "is missing", "name a run that train has made"))
    problems += _refused(options.out, write=options.write)
    heard = [one for home in homes if (one := attempt(partial(told, home), problems))]
    cluster = attempt(lambda: _cluster(options.cluster, homes), problems) if homes else None
    if problems or cluster is None:
        raise InputError(dict.fromkeys(problems))
    from stretto.calibrate import calibrate
    from stretto.report.calibrate import lines, tree

    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    names = [str(home.path) for home in homes]
    source = f"calibrated on {day} with {', '.join(home.path.name for home in homes)}"
    found = calibrate(heard, cluster, source=source)
    text = f"# {source}: see docs/calibrate.md.\n{dumps(found.cluster)}"
    out = options.out or homes[0].cluster
    writes = options.write or not out.exists()
    if options.json:
        print(json.dumps(tree(found, names) | {"toml": text}, indent=1, allow_nan=False))
    else:
        print("\n".join([*lines(found, names), *_usual(homes)]), flush=True)
    for name, taken in zip(names, found.steps, strict=True):
        if taken.spread > RESTLESS:
            rule = f"{name}: steps are ± {taken.spread:.0%} apart, and what slowed them is learnt"
            print(f"note: {rule}; let the machine rest, and record again", file=sys.stderr)
    if writes:
        _replace(out, text)
    if not options.json:
        print(f"\n{_written(out, writes=writes)}")
    return 0


def told(home: RunDirectory) -> Evidence:
    """Give what a run recorded under its present plan.

    Raises:
        InputError: It is no run, or recorded nothing under that plan.
    """
    from stretto.calibrate import evidence
    from stretto.program.lower import lower
    from stretto.timeline.recorded import plan_of, read, recorded_steps

    start = home.read()
    program = lower(start.model, start.plan)
    steps = recorded_steps(home.path)
    mine = [s for s in steps if Plan.from_toml(plan_of(home.path, s)) == start.plan]
    if not mine:
        rule = "recorded no step of its present plan" if steps else "has no recorded steps"
        remedy = "train on, for 3 steps or more and with record_every above 0"
        raise InputError(Problem(str(home.path), rule, remedy))
    return evidence(program, [read(home.path, s, program=program).timeline for s in mine])


def _cluster(named: str | None, homes: Sequence[RunDirectory]) -> Cluster | None:
    """Give where to begin, with devices for the ranks of every run, and as the runs had them."""
    ranks = {str(home.path): home.read().plan.mesh.size for home in homes if home.is_one}
    if len(set(ranks.values())) > 1:
        rule = "have " + " and ".join(f"{count}" for count in dict.fromkeys(ranks.values()))
        remedy = "calibrate them apart: a rank of few has more of a machine than one of many"
        raise InputError(Problem("ranks", f"{rule} in the runs that are named", remedy))
    if named is None:  # what is no run says so itself
        return cluster_of_run(homes[0], homes[0].read().plan) if homes[0].is_one else None
    count = max(ranks.values(), default=1)
    return find(named, devices=None if named.endswith(".toml") else count)


def _usual(homes: Sequence[RunDirectory]) -> Iterator[str]:
    """Say what all steps of the runs took, of which few were recorded."""
    for home in homes:
        steps = [r["step_s"] for r in read_metrics(home.metrics) if "step_s" in r]
        if steps:
            middle = step(statistics.median(steps))
            yield f"\n{home.path}: the middle one of all {len(steps):,} steps took {middle}"


def _refused(out: Path | None, *, write: bool) -> Iterator[Problem]:
    """Give why a file cannot be written, as far as can be known before there is what to write."""
    if out is None:
        return
    if out.is_dir():
        yield Problem("--out", f"{out} is a directory", "name a file")
    elif not out.parent.is_dir():
        yield Problem("--out", f"there is no directory {out.parent}", "make it, or name another")
    elif out.exists() and not write:
        remedy = "say --write to replace it, or name another"
        yield Problem("--out", f"{out} exists already", remedy)


def _replace(out: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    growing = out.with_name(f".{out.name}.{os.getpid()}")
    with refusing(out):
        try:
            growing.write_text(text, encoding="utf-8")
            os.replace(growing, out)
        finally:
            growing.unlink(missing_ok=True)


def _written(out: Path, *, writes: bool) -> str:
    if writes:
        return f"wrote {out}; predict with it:  stretto train … --cluster {out}"
    return f"nothing was written: --write replaces {out}, and --out names another file"


def _parser() -> Parser:
    parser = Parser(
        "calibrate",
        usage="RUN … [--cluster NAME|FILE] [--out FILE] [--write] [--json]",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("runs", nargs="*", type=Path, metavar="RUN", help="runs of equally many ranks")
    add(
        "--cluster",
        metavar="NAME",
        help="a preset or a file from which to begin (default: that of the first run)",
    )
    add("--out", type=Path, metavar="FILE", help="the file to write (default: RUN/cluster.toml)")
    add("--write", action="store_true", help="replace the file if there is one")
    add("--json", action="store_true", help="print all that was found as JSON")
    return parser
