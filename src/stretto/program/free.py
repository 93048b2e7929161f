"""When buffers are given back: after the last instruction that names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stretto.program.instruction import STAYS, Buffer, Free, Instruction, Spec
from stretto.program.repeat import mention


def freed(
    instructions: Sequence[Instruction], buffers: Mapping[Buffer, Spec]
) -> tuple[Instruction, ...]:
    """Free every buffer that does not stay after the last instruction that names it."""
    last: dict[Buffer, int] = {}
    mention(last, instructions)
    return with_frees(instructions, last, buffers)


def with_frees(
    instructions: Sequence[Instruction], last: Mapping[Buffer, int], buffers: Mapping[Buffer, Spec]
) -> tuple[Instruction, ...]:
    """Free buffers after the instructions that name them last."""
    dying: dict[int, list[Buffer]] = {}
    for name, i in last.items():
        if buffers[name].role not in STAYS:
            dying.setdefault(i, []).append(name)
    out: list[Instruction] = []
    for i, instruction in enumerate(instructions):
        out.append(instruction)
        if i in dying:
            out.append(Free(tuple(dying[i])))
    return tuple(out)
