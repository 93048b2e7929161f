"""A simulated step in words and as JSON: beside the closed form, with what chance costs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stretto.cost import Estimate
from stretto.program.instruction import Program
from stretto.program.render import label
from stretto.report.quantities import change, counted, step
from stretto.report.simulate_fit import Need
from stretto.report.step import makeup, named_ranks
from stretto.simulate.fold import Folded
from stretto.simulate.jitter import Jitter
from stretto.simulate.stop import Stopped
from stretto.timeline.memory import MemoryCurve
from stretto.timeline.value import Timeline
from stretto.units import show_count

LARGE = 100_000
"""Instructions, from which on it is told how fast they were played."""


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What there is to tell of a simulated step.

    Attributes:
        folded: The step.
        estimate: The same in closed form, without faults.
        memory: Of each rank that was played what it holds over the step.
        jitter: The step again and again; None if that was not asked for.
        need: What the fullest rank needs of its device.
        faults: How many there are.
        stopped: Ranks that stop.
    """

    folded: Folded
    estimate: Estimate
    memory: Sequence[MemoryCurve]
    jitter: Jitter | None
    need: Need | None = None
    faults: int = 0
    stopped: tuple[Stopped, ...] = ()

    @property
    def step_s(self) -> float:
        """Seconds of a step, with what chance costs it: what was asked for, or what is usual."""
        if self.jitter is not None:
            return self.folded.step_s * (1.0 + self.jitter.lost)
        return self.folded.expected_s

    @property
    def tokens_per_s(self) -> float:
        """Of all devices."""
        batch = self.folded.most.program.plan.batch
        each = batch.sequences // self.folded.most.micro_batches * batch.seq
        return each * self.folded.micro_batches / self.step_s

    @property
    def mfu(self) -> float:
        """Model FLOPs over those of the peak."""
        return float(self.estimate.mfu * self.estimate.time.total_s) / self.step_s

    @property
    def bubble(self) -> float:
        """The share of all ranks' time in which they wait for others."""
        parts = [
            (usage.bubble_s, len(ranks))
            for usage, ranks in zip(self.folded.usages(), self.folded.line.alike, strict=True)
        ]
        ranks = sum(count for _, count in parts)
        return sum(seconds * count for seconds, count in parts) / ranks / self.folded.step_s


def head(told: Told) -> Iterator[str]:
    """Give what a step takes, beside the closed form."""
    folded, time = told.folded, told.estimate.time
    closed, size = float(time.total_s), folded.most.program.placement.mesh.size
    without = f"without the fault{'s' * (told.faults > 1)}"
    beside = f", {without}" if told.faults else f" ({change(closed / told.step_s)})"
    yield (
        f"{step(told.step_s)} a step: {step(folded.step_s)} played{_chance(told)}; "
        f"the closed form says {step(closed)}{beside}"
    )
    yield (
        f"{told.tokens_per_s / size:,.0f} tokens/s a device, "
        f"{_rounded(told.tokens_per_s)} on all {size:,}; MFU {told.mfu:.1%}; "
        f"bubble {told.bubble:.1%}, in closed form {float(time.bubble_s) / closed:.1%}"
    )
    if folded.fewer is not None:
        yield (
            f"of {folded.micro_batches:,} micro-batches {folded.most.micro_batches} were played: "
            f"each further one adds {step(folded.each_s)}"
        )


def _chance(told: Told) -> str:
    """Give what chance costs a step: as it was played, or as is usual of so many ranks."""
    jitter, usual = told.jitter, told.folded.line.straggle
    if jitter is None:
        lost = f" and {_percent(usual)} lost to the slowest of many ranks by chance"
        return lost if usual else ""
    low, high = (jitter.quantile_s(q) / jitter.calm_s - 1.0 for q in (0.05, 0.95))
    return (
        f" and {_percent(jitter.lost)} lost to tasks that take {jitter.sigma:.0%} more or less "
        f"({_percent(low)} to {_percent(high)} in nine of ten of "
        f"{counted(len(jitter.steps_s), 'step')})"
    )


def _rounded(value: float) -> str:
    """Give a count in three digits."""
    return show_count(float(f"{value:.3g}"))


def _percent(share: float) -> str:
    """Give a share that may be below nothing: ``2.3%``, ``−0.4%``."""
    told = f"{share:.1%}"
    return told.lstrip("-") if told == "-0.0%" else told.replace("-", "−")


