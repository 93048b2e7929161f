"""A step on a clock in words, foretold or recorded: where the time of ranks goes, and why."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stretto.program.instruction import Compute, Instruction, Program
from stretto.program.render import label
from stretto.report.quantities import counted, step
from stretto.simulate.fold import Folded
from stretto.simulate.stop import Stopped
from stretto.timeline.memory import MemoryCurve
from stretto.timeline.usage import Usage, usages
from stretto.timeline.value import KINDS, Timeline
from stretto.units import show_bytes

MOST_RANKS = 8
"""How many ranks are told of: those of most and of least work are always among them."""

MOST_ENDS = 12
"""How many ranks of the critical path are named."""

Held = Mapping[int, MemoryCurve] | Sequence[MemoryCurve]
"""By player what a rank holds over a step."""

_SLIGHT = 0.0005  # of a step or of a memory: too little to tell
_WORDS = {"activation": "activations", "parameter": "parameters", "gradient": "gradients",
          "data": "waiting for data"}  # fmt: skip


def step_lines(
    timeline: Timeline,
    program: Program,
    *,
    memory: Held | None = None,
    folded: Folded | None = None,
    ranks: Sequence[int] = (),
    stopped: Sequence[Stopped] = (),
) -> Iterator[str]:
    """Give a step in words, a line at a time.

    Args:
        timeline: The step.
        program: What the ranks do.
        memory: Of each rank that is played what it holds over the step; not said where it is as on
            the rank before.
        folded: The whole step, where some of its micro-batches are not in `timeline`.
        ranks: Whom to tell of; none for those who work most and least.
        stopped: Ranks that stop.
    """
    if timeline.waits:
        yield f"the step does not end: nothing moves any more after {step(timeline.step_s)}"
        yield from map(_stop, stopped)
        yield from _stuck(timeline, program)
        return
    whole_s, count = folded.step_s if folded else timeline.step_s, sum(map(len, timeline.alike))
    kinds = _kinds(timeline, program, folded.usages() if folded else usages(timeline))
    alike = f", {counted(len(kinds), 'kind')} of them" if len(kinds) < count else ""
    yield f"step {step(whole_s)}, {counted(count, 'rank')}{alike}"
    shown = [k for k in kinds if {*k.ranks} & {*ranks}] if ranks else _chosen(kinds)
    names = [_named(_first(kind.ranks, ranks)) for kind in shown]
    width, said = max(map(len, names)), ""
    for kind, name in zip(shown, names, strict=True):
        yield f"{name:{width}}  {kind.times}"
        if memory is not None:
            held = _memory(memory[kind.player], program, timeline.alike[kind.player][0])
            if held != said:
                yield f"{'':{width}}  {held}"
            said = held
    if len(shown) < len(kinds) and not ranks:
        more = len(kinds) - len(shown)
        yield f"… and {more} more, which work more than the least and less than most"
    yield from _critical(timeline, program, folded)


def _stop(stop: Stopped) -> str:
    """Give where and when a rank stops."""
    where = f"{stop.name}, its instruction {stop.instruction:,} of {stop.count:,}"
    if stop.at_s is None:
        return f"rank {stop.rank} never comes to its {stop.how} before {where}"
    return f"rank {stop.rank} {stop.verb} after {step(stop.at_s)} (a {stop.how}) before {where}"


def _stuck(timeline: Timeline, program: Program) -> Iterator[str]:
    alike = {ranks[0]: ranks for ranks in timeline.alike}
    for wait in timeline.waits[:MOST_RANKS]:
        stage = program.of(wait.rank)
        what = label(program, stage, stage.instructions[wait.instruction])
        ranks = alike[wait.rank]
        who = f"{_named(ranks)}, wait" if len(ranks) > 1 else f"{_named(ranks)} waits"
        yield f"{who} before {what}" + (f" for {named_ranks(wait.on)}" if wait.on else "")
    if len(timeline.waits) > MOST_RANKS:
        yield f"… and {len(timeline.waits) - MOST_RANKS} more"


def named_ranks(ranks: Sequence[int]) -> str:
    """Give ranks by their numbers, not all of very many: ``rank 3``, ``ranks 1, 3, 5``."""
    more = " …" if len(ranks) > MOST_ENDS else ""
    named = ", ".join(map(str, ranks[:MOST_ENDS])) + more
    return f"rank {named}" if len(ranks) == 1 else f"ranks {named}"


@dataclass(frozen=True, slots=True)
class _Kind:
    """Ranks of which the same is to be told.

    Attributes:
        player: One that stands for them.
        ranks: All of them.
        busy_s: How long their devices work.
        times: Where their time goes, in words.
    """

    player: int
    ranks: tuple[int, ...]
    busy_s: float
    times: str


def _kinds(timeline: Timeline, program: Program, every: Sequence[Usage]) -> list[_Kind]:
    """Give the kinds of ranks: those of a stage whose numbers read the same are one."""
    found: dict[Hashable, _Kind] = {}
    for player, (usage, ranks) in enumerate(zip(every, timeline.alike, strict=True)):
        times = _times(usage)
        # What was measured is of each rank its own, by chance alike or not.
        key = player if timeline.measured else (program.of(ranks[0]).stage, times)
        was = found.get(key)
        both = tuple(sorted((*was.ranks, *ranks))) if was else ranks
        first = was.player if was else player
        found[key] = _Kind(first, both, usage.busy_s, times)
    return [*found.values()]


def _chosen(kinds: Sequence[_Kind]) -> Sequence[_Kind]:
    """Give the kinds to tell of: all, or those who work most and least."""
    if len(kinds) <= MOST_RANKS:
        return kinds
    order = sorted(range(len(kinds)), key=lambda i: -kinds[i].busy_s)
    chosen = sorted((*order[: MOST_RANKS // 2], *order[-(MOST_RANKS // 2) :]))
    return [kinds[i] for i in chosen]


def _first(alike: tuple[int, ...], asked: Sequence[int]) -> tuple[int, ...]:
    """Give ranks that are alike, the one first that was asked for."""
    first = next((rank for rank in alike if rank in asked), alike[0])
    return first, *(rank for rank in alike if rank != first)


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
