"""``python -m benchmarks.calibrate``: how well a calibrated machine predicts this run, and others.

Short runs of one rank and of two under several plans, shapes and models, each trained by the real
command. Each is calibrated by itself and all of a number of ranks together; each calibrated file
then predicts every run of as many ranks. Writes the tables into docs/calibrate.md. Let the machine
rest: what else runs on it is learnt as if it were the machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fidelity.markdown import table

from stretto.calibrate import Evidence, calibrate
from stretto.cli.calibrate import told
from stretto.cli.foretold import foretold, machine
from stretto.cli.rundir import RunDirectory
from stretto.cluster import Cluster
from stretto.report.quantities import change, step

PAGE = Path(__file__).parents[1] / "docs" / "calibrate.md"
MARKS = "<!-- measured: python -m benchmarks.calibrate -->", "<!-- end of what was measured -->"

ONE: Mapping[str, tuple[str, ...]] = {
    "1 M": ("stretto-1m",),
    "batch × 4": ("stretto-1m", "batch.sequences=16"),
    "sequences × 2": ("stretto-1m", "batch.seq=512", "batch.micro_batch=2"),
    "10 M": ("stretto-10m", "batch.sequences=8", "batch.micro_batch=4"),
}
TWO: Mapping[str, tuple[str, ...]] = {
    "dp 2": ("stretto-1m", "dp=2"),
    "zero 3": ("stretto-1m", "dp=2", "zero=3"),
    "tp 2": ("stretto-1m", "tp=2"),
    "pp 2": ("stretto-1m", "pp=2"),
    "dp 2, batch × 4": ("stretto-1m", "dp=2", "batch.sequences=16"),
    "10 M, dp 2": ("stretto-10m", "dp=2", "batch.sequences=8", "batch.micro_batch=4"),
    "10 M, tp 2": ("stretto-10m", "tp=2", "batch.sequences=8", "batch.micro_batch=4"),
}
COMMON = ("record_every=4", "checkpoint_every=0", "evaluate_every=0")


def trained(home: Path, name: str, *words: str, ranks: int, steps: int) -> RunDirectory:
    """Give a run of the real command."""
    run = home / f"{ranks}-{name.replace(' ', '-').replace(',', '')}"
    if not run.exists():
        command = [sys.executable, "-m", "stretto", "train", *words, *COMMON, f"steps={steps}"]
        subprocess.run(
            [*command, "--nproc", str(ranks), "--run", str(run), "--cache", str(home / "cache")],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return RunDirectory(run)


def compared(runs: Mapping[str, RunDirectory], *, ranks: int) -> Iterator[str]:
    """Give how far off each calibrated cluster is on each run, as a table."""
    heard = {name: told(run) for name, run in runs.items()}
    usual = machine(ranks, here=ranks)
    clusters = {"not calibrated": usual}
    clusters |= {f"on {name}": fitted([one], usual) for name, one in heard.items()}
    clusters["on all"] = fitted(list(heard.values()), usual)
    head = ["calibrated", *heard]
    measured = ["measured", *(f"{step(e.step_s)} ± {e.spread:.0%}" for e in heard.values())]
    rows = [measured]
    for what, cluster in clusters.items():
        row = [what]
        for name, one in heard.items():
            off = change(foretold(runs[name].read(), cluster).step_s / one.step_s)
            row.append(f"**{off}**" if what == f"on {name}" else off)
        rows.append(row)
    yield from table(head, rows)


def fitted(heard: Sequence[Evidence], begin: Cluster) -> Cluster:
    """Give a calibrated cluster."""
    return calibrate(heard, begin, source="calibrated").cluster


def main() -> None:
    """Train, calibrate, compare, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate")
    parser.add_argument("--steps", type=int, default=60, help="of each run")
    parser.add_argument("--runs", type=Path, help="where runs are kept, and found if they are")
    parser.add_argument("--dry", action="store_true", help="print the tables, and write none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = options.runs or Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        before = time.monotonic(), _busy_s()
        text = []
        for ranks, wanted in ((1, ONE), (2, TWO)):
            runs = {}
            for name, words in wanted.items():
                runs[name] = trained(home, name, *words, ranks=ranks, steps=options.steps)
                print(f"{ranks} ranks, {name}", flush=True)
            text += [f"Predicted / measured − 1 with {ranks} rank{'s' * (ranks > 1)}:", ""]
            text += [*compared(runs, ranks=ranks), ""]
        others = _others(*before)
    text.append(f"Other processes took {others:.0%} of the machine meanwhile.")
    print("\n".join(text))
    if not options.dry:
        first, last = MARKS
        head, _, rest = PAGE.read_text("utf-8").partition(first)
        _, _, tail = rest.partition(last)
        PAGE.write_text("\n".join([f"{head}{first}", "", *text, "", f"{last}{tail}"]), "utf-8")


def _busy_s() -> tuple[float, float]:
    """Give the CPU seconds that the machine has worked, and this process with its children."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:8]]
    own = os.times()
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK"), sum(own[:4])


def _others(since_s: float, before: tuple[float, float]) -> float:
    """Give the share of the machine that others took."""
    busy, own = (b - a for a, b in zip(before, _busy_s(), strict=True))
    return max(0.0, busy - own) / ((time.monotonic() - since_s) * (os.cpu_count() or 1))


if __name__ == "__main__":
    main()
