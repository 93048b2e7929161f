"""``python -m benchmarks.simulate``: how many instructions a second a core plays, simulated.

And how long it takes, from a plan to what is told, to play a step of a model of 10¹² parameters on
3,072 ranks. Times are those of the processor. How fast the machine is says a loop in the same
process, so that a promise made for one machine can be held to another.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stretto.cluster import Cluster, find
from stretto.cost import Stack, cost, stack
from stretto.model import Model
from stretto.plan import Batch, Memory, Numerics, Plan
from stretto.presets import preset
from stretto.program.lower import lower
from stretto.report import simulate as report
from stretto.report.step import step_lines
from stretto.simulate import SlowRank, simulate
from stretto.simulate.fold import Folded, fold, foldings, played, with_micro_batches
from stretto.simulate.graph import graph
from stretto.simulate.play import play
from stretto.simulate.simulate import uncollected
from stretto.simulate.site import Site
from stretto.timeline.memory import curve

PER_S, LARGE_S = 500_000, 60.0
"""What is promised: instructions a second, and seconds of the large step."""
LOOP_S = 0.036
"""Seconds that `_loop` takes on the machine that this is promised for: an idle core of a server."""


@dataclass(frozen=True, slots=True)
class Case:
    """A step to play.

    Attributes:
        model: What is trained.
        plan: How.
        cluster: Where.
        stack: With which software.
        faults: What is slow.
    """

    model: Model
    plan: Plan
    cluster: Cluster
    stack: Stack
    faults: tuple[SlowRank, ...] = ()


def large() -> Case:
    """Give the step of Dash et al. (2023): 10¹² parameters on 3,072 devices of Frontier."""
    plan = Plan.of(
        pp=64, dp=6, tp=8, zero=1, sequence=False, memory=Memory("full"),
        numerics=Numerics("bfloat16"), batch=Batch(9600, 1, 2048),
    )  # fmt: skip
    where = find("frontier", devices=3072)
    return Case(preset("frontier-1t"), plan, where, stack("eager"))


def cases() -> Mapping[str, Case]:
    """Give steps of which the players, those that stand for all ranks, are few and many."""
    whole, modern = large(), stack("modern")

    def hopper(name: str, pp: int, dp: int, tp: int, *faults: SlowRank) -> Case:
        plan = Plan.of(
            pp=pp,
            dp=dp,
            tp=tp,
            zero=1,
            numerics=Numerics("bfloat16"),
            batch=Batch(dp * 16, 1, 4096),
        )
        where = find("dgx-h100", devices=pp * dp * tp)
        return Case(preset(name), plan, where, modern, faults)

    return {
        "70 B on 256 ranks, 8 players": hopper("llama-3-70b", 8, 8, 4),
        "70 B on 256 ranks, one slow: 32 players": hopper("llama-3-70b", 8, 8, 4, SlowRank(3, 1.3)),
        "8 B on 256 ranks, all unlike: 256 players": hopper(
            "llama-3-8b", 4, 8, 8, *(SlowRank(rank, 1 + 1e-9 * rank) for rank in range(1, 256))
        ),
        "1 T on 3,072 ranks, 192 micro-batches: 192 players": Case(
            whole.model, with_micro_batches(whole.plan, 192), whole.cluster, whole.stack
        ),
    }


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a step is played.

    Attributes:
        players: The ranks that stand for all.
        instructions: That they have.
        clock_per_s: Of these, in a second, by the clock alone.
        per_s: The same with reading the lists, pricing what is in them, and making the timeline.
    """

    players: int
    instructions: int
    clock_per_s: float
    per_s: float


def rate(case: Case, rounds: int) -> Rate:
    """Give how fast a step is played, the median of some rounds."""
    program, clocks, wholes = lower(case.model, case.plan), [], []
    for _ in range(rounds):
        gc.collect()  # what was made before is not counted
        began = time.process_time()
        line = simulate(program, case.cluster, stack=case.stack, faults=case.faults)
        wholes.append(time.process_time() - began)
        tasks = graph(Site(program, case.cluster, case.stack, case.faults))
        with uncollected():
            began = time.process_time()
            play(tasks, contention=float(case.stack.contention))
            clocks.append(time.process_time() - began)
    count = sum(report.instructions(line))
    clock, whole = (count / statistics.median(times) for times in (clocks, wholes))
    return Rate(len(line.alike), count, clock, whole)


def whole_s(case: Case) -> float:
    """Give the seconds from a plan to what `stretto simulate` tells of it."""
    began = time.process_time()
    counts = foldings(case.plan, blocks=len(case.model.blocks))
    if counts is None:
        only = played(lower(case.model, case.plan), case.cluster, stack=case.stack)
        step = Folded(case.plan.micro_batches, only)
    else:
        step = fold(case.model, case.plan, case.cluster, stack=case.stack, counts=counts)
    estimate = cost(case.model, case.plan, cluster=case.cluster, stack=case.stack)
    told = [*report.head(report.Told(step, estimate, (), None))]
    told += step_lines(step.line, step.most.program, folded=step)
    assert told, "there is something to tell"
    curve(step.line, step.most.program, 0)
    return time.process_time() - began


def _loop() -> float:
    """Give the seconds of a loop that says how fast the machine is."""
    began, x = time.process_time(), 1
    for i in range(1_000_000):
        x = (x ^ i) & 0xFFFF
    return time.process_time() - began


def _with_loop(measure: Callable[[], float]) -> tuple[float, float]:
    """Give what is measured, and the seconds of the loop around it."""
    loops = [_loop() for _ in range(3)]
    found = measure()
    return found, statistics.median([*loops, *(_loop() for _ in range(3))])


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of each; the median counts (3)")
    rounds = parser.parse_args().rounds
    print("| a step of | players | instructions | a second | promised | with its graph | loop |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, case in cases().items():
        loops = [_loop() for _ in range(3)]
        found = rate(case, rounds)
        loop_s = statistics.median([*loops, *(_loop() for _ in range(3))])
        print(
            f"| {name} | {found.players} | {found.instructions:,} | {found.clock_per_s:,.0f} | "
            f"{PER_S:,} | {found.per_s:,.0f} | {1e3 * loop_s:.0f} ms |",
            flush=True,
        )
    print("\n| from plan to words | it takes | promised | loop |\n| --- | ---: | ---: | ---: |")
    took_s, loop_s = _with_loop(lambda: whole_s(large()))
    name = "1 T on 3,072 ranks, 1,600 micro-batches"
    print(f"| {name} | {took_s:.0f} s | {LARGE_S:.0f} s | {1e3 * loop_s:.0f} ms |")
    print(f"\nThe loop takes {1e3 * LOOP_S:.0f} ms on the machine of the promise.")


if __name__ == "__main__":
    main()
