"""`verify`: what is wrong with a program, found without running it.

Do buffers have names, and instructions partners (here)? Do they live as they should (`lifetime`)?
Do they lie as instructions need (`fit`)? And does the program compute a training step (`play`, on
names for numbers)?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from stretto.errors import Problem
from stretto.program.fault import Fault
from stretto.program.fit import misfits
from stretto.program.group import groups
from stretto.program.instruction import Compute, Phase, Program, Recv, Send, StageProgram, Vote
from stretto.program.lifetime import lifetimes, reads
from stretto.program.play import play
from stretto.program.render import label


def verify(program: Program) -> tuple[Problem, ...]:
    """Give all that is wrong with a program; nothing if it computes one training step.

    Faults of a later kind are looked for only where there are none of the earlier ones.
    """
    found = [fault for stage in program.stages for fault in _names(program, stage)]
    if not found:
        for stage in program.stages:
            found += [*lifetimes(stage), *misfits(program, stage), *_passes(program, stage)]
        found += [*_cut(program), *_messages(program)]
    if not found:
        found += play(program)
    return tuple(_problem(program, fault) for fault in found)


def _problem(program: Program, fault: Fault) -> Problem:
    stage, where = program.stages[fault.stage], f"stage {fault.stage}"
    if fault.at >= 0:
        where += f", instruction {fault.at} ({label(program, stage, stage.instructions[fault.at])})"
    return Problem(where, fault.rule, fault.remedy)


def _names(program: Program, stage: StageProgram) -> Iterator[Fault]:
    """Every buffer is described, and cut into equal blocks."""
    mesh = program.placement.mesh
    known = {axis for axis, _ in mesh.axes}
    for name, spec in stage.buffers.items():
        pairs = list(zip(spec.shape, spec.layout.dims, strict=False))
        if (
            not known.issuperset(spec.layout.axes)
            or len(spec.shape) != len(spec.layout.dims)
            or any(size % mesh.extent(*axes) for size, axes in pairs)
        ):
            rule = f"{name} of shape {spec.shape} cannot lie as {spec.layout}"
            yield Fault(stage.stage, -1, rule, "pad it to equal blocks over axes of the mesh")
    for i, instruction in enumerate(stage.instructions):
        for name in dict.fromkeys((*reads(instruction), *instruction.output)):
            if name not in stage.buffers:
                yield Fault(stage.stage, i, f"nothing says what {name} is", "give it a spec")


def _cut(program: Program) -> Iterator[Fault]:
    """The stages run the whole chain, one after the other."""
    first = 0
    for stage in program.stages:
        if stage.blocks[0] != first:
            rule = f"begins at block {stage.blocks[0]}, but the stage before ends at {first}"
            yield Fault(stage.stage, -1, rule, "cut without gap or overlap")
        first = stage.blocks[1]
    if first != len(program.chain):
        rule = f"ends at block {first} of {len(program.chain)}"
        yield Fault(len(program.stages) - 1, -1, rule, "run the rest")


def _passes(program: Program, stage: StageProgram) -> Iterator[Fault]:
    """Every group runs once forward and once backward on a micro-batch; the stage votes once."""
    runs = Counter(
        (c.phase, c.block, c.segments, c.micro_batch)
        for c in stage.instructions
        if isinstance(c, Compute)
    )
    wanted = {
        (phase, b, g.span, m)
        for b in range(*stage.blocks)
        for g in groups(program.chain[b], program.placement)
        for m in range(program.plan.micro_batches)
        for phase in ((Phase.FORWARD,) if g.is_sum else (Phase.FORWARD, Phase.BACKWARD))
    }
    for phase, b, span, m in sorted(wanted | set(runs)):
        times = runs[phase, b, span, m]
        most = 1 if phase is Phase.RECOMPUTE or (phase, b, span, m) in wanted else 0
        if times > most or ((phase, b, span, m) in wanted and not times):
            rule = f"runs {program.chain[b].name} {span} {phase} on m{m} {times} times"
            yield Fault(stage.stage, -1, rule, f"run it {most} times")
    votes = sum(isinstance(i, Vote) for i in stage.instructions)
    if votes != 1:
        yield Fault(stage.stage, -1, f"votes {votes} times", "vote once")


def _messages(program: Program) -> Iterator[Fault]:
    """Between two stages the k-th send and the k-th receive are two ends of one message."""
    stages = {stage.stage for stage in program.stages}
    sends: dict[tuple[int, int], list[tuple[int, Send]]] = {}
    receives: dict[tuple[int, int], list[tuple[int, Recv]]] = {}
    for stage in program.stages:
        for i, instruction in enumerate(stage.instructions):
            if not isinstance(instruction, Send | Recv):
                continue
            peer = stage.stage + instruction.by
            if peer not in stages - {stage.stage}:
                rule = f"its other end, stage {peer}, is not another of {len(stages)} stages"
                yield Fault(stage.stage, i, rule, "name one that there is")
            elif isinstance(instruction, Send):
                sends.setdefault((stage.stage, peer), []).append((i, instruction))
            else:
                receives.setdefault((peer, stage.stage), []).append((i, instruction))
    for pair in sorted(set(sends) | set(receives)):
        yield from _ends(program, pair, sends.get(pair, []), receives.get(pair, []))


def _ends(
    program: Program,
    pair: tuple[int, int],
    sends: list[tuple[int, Send]],
    receives: list[tuple[int, Recv]],
) -> Iterator[Fault]:
    """The messages from one stage to another."""
    source, target = (program.stages[s] for s in pair)
    for (i, send), (j, recv) in zip(sends, receives, strict=False):
        if send.tag != recv.tag:
            rule = f"stage {pair[1]} expects {recv.tag} in its place (instruction {j})"
            yield Fault(pair[0], i, rule, "send in the order of the receives")
        sent = [source.buffers[b] for b in send.buffers]
        if sent != [target.buffers[b] for b in recv.buffers]:
            rule = f"stage {pair[1]} expects another shape, layout or precision (instruction {j})"
            yield Fault(pair[0], i, rule, "give both ends equal specs")
    for i, send in sends[len(receives) :]:
        yield Fault(pair[0], i, f"stage {pair[1]} never receives {send.tag}", "receive it there")
    for j, recv in receives[len(sends) :]:
        yield Fault(pair[1], j, f"stage {pair[0]} never sends {recv.tag}", "send it there")
