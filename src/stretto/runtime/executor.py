"""`execute`: one rank runs its stage's list, step after step. It decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest

import torch

from stretto import nn
from stretto.data.feed import MicroBatch
from stretto.program.instruction import (
    Compute,
    Free,
    Instruction,
    Move,
    Phase,
    Recv,
    Role,
    Send,
    Update,
    Vote,
)
from stretto.runtime.compute import backward, forward
from stretto.runtime.finish import update, vote
from stretto.runtime.message import move, recv, send
from stretto.runtime.rank import DTYPES, Clock, Outcome, Rank


@dataclass(slots=True)
class Executor:
    """A rank's list of instructions, each bound to what it does.

    Attributes:
        rank: The rank's state.
        actions: What it does, in order.
    """

    rank: Rank
    actions: tuple[Callable[[], None], ...] = field(init=False)

    def __post_init__(self) -> None:
        """Bind every instruction once, so that a step only calls."""
        instructions = self.rank.stage.instructions
        self.actions = tuple(
            _bound(self.rank, instruction, set(after.buffers) if isinstance(after, Free) else set())
            for instruction, after in zip_longest(instructions, instructions[1:])
        )

    def step(self, batches: Iterable[MicroBatch], *, step: int, stop: bool = False) -> Outcome:
        """Run the program once.

        Args:
            batches: This replica's micro-batches, in order.
            step: The step's number, counted from 0.
            stop: Whether this rank asks to stop after the step.
        """
        rank = self.rank
        rank.clock = Clock()
        began = time.perf_counter()
        rank.step, rank.stop = step, stop
        for m, batch in enumerate(batches):
            _give(rank, batch, m)
        for action in self.actions:
            action()
        rank.send_off()
        for name in rank.stage.resting(Role.GIVEN):
            rank.buffers.pop(name, None)
        rank.clock.step_s = time.perf_counter() - began
        return rank.outcome


def _bound(rank: Rank, instruction: Instruction, freed: set[str]) -> Callable[[], None]:
    """Give what an instruction does; `freed` is given back right after it."""
    match instruction:
        case Compute(phase=Phase.BACKWARD):
            return backward(rank, instruction)
        case Compute():
            return forward(rank, instruction)
        case Move():
            consumed = all(leg.source in freed for leg in instruction.legs)
            return move(rank, instruction, consumed=consumed)
        case Send():
            return send(rank, instruction)
        case Recv():
            return recv(rank, instruction)
        case Free():
            return partial(rank.free, instruction.buffers)
        case Vote():
            return vote(rank, instruction)
        case Update():
            return update(rank, instruction)


def _give(rank: Rank, batch: MicroBatch, m: int) -> None:
    """Put a micro-batch where the program expects it."""
    specs = rank.stage.buffers
    arrays = {
        "tokens": batch.tokens_BT,
        "targets": batch.targets_BT,
        "positions": batch.positions_BT,
    }
    for name, array in arrays.items():
        if f"{name}.m{m}" in specs:
            rank.buffers[f"{name}.m{m}"] = torch.from_numpy(array).to(rank.device)
    if f"mask.m{m}" in specs:
        documents = batch.documents_BT
        rank.buffers[f"mask.m{m}"] = nn.attention_input(
            rank.program.model,
            positions=batch.tokens_BT.shape[1],
            documents_BT=None if documents is None else torch.from_numpy(documents),
            device=rank.device,
            dtype=DTYPES[rank.program.plan.numerics.dtype],
        )
    if f"count.m{m}" in specs:
        rank.buffers[f"count.m{m}"] = int((batch.targets_BT >= 0).sum())
