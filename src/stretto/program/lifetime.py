"""Does every buffer live as it should: written once, then read, then freed once?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from stretto.program.fault import Fault
from stretto.program.instruction import (
    STAYS,
    Buffer,
    Compute,
    Free,
    Instruction,
    Move,
    Recv,
    Role,
    Send,
    StageProgram,
    Sums,
    Update,
)


def lifetimes(stage: StageProgram) -> Iterator[Fault]:
    """Give a fault for each buffer of `stage` that is read, written or freed out of turn.

    In the end nothing is left but what stays, so that memory returns to its resting level.
    """
    lives = _Lives(stage, set(stage.resting(*STAYS)))
    for i, instruction in enumerate(stage.instructions):
        yield from lives.read(i, instruction)
        if isinstance(instruction, Free):
            yield from lives.free(i, instruction)
        else:
            yield from lives.write(i, instruction)
    for name in sorted(lives.live - set(stage.resting(*STAYS))):
        yield Fault(stage.stage, -1, f"{name} is never freed", "free it after its last reader")


def reads(instruction: Instruction) -> tuple[Buffer, ...]:
    """Give the buffers that an instruction waits for: what it reads or frees."""
    return instruction.buffers if isinstance(instruction, Free) else instruction.input


def _adds(instruction: Instruction) -> Sums:
    return instruction.adds if isinstance(instruction, Compute | Move | Recv) else ()


@dataclass(slots=True)
class _Lives:
    """What is known of the buffers of a stage before its next instruction.

    Attributes:
        stage: The stage.
        live: Buffers that may be read.
        written: Buffers that have been written in this step.
        arriving: What a message brings and nobody has read yet, and the instruction that asked.
        lent: What a message reads, and the buffers whose first reader awaits it.
    """

    stage: StageProgram
    live: set[Buffer]
    written: set[Buffer] = field(default_factory=set)
    arriving: dict[Buffer, int] = field(default_factory=dict)
    lent: list[tuple[Buffer, frozenset[Buffer]]] = field(default_factory=list)

    def _fault(self, at: int, rule: str, remedy: str) -> Fault:
        return Fault(self.stage.stage, at, rule, remedy)

    def read(self, at: int, instruction: Instruction) -> Iterator[Fault]:
        """Take note of what an instruction waits for."""
        names = dict.fromkeys(reads(instruction))
        for name in names:
            if name not in self.live:
                past = "after it is freed" if name in self.written else "before it is written"
                yield self._fault(at, f"reads {name} {past}", "write it first")
        self.lent = [(name, ends) for name, ends in self.lent if ends.isdisjoint(names)]

    def free(self, at: int, free: Free) -> Iterator[Fault]:
        """Take note of what is freed."""
        for name in free.buffers:
            if self.stage.buffers[name].role in STAYS:
                yield self._fault(at, f"frees {name}, which stays", "keep it")
            if name in self.arriving:
                rule = f"brings {name}, which nobody reads"
                yield self._fault(self.arriving.pop(name), rule, "leave it out")
            if free.buffers.count(name) > 1:
                yield self._fault(at, f"frees {name} twice", "free it once")
        self.live.difference_update(free.buffers)

    def write(self, at: int, instruction: Instruction) -> Iterator[Fault]:
        """Take note of what an instruction writes."""
        grows = {target for target, addend in _adds(instruction) if target == addend}
        lent = {name for name, _ in self.lent}
        for target, _ in _adds(instruction):
            if target not in instruction.output:
                yield self._fault(at, f"adds to {target}, which it does not write", "write it")
        for name in instruction.output:
            if self.stage.buffers[name].role is Role.GIVEN:
                yield self._fault(at, f"writes {name}, which is given", "write another buffer")
            if name in self.written and name not in grows:
                yield self._fault(at, f"writes {name} a second time", "add to it, or rename it")
            if name in lent:
                rule = f"writes {name} while a message still reads it"
                yield self._fault(at, rule, "read or free what the message brings first")
        if not isinstance(instruction, Update):  # it changes the state that it reads
            for name in sorted(set(instruction.output) & set(instruction.input) - grows):
                yield self._fault(at, f"reads and writes {name} at once", "write another buffer")
        self.written.update(instruction.output)
        self.live.update(instruction.output)
        self._travel(at, instruction)

    def _travel(self, at: int, instruction: Instruction) -> None:
        """Take note of what a message reads and brings."""
        for name in instruction.input:
            self.arriving.pop(name, None)
        if isinstance(instruction, Move | Recv):
            self.arriving |= dict.fromkeys(instruction.output, at)
        if isinstance(instruction, Move | Send | Recv):
            ends = frozenset(instruction.output)
            self.lent += [(name, ends) for name in instruction.input if name not in ends]
