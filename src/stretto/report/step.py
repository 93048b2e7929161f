"""A step on a clock in words, foretold or recorded: where the time of ranks goes, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stretto.program.instruction import Compute, Instruction, Program
from stretto.program.render import label
from stretto.report.quantities import counted, step
from stretto.simulate.fold import Folded
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
    timeline: Timeline,
    program: Program,
    *,
    memory: Sequence[MemoryCurve] | None = None,
    folded: Folded | None = None,
    ranks: Sequence[int] = (),
) -> Iterator[str]:
    """Give a step in words, a line at a time.

    Args:
        timeline: The step.
        program: What the ranks do.
        memory: Of each rank that is played what it holds over the step.
        folded: The whole step, where some of its micro-batches are not in `timeline`.
        ranks: Whom to tell of; none for those who work most and least.
    """
    played, count = len(timeline.alike), sum(map(len, timeline.alike))
    alike = f", {counted(played, 'kind')} of them" if played < count else ""
    if timeline.waits:
        yield f"the step does not end: nothing moves any more after {step(timeline.step_s)}"
        yield from _stuck(timeline, program)
        return
    whole_s = folded.step_s if folded else timeline.step_s
    yield f"step {step(whole_s)}, {counted(count, 'rank')}{alike}"
    every = folded.usages() if folded else usages(timeline)
    shown = _asked(timeline, ranks) if ranks else _chosen(every)
    names = [_named(timeline.alike[player]) for player in shown]
    width = max(map(len, names))
    for player, name in zip(shown, names, strict=True):
        yield f"{name:{width}}  {_times(every[player])}"
        if memory is not None:
            yield f"{'':{width}}  {_memory(memory[player], program, timeline.alike[player][0])}"
    if len(shown) < played and not ranks:
        yield f"… and {played - len(shown)} more, which work more than the least and less than most"
    yield from _critical(timeline, program, folded)


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


def _asked(timeline: Timeline, ranks: Sequence[int]) -> list[int]:
    """Give the players that stand for ranks."""
    player_of = {rank: p for p, alike in enumerate(timeline.alike) for rank in alike}
    return list(dict.fromkeys(player_of[rank] for rank in ranks))


def _named(ranks: tuple[int, ...]) -> str:
    return f"rank {ranks[0]}" + (f", and {len(ranks) - 1} more like it" if len(ranks) > 1 else "")


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


def makeup(timeline: Timeline, program: Program) -> dict[str, float]:
    """Give what the length of a step comes from, in groups, in seconds."""
    parts: dict[str, float] = {}
    for row, took in _taken(timeline):
        name = _group(timeline, program, row)
        parts[name] = parts.get(name, 0.0) + took
    return parts


def _taken(timeline: Timeline) -> Iterator[tuple[int, float]]:
    """Give each row of the critical path, and the seconds that it adds to the step."""
    done = 0.0
    for row in timeline.critical():
        yield row, max(0.0, float(timeline.stop_s[row]) - done)
        done = max(done, float(timeline.stop_s[row]))


def _critical(timeline: Timeline, program: Program, folded: Folded | None) -> Iterator[str]:
    """Give what the length of the step comes from, in groups, and its longest piece."""
    taken, parts, whole = [*_taken(timeline)], makeup(timeline, program), timeline.step_s or 1.0
    if folded is not None and folded.fewer is not None:
        parts = folded.parts(parts, makeup(folded.fewer.line, folded.fewer.program))
        whole = sum(parts.values())
    path = [row for row, _ in taken]
    listed = [(took, row) for row, took in taken if timeline.instruction[row] >= 0 and took > 0]
    longest, piece = max(listed, key=lambda one: one[0], default=(0.0, -1))
    yield f"critical path  {_shares({name: s / whole for name, s in parts.items()})}"
    ranks = [_rank(timeline, row) for row in path]
    ends = [rank for i, rank in enumerate(ranks) if not i or rank != ranks[i - 1]]
    shown = " → ".join(map(str, ends[:MOST_ENDS])) + (" → …" if len(ends) > MOST_ENDS else "")
    yield f"               through rank {shown}"
    if piece >= 0:
        rank = _rank(timeline, piece)
        name = label(program, program.of(rank), _of(timeline, program, piece))
        yield f"               longest: {name} on rank {rank}, {step(longest)}"


def _of(timeline: Timeline, program: Program, row: int) -> Instruction:
    return program.of(_rank(timeline, row)).instructions[int(timeline.instruction[row])]


def _rank(timeline: Timeline, row: int) -> int:
    return timeline.alike[int(timeline.player[row])][0]


def _group(timeline: Timeline, program: Program, row: int) -> str:
    """Give what a row of the critical path is counted as."""
    kind = KINDS[timeline.kind[row]]
    if kind == "device":
        instruction = _of(timeline, program, row)
        return str(instruction.phase) if isinstance(instruction, Compute) else "update"
    if kind in ("activation", "parameter", "gradient"):
        return f"{_WORDS[kind]} over {timeline.streams[timeline.stream[row]]}"
    return _WORDS.get(kind, kind)
