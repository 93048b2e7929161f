"""A program as text: an instruction a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from stretto.program.instruction import (
    Buffer,
    Compute,
    Free,
    Instruction,
    Move,
    Program,
    Recv,
    Send,
    StageProgram,
    Sums,
    Update,
    Vote,
)
from stretto.program.memory import memory
from stretto.program.traffic import traffic
from stretto.units import show_bytes

WIDTH = 40
"""How many letters of names a line shows before it counts the rest."""


def lines(program: Program, stage: int) -> tuple[str, ...]:
    """Give the list of a stage, a line for each instruction, in columns.

    The columns: its index; what is done; to what; for which micro-batch; the bytes that a rank
    sends; what is read → what is written. ``a → b + c`` adds c to what is written to b, and
    ``a →+ b`` adds to b what it was.
    """
    it = program.stages[stage]
    rows = [
        (f"{i}", *_words(program, it, instruction), _sent(program, it, instruction))
        for i, instruction in enumerate(it.instructions)
    ]
    widths = [max(len(row[c]) for row in rows) for c in range(5)]
    return tuple(
        f"{at:>{widths[0]}}  {done:{widths[1]}}  {what:{widths[2]}}  {m:{widths[3]}}  "
        f"{size:>{widths[4]}}  {_flow(instruction)}"
        for (at, done, what, m, size), instruction in zip(rows, it.instructions, strict=True)
    )


def label(program: Program, stage: StageProgram, instruction: Instruction) -> str:
    """Give an instruction in a few words: ``forward layers.0.attention[norm·attend] m0``."""
    return " ".join(word for word in _words(program, stage, instruction) if word)


def summary(program: Program, stage: int) -> tuple[str, ...]:
    """Give what a stage runs, how often, what a rank of it sends in a step, and what it holds."""
    it, placement = program.stages[stage], program.placement
    blocks = [program.chain[b].name for b in range(*it.blocks)]
    counts = Counter(_words(program, it, i)[0] for i in it.instructions)
    footprint = memory(it, placement)
    named = f"{blocks[0]} to {blocks[-1]}, {len(blocks)} blocks" if len(blocks) > 1 else blocks[0]
    sends = ", ".join(f"{axes} {show_bytes(n)}" for axes, n in _by_axes(program, it).items())
    return (
        f"stage {stage} of {len(program.stages)}: {named}",
        f"  runs   {', '.join(f'{n} {kind}' for kind, n in counts.most_common())}",
        f"  sends  {sends or 'nothing'}, a rank and step",
        f"  holds  {show_bytes(footprint.resting_bytes)} at rest, "
        f"{show_bytes(footprint.peak_bytes)} at most, and what autograd keeps",
    )


def _by_axes(program: Program, stage: StageProgram) -> dict[str, int]:
    """Give the bytes that a rank sends in a step over each set of axes."""
    order = [axis for axis, _ in program.placement.mesh.axes]
    sent: dict[str, int] = {}
    for instruction in stage.instructions:
        for axes, size in traffic(instruction, stage, program.placement):
            name = "·".join(sorted(axes, key=order.index))
            sent[name] = sent.get(name, 0) + size
    return sent


def render(program: Program) -> str:
    """Give a whole program: each stage's summary and list."""
    parts = []
    for stage in range(len(program.stages)):
        parts += [*summary(program, stage), *lines(program, stage), ""]
    return "\n".join(parts)


def _words(program: Program, stage: StageProgram, instruction: Instruction) -> tuple[str, str, str]:
    """Give what is done, to what, and for which micro-batch."""
    match instruction:
        case Compute(phase=phase, block=block, micro_batch=m):
            inner = "·".join(s.name for s in program.segments(instruction))
            return phase, f"{program.chain[block].name}[{inner}]", f"m{m}"
        case Move(legs=legs):
            alike = len({leg.steps for leg in legs}) == 1
            steps = [f"{s}" if alike else f"{s.kind} {'·'.join(s.axes)}" for s in legs[0].steps]
            return "move", ", ".join(steps) or "copy", ""
        case Send(by=by, tag=tag):
            return "send", f"{tag} to stage {stage.stage + by}", ""
        case Recv(by=by, tag=tag):
            return "receive", f"{tag} from stage {stage.stage + by}", ""
        case Free():
            return "free", "", ""
        case Vote(loss=loss):
            return "vote", "loss and gradient norm" if loss else "gradient norm", ""
        case Update(weights=weights):
            return "update", f"{len(weights)} parameters", ""


def _flow(instruction: Instruction) -> str:
    """Give what is read and what is written."""
    match instruction:
        case Compute(values=values, writes=writes, gradients=gradients, adds=adds):
            count = f"{len(gradients)} gradient{'s' * (len(gradients) > 1)}" if gradients else ""
            written = ", ".join(filter(None, (_sums((b for _, b in writes), adds), count)))
            return _arrow(_list(b for _, b in values), written)
        case Move(legs=legs, adds=adds):
            written = _sums((leg.target for leg in legs), adds)
            return _arrow(_list(leg.source for leg in legs), written)
        case Recv(buffers=buffers, adds=adds):
            return _arrow("", _sums(buffers, adds))
        case Send(buffers=buffers) | Free(buffers=buffers):
            return _list(buffers)
        case Vote(verdict=verdict):
            return _arrow(_list(instruction.input), verdict)
        case Update(weights=weights):
            return _arrow(_list(w.gradient for w in weights), _list(w.weight for w in weights))


def _arrow(left: str, right: str) -> str:
    return f"{left} →{'' if right.startswith('+') else ' '}{right}".strip()


def _list(buffers: Iterable[Buffer]) -> str:
    """Give names until the line is full, and how many are left."""
    names = list(buffers)
    shown = [n for i, n in enumerate(names) if i == 0 or len(", ".join(names[: i + 1])) <= WIDTH]
    left = len(names) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")


def _sums(buffers: Iterable[Buffer], adds: Sums) -> str:
    """Give what is written, and what is added to it."""
    names, addends = list(buffers), dict(adds)
    if names and all(addends.get(name) == name for name in names):
        return f"+ {_list(names)}"
    return _list(f"{n} + {addends[n]}" if n in addends else n for n in names)


def _sent(program: Program, stage: StageProgram, instruction: Instruction) -> str:
    size = sum(n for _, n in traffic(instruction, stage, program.placement))
    return show_bytes(size) if size else ""
