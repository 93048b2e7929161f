"""``stretto trace``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stretto.cli.arguments import Parser
from stretto.cli.foretold import cluster_of_run, foretold
from stretto.cli.rundir import RunDirectory, Start, refusing
from stretto.cli.say import wrapped
from stretto.cli.simulate_request import listed
from stretto.errors import InputError, Problem
from stretto.plan import Plan
from stretto.program.instruction import Program
from stretto.program.lower import lower
from stretto.report.step import step_lines
from stretto.timeline.chrome import PREDICTED, document, events
from stretto.timeline.memory import MemoryCurve, curve
from stretto.timeline.recorded import Recording, plan_of, read, recorded_steps

_ABOUT = """\
Shows when each rank did what in the steps of a run that were recorded, as every 50th is (see
record_every of stretto train): in words, and in a file for https://ui.perfetto.dev, which draws it
without sending it anywhere.
"""

_EXAMPLES = """\
examples:
  stretto trace runs/2026-05-01-1200-gpt2
  stretto trace runs/2026-05-01-1200-gpt2 --step 1000 --predicted --out step-1000.json
  stretto trace runs/2026-05-01-1200-gpt2 --ranks 0,8-15
"""

_GAP = 0.02  # between two steps that follow each other, of the former


@dataclass(frozen=True, slots=True)
class Traced:
    """A step of a run, and what its ranks did.

    Attributes:
        recording: The step.
        program: Of the plan under which it was recorded.
    """

    recording: Recording
    program: Program


def run(arguments: Sequence[str]) -> int:
    """Print what a recorded step was spent on, and write a file for Perfetto."""
    parser = _parser()
    options, keys, problems = parser.read(arguments)
    problems += [Problem(k, "there are no keys here", "leave it out") for k, _ in keys]
    if problems:
        raise InputError(problems)
    home = RunDirectory(options.run)
    start = home.read()
    steps = recorded_steps(home.path) if options.step is None else (options.step,)
    if not steps:
        raise InputError(_nothing(home))
    out = options.out or home.trace
    ranks = _shown(options.ranks)
    last = write_trace(home, start, steps, out=out, ranks=ranks, above=options.predicted)
    print("\n".join(wrapped(_words(last, ranks))))
    print(f"\n{_written(steps, out)}")
    return 0


def write_trace(
    home: RunDirectory,
    start: Start,
    steps: Sequence[int],
    *,
    out: Path,
    ranks: Sequence[int] = (),
    above: bool = False,
) -> Traced:
    """Write recorded steps for Perfetto, one after the other; give the last.

    Args:
        home: The run.
        start: What decides it.
        steps: Which steps, at least one.
        out: Where to.
        ranks: Whom to draw; none for all. All are read, for ranks wait for each other.
        above: Whether to draw a step as it was foretold above the first.

    Raises:
        InputError: A step was not recorded, or cannot be read.
        MachineError: The disk refuses.
    """
    program_of = cache(lambda plan: lower(start.model, Plan.from_toml(plan)))
    found: list[Traced] = []

    def told() -> Iterator[str]:
        at_s = 0.0
        for step in steps:
            program = program_of(plan_of(home.path, step))
            found[:] = [Traced(read(home.path, step, program=program), program)]
            _there(found[0], ranks)
            yield from _events(found[0], at_s=at_s, ranks=ranks)
            at_s += found[0].recording.timeline.step_s * (1 + _GAP)
        if above:
            yield from _foretold(home, start)

    growing = out.with_name(f".{out.name}.{os.getpid()}")
    with refusing(out):
        try:
            with growing.open("w", encoding="utf-8") as file:
                file.writelines(document(told()))
            os.replace(growing, out)
        finally:
            growing.unlink(missing_ok=True)
    return found[0]


def _there(traced: Traced, ranks: Sequence[int]) -> None:
    """Refuse ranks of which there is no recording."""
    known = [rank for alike in traced.recording.timeline.alike for rank in alike]
    missing = sorted({*ranks} - {*known})
    if missing:
        named = ", ".join(map(str, missing))
        rule = f"of step {traced.recording.step} there is no recording by rank {named}"
        raise InputError(Problem("--ranks", rule, f"choose from {min(known)} to {max(known)}"))


def _events(traced: Traced, *, at_s: float, ranks: Sequence[int]) -> Iterator[str]:
    recording = traced.recording
    return events(
        recording.timeline,
        traced.program,
        name="measured",
        title=f"step {recording.step}",
        at_s=at_s,
        memory=_held(traced, ranks),
        ranks=ranks or None,
    )


def _held(traced: Traced, ranks: Sequence[int]) -> dict[int, MemoryCurve]:
    """Give what ranks hold over a step, by player."""
    line, measured = traced.recording.timeline, traced.recording.memory_bytes
    players = [p for p, (rank, *_) in enumerate(line.alike) if not ranks or rank in ranks]
    return {p: curve(line, traced.program, p, measured_bytes=measured) for p in players}


def _foretold(home: RunDirectory, start: Start) -> Iterator[str]:
    told = foretold(start, cluster_of_run(home, start.plan))
    held = [curve(told.timeline, told.program, p) for p in range(len(told.timeline.alike))]
    return events(told.timeline, told.program, name="predicted", first=PREDICTED, memory=held)


def _words(traced: Traced, ranks: Sequence[int]) -> Iterator[str]:
    recording = traced.recording
    yield f"step {recording.step}, as it was recorded:"
    held = _held(traced, ranks)
    yield from step_lines(recording.timeline, traced.program, memory=held, ranks=ranks)


def written(home: RunDirectory, start: Start, out: Path) -> str:
    """Write all that was recorded of a run; give a line that says so.

    Raises:
        MachineError: The disk refuses.
    """
    steps = recorded_steps(home.path)
    if not steps:
        return "no step was recorded, so there is no trace"
    write_trace(home, start, steps, out=out)
    return _written(steps, out)


def _written(steps: Sequence[int], out: Path) -> str:
    what = f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} recorded steps"
    return f"{what} for https://ui.perfetto.dev in {out}"


def _nothing(home: RunDirectory) -> Problem:
    rule = "no step was recorded: the third is the first, then every record_every-th"
    return Problem(str(home.path), rule, "train for more steps, or with record_every above 0")


def _parser() -> Parser:
    parser = Parser(
        "trace",
        usage="RUN [--step N] [--predicted] [--ranks R] [--out FILE]",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a run")
    add("--step", type=int, metavar="N", help="only this one (default: all that were recorded)")
    add("--predicted", action="store_true", help="draw the step as it was foretold beside them")
    add("--ranks", nargs="+", metavar="R", help="draw and tell of these only: 0,3,8-15")
    add("--out", type=Path, metavar="FILE", help="where to write (default: RUN/trace.json)")
    return parser


def _shown(texts: Sequence[str] | None) -> tuple[int, ...]:
    """Read the ranks that are asked for; none for all.

    Raises:
        InputError: They are no ranks.
    """
    if texts is None:
        return ()
    found = listed(" ".join(texts))
    if not found:
        raise InputError(Problem("--ranks", f"is {' '.join(texts)!r}", "write ranks, as 0,3,8-15"))
    return found
