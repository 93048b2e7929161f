"""``stretto forecast``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stretto.cli.arguments import Parser
from stretto.cli.forecast_request import request
from stretto.cli.say import show
from stretto.cli.software import SOFTWARE
from stretto.errors import MachineError, Problem
from stretto.forecast.answer import answer
from stretto.forecast.toml import DEFAULT, names
from stretto.report.forecast_svg import picture
from stretto.report.forecast_told import Told, tree

_ABOUT = """\
Says when a training will be done: plays its weeks many times over, with failures, detection,
restarts, checkpoints and spare nodes, and tells where the time goes, how often to save, and how
many spare nodes are worth having. Nothing is run, and no device is needed.

PLAN is a plan in TOML, or a run; without it, a plan is made of the keys. MODEL is a preset, a
config.json or a directory with one (default: the one that the plan names, else the small one that
is shipped). Or state the steps: --devices, --step and --steps.
"""

_EXAMPLES = f"""\
failures:
  {", ".join(names())}, or a TOML file like them

examples:
  stretto forecast plan.toml --cluster h100x1024 --tokens 15T
  stretto forecast llama-3-8b dp=64 zero=1 batch.sequences=512 --cluster h100x64 --spares 1
  stretto forecast --devices 16384 --step 7.5s --steps 600000 --spares 16
  stretto forecast --devices 98304 --step 10s --steps 400000 --spares 64 --elastic --replicas 96
  stretto forecast --devices 1024 --step 3s --steps 300000 --failures my.toml --svg forecast.svg
"""

_SILENT_S = 5.0  # what takes no longer needs no word where nobody watches


def run(arguments: Sequence[str]) -> int:
    """Print when training ends, and what it depends on."""
    parser = _parser()
    options, keys, problems = parser.read(arguments)
    asked = request(options, keys, problems)
    found = answer(
        asked.setup,
        asked.failures,
        best_interval=asked.auto,
        runs=options.seeds,
        telling=_Telling(),
    )
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    told = Told(asked.title, asked.start, asked.price, asked.notes, found)
    if options.svg is not None:
        _write(options.svg, picture(told))
    if options.json:
        print(json.dumps(tree(told), indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    from stretto.report.forecast import page

    show(page(told))
    if options.svg is not None:
        print(f"\ndrawn in {options.svg}")
    return 0


class _Telling:
    """Says how far it is: on a terminal in a line, else once of each stage of what takes long."""

    def __init__(self) -> None:
        self._begun_s, self._said = time.monotonic(), ""

    def __call__(self, what: str, share: float) -> None:
        if sys.stderr.isatty():
            print(f"\r{what} {share:4.0%}\x1b[K", end="", file=sys.stderr, flush=True)
        elif what != self._said and time.monotonic() - self._begun_s > _SILENT_S:
            self._said = what
            print(f"{what} …", file=sys.stderr, flush=True)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        rule = f"cannot be written: {error.strerror}"
        raise MachineError(Problem(str(file), rule, "name another place")) from None


def _parser() -> Parser:
    parser = Parser(
        "forecast",
        usage="[PLAN] [MODEL] [key=value …] --cluster C [options]",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="PLAN, MODEL, key=value", help="see above")
    add("--cluster", metavar="C", help="on what: h100x64, frontierx1024, or a TOML file")
    add("--tokens", metavar="T", help="of the whole training: 15T (default: 20 a parameter)")
    add("--stack", metavar="NAME", help=SOFTWARE)
    add("--devices", type=int, metavar="N", help="how many train, where no plan says")
    add("--step", metavar="TIME", help="of a step, where no plan says: 7.5s")
    add("--steps", type=int, metavar="N", help="how many, where no plan says")
    add("--replicas", type=int, metavar="N", help="data-parallel, where no plan says")
    add("--failures", default=DEFAULT, metavar="NAME", help=f"see below (default: {DEFAULT})")
    add(
        "--spares", type=int, metavar="N",
        help="spare nodes that are ready (default: enough 99 %% of the time)",
    )  # fmt: skip
    add("--warm-spares", type=int, default=0, metavar="N", help="that must start first")
    add(
        "--checkpoint-every", default="auto", metavar="I",
        help="30min, 500steps (default: auto, the best)",
    )  # fmt: skip
    add("--checkpoint-bytes", metavar="B", help="of one: 5.7TB")
    add("--storage", metavar="RATE", help="of storage: 100GB/s")
    add(
        "--memory-every", metavar="I",
        help="snapshots in the memory of other nodes as well: 10steps",
    )  # fmt: skip
    add(
        "--elastic", nargs="?", const="", metavar="FILE",
        help="go on with fewer replicas; FILE: JSON of plan --survivors",
    )  # fmt: skip
    add("--start", metavar="DATE", help="2026-05-01 (default: today)")
    add("--seeds", type=int, default=200, metavar="N", help="runs to play (default: 200)")
    add("--svg", type=Path, metavar="FILE", help="draw it too")
    add("--json", action="store_true", help="print all of it as JSON")
    return parser
