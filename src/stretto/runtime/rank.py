"""One rank's state: its buffers, the messages under way, and where its time goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stretto.layout import Layout
from stretto.program.instruction import Buffer, Program, StageProgram, Sums
from stretto.recipe import Recipe
from stretto.runtime.collective import Group, Message, issue

DTYPES: Mapping[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
}

Addend = tuple[bool, Tensor]
"""(whether it is added to in place, what is added)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step came to, the same on every rank.

    Attributes:
        loss: Mean loss over the valid targets of the step, in nats.
        targets: Number of valid targets.
        norm: Global norm of the mean gradient, before clipping.
        applied: Whether the weights were updated: not if the loss or the norm is not finite.
        stop: Whether a rank asked to stop.
    """

    loss: float = math.nan
    targets: int = 0
    norm: float = math.nan
    applied: bool = False
    stop: bool = False


@dataclass(slots=True)
class Clock:
    """Where the time of a step goes on this rank, in seconds.

    Attributes:
        compute_s: In blocks and the optimizer.
        communication_s: Issuing messages and waiting for them.
        step_s: The whole step. What is left is the interpreter's own.
    """

    compute_s: float = 0.0
    communication_s: float = 0.0
    step_s: float = 0.0

    @property
    def overhead(self) -> float:
        """The interpreter's share of the step."""
        return 1.0 - (self.compute_s + self.communication_s) / self.step_s if self.step_s else 0.0


@dataclass(frozen=True, slots=True)
class Pending:
    """A message whose targets nobody has read yet.

    Attributes:
        message: The message.
        finish: Puts what arrived where it belongs.
        targets: The buffers that it writes.
    """

    message: Message
    finish: Callable[[list[Tensor]], None]
    targets: tuple[Buffer, ...]


@dataclass(slots=True)
class Rank:
    """What a rank has while it runs a program.

    Attributes:
        program: The program.
        number: This rank.
        device: Where its buffers lie.
        groups: The process groups by axes, and those of the two directions along ``pp``.
        recipe: How weights change.
        buffers: Every live buffer.
        clock: Where the time of this step goes.
        gradients: If set, called with every reduced gradient before the update.
        step: The step that is running, counted from 0.
        stop: Whether this rank asks to stop after it.
        outcome: What the last vote came to.
        pending: Messages under way, by each buffer that they write.
        sends: Messages to neighbours under way, with what they carry.
        runners: The function of each kind of compute.
        issue: How a step of a move is begun; a recorder looks on.
    """

    program: Program
    number: int
    device: torch.device
    groups: Mapping[tuple[str, ...], Group]
    recipe: Recipe
    buffers: dict[Buffer, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    gradients: Callable[[str, Layout, Tensor], None] | None = None
    step: int = 0
    stop: bool = False
    outcome: Outcome = field(default_factory=Outcome)
    pending: dict[Buffer, Pending] = field(default_factory=dict)
    sends: list[tuple[dist.Work, Tensor]] = field(default_factory=list)
    runners: dict[Hashable, Callable[..., Any]] = field(default_factory=dict)
    issue: Callable[..., Message] = issue

    @property
    def stage(self) -> StageProgram:
        """What this rank does."""
        return self.program.of(self.number)

    @property
    def replica(self) -> int:
        """Which replica it is of: whose micro-batches it takes."""
        axes = dict(self.program.plan.rules.compute).get("batch", ())
        return self.program.placement.mesh.index(self.number, axes)

    def on(self, program: Program) -> Rank:
        """Give a rank that runs another program of the same plan on the same buffers."""
        return Rank(
            program, self.number, self.device, self.groups, self.recipe, self.buffers,
            runners=self.runners,
        )  # fmt: skip

    def dtype(self, name: Buffer) -> torch.dtype:
        """Give the precision of a buffer."""
        return DTYPES[self.stage.buffers[name].dtype]

    def owns(self, name: Buffer) -> bool:
        """Say whether this rank is the first of those that hold the same of a buffer."""
        mesh = self.program.placement.mesh
        return self.stage.buffers[name].layout.owns(mesh=mesh, rank=self.number, besides=("pp",))

    def read(self, name: Buffer) -> Any:
        """Give what a buffer holds, once it has arrived."""
        if name in self.pending:
            self.arrive(name)
        return self.buffers[name]

    def arrive(self, name: Buffer) -> None:
        """Wait for the message that writes a buffer."""
        pending = self.pending[name]
        began = time.perf_counter()
        tensors = pending.message.wait()
        for target in pending.targets:
            del self.pending[target]
        pending.finish(tensors)
        self.clock.communication_s += time.perf_counter() - began

    def settle(self) -> None:
        """Wait for every message that writes a buffer."""
        while self.pending:
            self.arrive(next(iter(self.pending)))

    def send_off(self) -> None:
        """Wait until every message to a neighbour has left."""
        for work, _ in self.sends:
            work.wait()
        self.sends.clear()

    def free(self, names: tuple[Buffer, ...]) -> None:
        """Give back buffers."""
        for name in names:
            if name in self.pending:
                self.arrive(name)
            del self.buffers[name]

    def addends(self, adds: Sums) -> dict[Buffer, Addend]:
        """Give what is added to each written buffer, as it is now."""
        return {target: (target == name, self.read(name)) for target, name in adds}

    def put(self, name: Buffer, tensor: Tensor, addend: Addend | None = None) -> None:
        """Write a buffer in its precision, adding what is to be added."""
        match addend:
            case None:
                self.buffers[name] = tensor.to(self.dtype(name))
            case (True, total):
                self.buffers[name] = total.add_(tensor)
            case (_, other):
                self.buffers[name] = torch.add(other, tensor).to(self.dtype(name))
