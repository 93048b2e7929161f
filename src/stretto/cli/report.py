"""``stretto report``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stretto.cli.arguments import Pairs, Parser
from stretto.cli.rundir import RunDirectory, refusing
from stretto.cli.say import attempt
from stretto.cli.software import SOFTWARE, software
from stretto.cli.subject import assumed, homeless, misplaced, mistaken, subject
from stretto.cluster import Cluster, find, local
from stretto.errors import InputError, Problem, StrettoError
from stretto.page.standing import wrote

if TYPE_CHECKING:
    from stretto.page.metrics import Metrics
    from stretto.page.subject import Subject

_ABOUT = """\
Writes a page that shows a run or a plan: where every rank runs and what it holds, the step on a
clock, memory, curves, and other plans. It is one file, needs no network, and can be mailed.

RUN is the directory of a run; further ones are drawn beside it. A directory of runs stands for all
of them, the one that wrote last first. PLAN and MODEL are as for stretto show. stretto ui serves
the same page live.
"""

_EXAMPLES = """\
examples:
  stretto report runs/2026-05-01-120000-stretto-1m
  stretto report runs/a runs/b --out both.html
  stretto report runs
  stretto report plan.toml --cluster h100x64
  stretto report gpt2 dp=4 tp=2 --cluster h100x8 --out gpt2.html