def blame(line: Timeline, stopped: Sequence[Stopped]) -> str:
    """Give who is to blame for a step that does not end.

    Args:
        line: The step.
        stopped: Ranks that stop.
    """
    waiting = {w.rank for w in line.waits}
    those = {rank for ranks in line.alike if ranks[0] in waiting for rank in ranks}
    guilty = sorted({rank for w in line.waits for rank in w.on} - those)
    guilty = guilty or [one.rank for one in stopped]
    if not guilty:
        return "all wait for one another in a circle: nobody is to blame but the program"
    if len(guilty) > 1:
        return f"{named_ranks(guilty)} are to blame: they halted, and wait for nobody"
    return f"{named_ranks(guilty)} is to blame: it halted, and waits for nobody"


def speed(told: Told) -> Iterator[str]:
    """Give how fast a large step was played."""
    played = [told.folded.most, *([told.folded.fewer] if told.folded.fewer else [])]
    each = [instructions(one.line) for one in played]
    count, took_s = sum(map(sum, each)), sum(one.took_s for one in played)
    ranks = sum(
        mine * len(alike)
        for one, counts in zip(played, each, strict=True)
        for mine, alike in zip(counts, one.line.alike, strict=True)
    )
    if count < LARGE:
        return
    for_all = f" for {show_count(ranks)} of all ranks" if ranks > count else ""
    yield (
        f"{count:,} instructions played{for_all} in {step(took_s)}, "
        f"{show_count(count / took_s)} a second"
    )


def _name(program: Program, rank: int, instruction: int) -> str:
    """Give what people call an instruction of a rank."""
    stage = program.of(rank)
    return label(program, stage, stage.instructions[instruction])


def instructions(line: Timeline) -> list[int]:
    """Give how many instructions each player of a timeline has."""
    last = np.searchsorted(line.player, np.arange(len(line.alike)), side="right") - 1
    counts: list[int] = (line.instruction[last] + 1).tolist()
    return counts


def tree(told: Told) -> dict[str, Any]:
    """Give a simulated step as JSON."""
    folded, line = told.folded, told.folded.line
    found: dict[str, Any] = {
        "finished": line.finished,
        "step_s": told.step_s if line.finished else None,
        "played_s": folded.step_s if line.finished else line.step_s,
        "straggle": line.straggle,
        "estimate_s": float(told.estimate.time.total_s),
        "micro_batches": folded.micro_batches,
        "played_micro_batches": folded.most.micro_batches,
        "instructions_per_s": sum(instructions(line)) / folded.most.took_s,
        "waits": [
            {
                "rank": w.rank,
                "instruction": w.instruction,
                "name": _name(folded.most.program, w.rank, w.instruction),
                "on": list(w.on),
            }
            for w in line.waits
        ],
        "ranks": [
            {
                "alike": list(alike),
                "peak_bytes": int(memory.total_bytes[memory.peak]),
                "peak_s": float(memory.times_s[memory.peak]),
                "held_bytes": {k: int(v[memory.peak]) for k, v in memory.held_bytes.items()},
            }
            for alike, memory in zip(line.alike, told.memory, strict=True)
        ],
    }
    if told.need is not None:
        fullest = asdict(told.need) | {"total_bytes": told.need.total_bytes}
        found |= {"fits": told.need.fits, "fullest": fullest}
    if not line.finished:
        stops = [asdict(one) for one in told.stopped]
        return found | {"blame": blame(line, told.stopped), "stopped": stops}
    for rank, usage in zip(found["ranks"], folded.usages(), strict=True):
        exposed = dict(usage.exposed_s)
        rank |= {"busy_s": usage.busy_s, "exposed_s": exposed, "bubble_s": usage.bubble_s}
    parts = makeup(line, folded.most.program)
    if folded.fewer is not None:
        parts = folded.parts(parts, makeup(folded.fewer.line, folded.fewer.program))
    found |= {
        "tokens_per_s": told.tokens_per_s,
        "mfu": told.mfu,
        "bubble": told.bubble,
        "critical_s": parts,
    }
    if told.jitter is not None:
        found["jitter"] = {
            "sigma": told.jitter.sigma,
            "calm_s": told.jitter.calm_s,
            "steps_s": list(told.jitter.steps_s),
            "lost": told.jitter.lost,
        }
    return found
