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
from stretto.runtime.recorder import Parts, Recorder
from stretto.timeline.rows import after_vote


@dataclass(slots=True)
class Executor:
    """A rank's list of instructions, each bound to what it does.

    Attributes:
        rank: The rank's state.
        recorder: What records steps; None for nothing.
        actions: What it does up to its vote, and after it, in order.
    """

    rank: Rank
    recorder: Recorder | None = None
    actions: Parts = field(init=False)

    def __post_init__(self) -> None:
        """Bind every instruction once, so that a step only calls."""
        instructions = self.rank.stage.instructions
        bound = tuple(
            _bound(self.rank, instruction, set(after.buffers) if isinstance(after, Free) else set())
            for instruction, after in zip_longest(instructions, instructions[1:])
        )
        voted = after_vote(self.rank.stage)
        self.actions = bound[:voted], bound[voted:]

    def step(
        self,
        batches: Iterable[MicroBatch],
        *,
        step: int,
        stop: bool = False,
        waited_s: float = 0.0,
    ) -> Outcome:
        """Run the program once.

        Args:
            batches: This replica's micro-batches, in order.
            step: The step's number, counted from 0.
            stop: Whether this rank asks to stop after the step.
            waited_s: Seconds that it waited for the micro-batches.
        """
        rank, recorder = self.rank, self.recorder
        if recorder is not None:
            recorder.came(waited_s)
        rank.clock = Clock()
        began = time.perf_counter()
        rank.step, rank.stop = step, stop
        for m, batch in enumerate(batches):
            _give(rank, batch, m)
        for action in self._actions()[0]:
            action()
        if recorder is not None:
            recorder.voted(step + 1)
        for action in self._actions()[1]:
            action()
        rank.send_off()
        for name in rank.stage.resting(Role.GIVEN):
            rank.buffers.pop(name, None)
        rank.clock.step_s = time.perf_counter() - began
        if recorder is not None:
            recorder.left()
        return rank.outcome

    def _actions(self) -> Parts:
        return self.actions if self.recorder is None else self.recorder.actions(self.actions)


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
