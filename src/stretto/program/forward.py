"""The forward half of a program: what it takes to know the loss."""

from __future__ import annotations

from dataclasses import replace

from stretto.program.free import freed
from stretto.program.instruction import (
    Buffer,
    Compute,
    Free,
    Instruction,
    Program,
    Recv,
    Send,
    StageProgram,
    Vote,
)


def forward_only(program: Program) -> Program:
    """Give the program that votes on the loss and does nothing that the loss does not need.

    The stages are sliced from the last to the first: a stage sends what the next one still wants.
    """
    stages: list[StageProgram] = []
    wanted: set[str] = set()
    for stage in reversed(program.stages):
        kept, wanted = _slice(stage, wanted)
        instructions = freed(kept, stage.buffers)
        stages.append(replace(stage, instructions=instructions))
    return replace(program, stages=tuple(reversed(stages)))


def _slice(stage: StageProgram, wanted: set[str]) -> tuple[list[Instruction], set[str]]:
    """Give what a stage keeps, and the tags of what it still receives."""
    live: set[Buffer] = set()
    kept: list[Instruction] = []
    received: set[str] = set()
    for instruction in reversed(stage.instructions):
        match instruction:
            case Vote():
                instruction = replace(instruction, gradients=())
            case Send(tag=tag) if tag in wanted:
                pass
            case Recv(tag=tag) if live & set(instruction.output):
                received.add(tag)
            case Compute() if live & set(instruction.output):
                instruction = replace(instruction, graph="")
            case Free() | Send() | Recv():
                continue
            case _:
                if not live & set(instruction.output):
                    continue
        live |= set(instruction.input)
        kept.append(instruction)
    return kept[::-1], received
