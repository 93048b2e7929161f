"""How much memory the named buffers of a stage take, instruction by instruction."""

from __future__ import annotations

from dataclasses import dataclass

from stretto.program.instruction import STAYS, Free, StageProgram
from stretto.rules import Placement


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a rank of a stage holds. What autograd keeps of a compute is not counted.

    Attributes:
        resting_bytes: Between steps, with a step's data.
        held_bytes: After each instruction.
    """

    resting_bytes: int
    held_bytes: tuple[int, ...]

    @property
    def peak_bytes(self) -> int:
        """The most that is held at once."""
        return max((self.resting_bytes, *self.held_bytes))


def memory(stage: StageProgram, placement: Placement) -> Footprint:
    """Give what a rank of `stage` holds.

    A buffer is held from the instruction that first writes it to the one that frees it. One that is
    received or brought by a move counts from where it is asked for.
    """
    size = {name: spec.local_bytes(placement) for name, spec in stage.buffers.items()}
    live = set(stage.resting(*STAYS))
    held = resting = sum(size[name] for name in live)
    after = []
    for instruction in stage.instructions:
        if isinstance(instruction, Free):
            held -= sum(size[name] for name in live.intersection(instruction.buffers))
            live.difference_update(instruction.buffers)
        else:
            new = set(instruction.output) - live
            held += sum(size[name] for name in new)
            live |= new
        after.append(held)
    return Footprint(resting, tuple(after))