"""

_STAGES = 3  # that are told where nobody watches
_LATEST = 8  # recorded steps that a page may read
_STEP_BYTES = 64 * 2**20  # of metrics, after which there is word of how far it is


def run(arguments: Sequence[str]) -> int:
    """Write the page; print where it is, and the verdict."""
    options, keys, problems = _parser().read(arguments)
    problems += _out_problems(options.out)
    from stretto.page.head import finding, verdict
    from stretto.page.html import html

    named = {word: _named(Path(word)) for word in options.words}
    cluster, say = None, _Saying()
    if options.cluster:
        cluster = attempt(lambda: find(options.cluster), problems)
    if options.words and named[options.words[0]]:
        rule = "a run has a plan of its own"
        problems += [Problem(key, rule, "leave it out") for key, _ in keys]
        notes: tuple[str, ...] = ()
        shown = _run(named, options, cluster, problems, say)
        out = options.out or Path(options.words[0]) / "report.html"
    else:
        shown = _plan(options, keys, cluster, problems, say)
        notes = assumed(options.words, keys, shown.plan)
        out = options.out or Path(f"{shown.title}.html")
    page = html(shown, progress=say)
    say.done()
    with refusing(out):
        out.write_text(page, encoding="utf-8")
    if notes:
        print(f"assumed: {'; '.join(notes)}")
    print(f"{verdict(shown, finding(shown))}\nthe page is in {out}")
    return 0


def _out_problems(out: Path | None) -> Iterator[Problem]:
    """Give what keeps a page from being written, before work is done for it."""
    if out is not None and out.is_dir():
        yield Problem(str(out), "is a directory", "name a file in it")
    elif out is not None and not out.parent.is_dir():
        yield Problem(str(out), f"there is no directory {out.parent}", "make it first")


def _named(path: Path) -> list[Path]:
    """Give the run at a path, or those in a directory of runs, the one that wrote last first."""
    if RunDirectory(path).is_one:
        return [path]
    found = path.iterdir() if path.is_dir() else ()
    return sorted((one for one in found if RunDirectory(one).is_one), key=wrote, reverse=True)


def _run(
    named: Mapping[str, Sequence[Path]],
    options: argparse.Namespace,
    cluster: Cluster | None,
    problems: list[Problem],
    say: _Saying,
) -> Subject:
    """Give the first run with the others beside it.

    Raises:
        InputError: All that is wrong.
    """
    from stretto.cli.shown import of_run
    from stretto.page.metrics import Metrics

    problems += [
        mistaken(word)
        or Problem(word, "is no run: it has no recipe.toml", "name directories that train has made")
        for word, found in named.items()
        if not found
    ]
    if options.stack:
        problems.append(Problem("--stack", "a run has its own", "leave it out"))
    if problems:
        raise InputError(problems)
    runs = [*{path.resolve(): path for found in named.values() for path in found}.values()]
    beside = {path.resolve().name: Metrics(RunDirectory(path).metrics) for path in runs[1:]}
    found = of_run(runs[0], cluster=cluster, others=tuple(beside.items()))
    assert found.metrics is not None, "it is a run"
    beside.pop(found.title, None)
    for name, metrics in ((found.title, found.metrics), *beside.items()):
        _read(name, metrics, say)
    _damaged(found)
    rivals = []
    for path in runs[1:]:
        with contextlib.suppress(StrettoError):  # one that cannot be priced still has its curves
            rivals.append(of_run(path, cluster=cluster))
    names = tuple(beside)
    return replace(found, others=tuple(beside.items()), beside=names, rivals=tuple(rivals))


def _plan(
    options: argparse.Namespace,
    keys: Pairs,
    cluster: Cluster | None,
    problems: list[Problem],
    say: _Saying,
) -> Subject:
    """Give a plan on a cluster.

    Raises:
        InputError: All that is wrong.
    """
    from stretto.cli.shown import Where, of_plan

    plan, model = subject(options.words, keys, problems)
    here = cluster or (local(devices=plan.mesh.size) if plan is not None else None)
    with_what = attempt(
        lambda: software(options.stack, plan=plan, model=model, cluster=here), problems
    )
    if plan is not None and model is not None and here is not None:
        problems += (
            misplaced((plan, model), here, asked=options, keys=keys)
            if cluster
            else homeless(plan, model)
        )
    if problems or plan is None or model is None or here is None or with_what is None:
        raise InputError(problems)
    name, constants = with_what
    first = Path(options.words[0]) if options.words else Path()
    title = first.stem if first.suffix == ".toml" else model.name or "plan"
    return of_plan(title, model, plan, where=Where(here, constants, name), say=say)


def _read(name: str, metrics: Metrics, say: _Saying) -> None:
    """Read the metrics of a run, and say how far that is where it takes long."""
    told = 0.0
    while metrics.advance():
        table = metrics.table()
        if (table.share - told) * metrics.path.stat().st_size > _STEP_BYTES:
            told = table.share
            say(f"reading {name}: {told:.0%}, {table.rows:,} steps")


def _damaged(shown: Subject) -> None:
    """Say which recorded steps cannot be read; the page has the others."""
    from stretto.timeline.track import files, load, recorded_steps

    assert shown.run is not None, "it is a run"
    for step in recorded_steps(shown.run)[-_LATEST:]:
        for file in files(shown.run, step).values():
            try:
                load(file)
            except InputError as error:
                for problem in error.problems:
                    print(f"note: {problem.field}: {problem.rule}; left out", file=sys.stderr)


class _Saying:
    """Says what is done: on a terminal in one line, else few lines."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text} …", end="", file=sys.stderr, flush=True)
            return
        # Sections and recorded steps are of one stage: the page.
        stage = text if text.startswith(("lowering", "playing", "reading ")) else "drawing the page"
        stage = "drawing the page" if text == "reading recorded steps" else stage
        if stage not in self._said and len(self._said) < _STAGES:
            self._said.add(stage)
            print(stage, file=sys.stderr, flush=True)

    def done(self) -> None:
        """Leave no line behind on a terminal."""
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _parser() -> Parser:
    parser = Parser(
        "report",
        usage="RUN … | [PLAN] [MODEL] [key=value …] [--cluster C] [--stack S] [--out FILE]",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="RUN, PLAN, MODEL, key=value", help="what to show: see above")
    add(
        "--cluster",
        metavar="C",
        help="where it runs: NAMExDEVICES or a file (default: what the run says, or this machine)",
    )
    add("--stack", metavar="S", help=SOFTWARE)
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to write (default: report.html in the first RUN, or NAME.html of a plan)",
    )
    return parser
