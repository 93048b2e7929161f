"""``stretto simulate``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stretto.cli.arguments import Parser
from stretto.cli.plans import in_words
from stretto.cli.rundir import refusing
from stretto.cli.simulate_request import Request, halts, request
from stretto.cost import cost
from stretto.cost.stacks import DEFAULT, names
from stretto.errors import Problem
from stretto.program.instruction import Program
from stretto.program.lower import lower
from stretto.report.quantities import change, step
from stretto.report.step import step_lines
from stretto.simulate import simulate
from stretto.timeline import Timeline, usages
from stretto.timeline.chrome import chrome
from stretto.timeline.memory import MemoryCurve, curve
from stretto.units import show_count

_ABOUT = """\
Plays a step of a plan on a cluster, instruction by instruction: every rank's list as stretto train
runs it, on devices and links that are shared, with what is slow or breaks. Says where the time of
each kind of rank goes, what the step's length is made of, and what fills the memory. Nothing runs.

PLAN is a plan in TOML, or a run; without it, a plan is made of the keys. MODEL is a preset, a
config.json or a directory with one.
"""

_EXAMPLES = """\
examples:
  stretto simulate plan.toml llama-3-8b --cluster h100x64
  stretto simulate gpt2 pp=4 dp=2 batch.sequences=64 --cluster h100x8 --trace step.json
  stretto simulate plan.toml llama-3-8b --cluster h100x64 --slow-rank 5x1.3
  stretto simulate plan.toml llama-3-8b --cluster h100x64 --slow-link spine:8-15x4 --crash 3@40%
  stretto simulate plan.toml llama-3-70b --cluster dgx-h100x512 --network hash:flows=4
  stretto simulate plan.toml llama-3-70b --cluster h100x64 --energy
"""

_WRONG = (
    ("slow-rank", "RxF", "5x1.3: rank 5 takes 1.3 times as long"),
    ("slow-link", "L:RxF", "spine:8-15x4: these ranks' links into a level carry a quarter"),
    ("crash", "R[@I]", "3@40%%: rank 3 dies there, and what it sends is lost"),
    ("hang", "R[@I]", "3@120: rank 3 stops before its instruction 120"),
)


def run(arguments: Sequence[str]) -> int:
    """Print what a step takes, played."""
    options, keys, problems = _parser().read(arguments)
    problems += _out_problems(options.trace)
    asked = request(options, keys, problems)
    _say("lowering the plan to a program")
    program = lower(asked.model, asked.plan)
    lengths = {
        stop.rank: len(program.of(stop.rank).instructions)
        for stop in asked.stops
        if stop.rank < asked.plan.mesh.size
    }
    faults = (*asked.slow, *halts(asked.stops, lengths))
    _say(f"playing a step on {show_count(asked.plan.mesh.size)} ranks")
    began = time.perf_counter()
    line = simulate(program, asked.cluster, stack=asked.stack, faults=faults, network=asked.network)
    took_s = time.perf_counter() - began
    held = [curve(line, program, player) for player in range(len(line.alike))]
    if options.trace is not None:
        with refusing(options.trace), options.trace.open("w", encoding="utf-8") as file:
            file.writelines(chrome(line, program, name="predicted", memory=held))
    spent = _energy(asked, program, faults) if options.energy else None
    if options.json:
        tree = _tree(asked, program, line, held)
        if spent is not None:
            from stretto.report.energy import energy_json

            tree["energy"] = energy_json(spent)
        print(json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    print("\n".join(_lines(asked, program, line, held)))
    if spent is not None:
        from rich.console import Console

        from stretto.report.energy import energy_page

        print()
        Console(highlight=False).print(energy_page(spent))
    print(f"\n{len(line.start_s):,} instructions played in {step(took_s)}")
    if options.trace is not None:
        print(f"the step for https://ui.perfetto.dev in {options.trace}")
    return 0


def _energy(asked: Request, program: Program, faults: Sequence[Any]) -> Any:
    from stretto.simulate.energy import frontier

    _say("finding clocks that take less energy")
    return frontier(program, asked.cluster, stack=asked.stack, faults=faults)


def _lines(
    asked: Request, program: Program, line: Timeline, held: Sequence[MemoryCurve]
) -> Iterator[str]:
    plan, cluster = asked.plan, asked.cluster
    yield f"{asked.model.name or 'the model'} on {cluster.name}, {asked.software} software"
    yield in_words(plan)
    yield ""
    if line.finished:
        yield from _head(asked, line)
        yield ""
    yield from step_lines(line, program, memory=held)


def _head(asked: Request, line: Timeline) -> Iterator[str]:
    """Give what a step takes, beside the closed form."""
    estimate = cost(asked.model, asked.plan, cluster=asked.cluster, stack=asked.stack)
    closed = float(estimate.time.total_s)
    tokens = asked.plan.batch.sequences * asked.plan.batch.seq
    devices = asked.plan.mesh.size
    mfu = float(estimate.mfu) * closed / line.expected_s
    chance = f" and {line.straggle:.1%} lost to the slowest by chance" if line.straggle else ""
    yield (
        f"{step(line.expected_s)} a step: {step(line.step_s)} played{chance}; "
        f"in closed form {step(closed)} ({change(closed / line.expected_s)})"
    )
    yield (
        f"{tokens / line.expected_s / devices:,.0f} tokens/s a device, "
        f"{show_count(tokens / line.expected_s)} on all {devices:,}; MFU {mfu:.1%}"
    )


def _tree(
    asked: Request, program: Program, line: Timeline, held: Sequence[MemoryCurve]
) -> dict[str, Any]:
    estimate = cost(asked.model, asked.plan, cluster=asked.cluster, stack=asked.stack)
    found: dict[str, Any] = {
        "finished": line.finished,
        "step_s": line.expected_s if line.finished else None,
        "played_s": line.step_s,
        "straggle": line.straggle,
        "estimate_s": float(estimate.time.total_s),
        "waits": [
            {"rank": w.rank, "instruction": w.instruction, "on": list(w.on)} for w in line.waits
        ],
        "ranks": [
            {
                "alike": list(line.alike[player]),
                "peak_bytes": int(memory.total_bytes[memory.peak]),
                "peak_s": float(memory.times_s[memory.peak]),
                "held_bytes": {k: int(v[memory.peak]) for k, v in memory.held_bytes.items()},
            }
            for player, memory in enumerate(held)
        ],
    }
    if line.finished:
        for rank, usage in zip(found["ranks"], usages(line), strict=True):
            rank |= {
                "busy_s": usage.busy_s,
                "exposed_s": dict(usage.exposed_s),
                "bubble_s": usage.bubble_s,
            }
    return found


def _out_problems(out: Path | None) -> Iterator[Problem]:
    """Give what keeps a trace from being written, before work is done for it."""
    if out is not None and not out.parent.is_dir():
        yield Problem("--trace", f"there is no directory {out.parent}", "make it first")


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
        help=f"software: {', '.join(names())} (default: {DEFAULT}; of a run, ours)",
    )  # fmt: skip
    for name, shape, what in _WRONG:
        add(f"--{name}", action="append", default=[], metavar=shape, help=what)
    add(
        "--network", default="fair", metavar="N",
        help="between switches: fair, hash[:flows=K], spray, planned (default: fair)",
    )  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="of chance")
    add("--energy", action="store_true", help="also what slower clocks would save")
    add("--trace", type=Path, metavar="FILE", help="write the step for Perfetto")
    add("--json", action="store_true", help="print it as JSON")
    return parser
