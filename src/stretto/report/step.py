"""A step on a clock in words, foretold or recorded: where the time of ranks goes, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stretto.program.instruction import Compute, Instruction, Program
from stretto.program.render import label
from stretto.report.quantities import counted, step
from stretto.timeline.memory import MemoryCurve
from stretto.timeline.usage import Usage, usages
from stretto.timeline.value import KINDS, Timeline
from stretto.units import show_bytes

MOST_RANKS = 8
"""How many ranks are told of: those of most and of least work are always among them."""

MOST_ENDS = 12
"""How many ranks of the critical path are named."""

_SLIGHT = 0.0005  # of a step or of a memory: too little to tell
_WORDS = {"activation": "activations", "parameter": "parameters", "gradient": "gradients",
          "data": "waiting for data"}  # fmt: skip


def step_lines(
    timeline: Timeline, program: Program, *, memory: Sequence[MemoryCurve] | None = None
) -> Iterator[str]:
    """Give a step in words, a line at a time.

    Args:
        timeline: The step.
        program: What the ranks do.
        memory: Of each rank that is played what it holds over the step.
    """
    played, ranks = len(timeline.alike), sum(map(len, timeline.alike))
    alike = f", {counted(played, 'kind')} of them" if played < ranks else ""
    if timeline.waits:
        yield f"the step does not end: nothing moves any more after {step(timeline.step_s)}"
        yield from _stuck(timeline, program)
        return
    yield f"step {step(timeline.step_s)}, {counted(ranks, 'rank')}{alike}"
    every = usages(timeline)
    shown = _chosen(every)
    names = [_named(timeline.alike[player]) for player in shown]
    width = max(map(len, names))
    for player, name in zip(shown, names, strict=True):
        yield f"{name:{width}}  {_times(every[player])}"
        if memory is not None:
            yield f"{'':{width}}  {_memory(memory[player], program, timeline.alike[player][0])}"
    if len(shown) < played:
        yield f"… and {played - len(shown)} more, which work more than the least and less than most"
    yield from _critical(timeline, program)


def _stuck(timeline: Timeline, program: Program) -> Iterator[str]:
    for wait in timeline.waits[:MOST_RANKS]:
        stage = program.of(wait.rank)
        what = label(program, stage, stage.instructions[wait.instruction])
        on = ", ".join(map(str, wait.on[:MOST_ENDS])) + (" …" if len(wait.on) > MOST_ENDS else "")
        yield f"rank {wait.rank} waits before {what}" + (f" for rank {on}" if wait.on else "")
    if len(timeline.waits) > MOST_RANKS:
        yield f"… and {len(timeline.waits) - MOST_RANKS} more"


def _chosen(every: Sequence[Usage]) -> list[int]:
    """Give the players to tell of: all, or those who work most and least."""
    if len(every) <= MOST_RANKS:
        return [*range(len(every))]
    order = sorted(range(len(every)), key=lambda player: -every[player].busy_s)
    return sorted((*order[: MOST_RANKS // 2], *order[-(MOST_RANKS // 2) :]))


def _named(ranks: tuple[int, ...]) -> str:
    return f"rank {ranks[0]}" + (f" and {len(ranks) - 1} alike" if len(ranks) > 1 else "")


def _times(usage: Usage) -> str:
    """Give where the time of a rank goes."""
    whole = usage.step_s or 1.0
    exposed = _shares(
        {_WORDS.get(kind, kind): s / whole for kind, s in usage.exposed_s.items() if s}
    )
    return (
        f"busy {usage.busy_s / whole:.1%}  bubble {usage.bubble_s / whole:.1%}  "
        f"exposed {exposed or 'nothing'}"
    )


def _shares(parts: Mapping[str, float]) -> str:
    large = sorted((-share, name) for name, share in parts.items() if share > _SLIGHT)
    return ", ".join(f"{name} {-share:.1%}" for share, name in large)


def _memory(curve: MemoryCurve, program: Program, rank: int) -> str:
    """Give the most that a rank holds, what that is, and what made it so."""
    at = curve.peak
    most = int(curve.total_bytes[at])
    parts = sorted(((-int(held[at]), name) for name, held in curve.held_bytes.items()))
    large = ", ".join(f"{name} {show_bytes(-n)}" for n, name in parts if -n > _SLIGHT * most)
    stage, made = program.of(rank), int(curve.made[at])
    by = (
        f"by {label(program, stage, stage.instructions[made])}" if made >= 0 else "at its beginning"
    )
    return f"memory {show_bytes(most)} at most, {by}: {large}"


def _critical(timeline: Timeline, program: Program) -> Iterator[str]:
    """Give what the length of the step comes from, in groups, and its longest piece."""
    path, done, parts = timeline.critical(), 0.0, dict[str, float]()
    longest, piece = 0.0, -1
    for row in path:
        took = max(0.0, float(timeline.stop_s[row]) - done)
        done = max(done, float(timeline.stop_s[row]))
        name = _group(timeline, program, row)
        parts[name] = parts.get(name, 0.0) + took
        if took > longest and timeline.instruction[row] >= 0:
            longest, piece = took, row
    whole = timeline.step_s or 1.0
    yield f"critical path  {_shares({name: s / whole for name, s in parts.items()})}"
    ranks = [int(timeline.rank[row]) for row in path]
    ends = [rank for i, rank in enumerate(ranks) if not i or rank != ranks[i - 1]]
    shown = " → ".join(map(str, ends[:MOST_ENDS])) + (" → …" if len(ends) > MOST_ENDS else "")
    yield f"               through rank {shown}"
    if piece >= 0:
        stage = program.of(int(timeline.rank[piece]))
        name = label(program, stage, _of(timeline, program, piece))
        yield f"               longest: {name} on rank {timeline.rank[piece]}, {step(longest)}"


def _of(timeline: Timeline, program: Program, row: int) -> Instruction:
    return program.of(int(timeline.rank[row])).instructions[int(timeline.instruction[row])]


def _group(timeline: Timeline, program: Program, row: int) -> str:
    """Give what a row of the critical path is counted as."""
    kind = KINDS[timeline.kind[row]]
    if kind == "device":
        instruction = _of(timeline, program, row)
        return str(instruction.phase) if isinstance(instruction, Compute) else "update"
    if kind in ("activation", "parameter", "gradient"):
        return f"{_WORDS[kind]} over {timeline.streams[timeline.stream[row]]}"
    return _WORDS.get(kind, kind)
