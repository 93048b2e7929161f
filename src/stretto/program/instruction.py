"""The instructions of a program: a small closed set. Everything else reads them.

Buffers are named by strings; `StageProgram.buffers` says what each is. An instruction says what it
reads, writes and adds to. Moves, sends and receives are issued where they stand, with what they add
as it is then, and awaited by the first instruction that reads (or frees) what they write.

Offload (``Stash``/``Fetch``) and data-dependent exchange (``Exchange``) join the set with the plans
that lower to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from stretto.layout import Kind, Layout, Reduction, Step
from stretto.model import Block, Model, Segment
from stretto.plan import DTYPE_BYTES, Plan
from stretto.rules import Placement

Buffer = str
Named = tuple[tuple[str, Buffer], ...]
"""(name within the block, buffer)."""
Sums = tuple[tuple[Buffer, Buffer], ...]
"""(written buffer, buffer whose content is added to what is written)."""


class Role(StrEnum):
    """What a buffer holds."""

    PARAMETER = "parameter"
    """A parameter as it rests. Stays from step to step."""
    STATE = "state"
    """Master weights and moments. Stays from step to step."""
    GIVEN = "given"
    """Tokens, targets, mask, counts: comes with the step's data."""
    WORKING = "working"
    """A parameter gathered for use."""
    GRADIENT = "gradient"
    ACTIVATION = "activation"
    GRAPH = "graph"
    """What autograd keeps for the backward of a compute."""
    VERDICT = "verdict"
    """What a vote decided."""


STAYS = (Role.PARAMETER, Role.STATE, Role.GIVEN)
"""Roles of buffers that outlive the step."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a buffer is.

    Attributes:
        role: What it holds.
        shape: Global shape, padding included; () for a graph.
        layout: How it lies.
        dtype: ``float64``, ``float32``, ``bfloat16`` or ``int64``.
        parameter: The parameter that it belongs to, if any.
    """

    role: Role
    shape: tuple[int, ...]
    layout: Layout
    dtype: str
    parameter: str = ""

    def local_shape(self, placement: Placement) -> tuple[int, ...]:
        """Give the shape of one rank's block."""
        return self.layout.local(self.shape, mesh=placement.mesh)

    def local_bytes(self, placement: Placement) -> int:
        """Give the bytes of one rank's block; 0 for a graph."""
        if self.role is Role.GRAPH:
            return 0
        size = DTYPE_BYTES[self.dtype]
        for extent in self.local_shape(placement):
            size *= extent
        return size


class Phase(StrEnum):
    """What a compute does with its segments."""

    FORWARD = "forward"
    RECOMPUTE = "recompute"
    BACKWARD = "backward"


@dataclass(frozen=True, slots=True)
class Compute:
    """Run segments of one block on one micro-batch.

    Forward and recompute read `values` and `parameters` and write `writes`; with a `graph` they
    keep what the backward needs, but for the parameters, which may be freed and gathered again.
    Backward reads the graph, the `parameters` and, in `values`, the cotangents of what the forward
    wrote (none for the loss, whose cotangent is the program's `loss_scale`), and writes the
    cotangents of what it read (`writes`) and the parameters' gradients (`gradients`).

    Attributes:
        phase: Forward, recompute or backward.
        block: Index in the model's chain.
        segments: First and one past the last segment.
        micro_batch: Which micro-batch.
        values: Values read.
        parameters: Parameters read.
        writes: Values written.
        gradients: Gradients written (backward), by parameter.
        adds: Written buffers to which something is added.
        graph: The graph kept or read; empty for none.
    """

    phase: Phase
    block: int
    segments: tuple[int, int]
    micro_batch: int
    values: Named = ()
    parameters: Named = ()
    writes: Named = ()
    gradients: Named = ()
    adds: Sums = ()
    graph: Buffer = ""

    @property
    def input(self) -> tuple[Buffer, ...]:
        """Buffers read."""
        kept = (self.graph,) if self.graph and self.phase is Phase.BACKWARD else ()
        return (
            *(b for _, b in self.values), *(b for _, b in self.parameters),
            *(b for _, b in self.adds), *kept,
        )  # fmt: skip

    @property
    def output(self) -> tuple[Buffer, ...]:
        """Buffers written."""
        kept = (self.graph,) if self.graph and self.phase is not Phase.BACKWARD else ()
        return (*(b for _, b in self.writes), *(b for _, b in self.gradients), *kept)


@dataclass(frozen=True, slots=True)
class Leg:
    """One buffer's part in a move.

    Where the shapes differ the source is padded with zeros at the ends before the steps, or cropped
    at the ends after them: a dimension is padded where it is split.

    Attributes:
        source: Where from.
        target: Where to.
        steps: From `redistribute`.
    """

    source: Buffer
    target: Buffer
    steps: tuple[Step, ...]


Route = tuple[tuple[Kind, tuple[str, ...], Reduction], ...]
"""What the steps of a move do, on which groups; their dimensions may differ."""


def route(steps: Iterable[Step]) -> Route:
    """Give what `steps` do, but for their dimensions."""
    return tuple((s.kind, s.axes, s.reduction) for s in steps)


@dataclass(frozen=True, slots=True)
class Move:
    """Bring buffers from one layout to another, all by one route: each step is one message.

    Attributes:
        legs: Each buffer's part; the routes of their steps are the same.
        adds: Written buffers to which something is added.
    """

    legs: tuple[Leg, ...]
    adds: Sums = ()

    @property
    def route(self) -> Route:
        """What the steps do, on which groups."""
        return route(self.legs[0].steps)

    @property
    def input(self) -> tuple[Buffer, ...]:
        """Buffers read."""
        return (*(leg.source for leg in self.legs), *(b for _, b in self.adds))

    @property
    def output(self) -> tuple[Buffer, ...]:
        """Buffers written."""
        return tuple(leg.target for leg in self.legs)


@dataclass(frozen=True, slots=True)
class Send:
    """Send buffers to the rank `by` places along ``pp``.

    Attributes:
        buffers: What is sent.
        by: How far, +1 for the next stage.
        tag: What the matching receive carries.
    """

    buffers: tuple[Buffer, ...]
    by: int
    tag: str

    @property
    def input(self) -> tuple[Buffer, ...]:
        """Buffers read."""
        return self.buffers

    @property
    def output(self) -> tuple[Buffer, ...]:
        """Buffers written: none."""
        return ()


@dataclass(frozen=True, slots=True)
class Recv:
    """Receive buffers from the rank `by` places along ``pp``.

    Attributes:
        buffers: What is received.
        by: Where from, -1 for the stage before.
        tag: What the matching send carries.
        adds: Received buffers to which something is added.
    """

    buffers: tuple[Buffer, ...]
    by: int
    tag: str
    adds: Sums = ()

    @property
    def input(self) -> tuple[Buffer, ...]:
        """Buffers read."""
        return tuple(b for _, b in self.adds)

    @property
    def output(self) -> tuple[Buffer, ...]:
        """Buffers written."""
        return self.buffers


@dataclass(frozen=True, slots=True)
class Free:
    """Give back buffers that nobody reads again.

    Attributes:
        buffers: Which.
    """

    buffers: tuple[Buffer, ...]

    @property
    def input(self) -> tuple[Buffer, ...]:
        """Buffers read: none."""
        return ()

    @property
    def output(self) -> tuple[Buffer, ...]:
        """Buffers written: none."""
        return ()


@dataclass(frozen=True, slots=True)
class Vote:
    """Agree among all ranks on the step: loss, tokens, gradient norm, and whether it counts.

    Each rank contributes what it owns (`Layout.owns`); the sums are the same everywhere.

    Attributes:
        loss: The loss summed over this rank's tokens, where this stage has it.
        counts: The numbers of valid targets, where this stage has the loss.
        gradients: Gradients whose norm is taken.
        verdict: Where the result goes.
    """

    loss: tuple[Buffer, ...]
    counts: tuple[Buffer, ...]
    gradients: tuple[Buffer, ...]
    verdict: Buffer

    @property
    def input(self) -> tuple[Buffer, ...]:
        """Buffers read."""
        return (*self.loss, *self.counts, *self.gradients)

    @property
    def output(self) -> tuple[Buffer, ...]:
        """Buffers written."""
        return (self.verdict,)


@dataclass(frozen=True, slots=True)
class Weight:
    """One parameter's part in an update.

    Attributes:
        parameter: Its name.
        gradient: The reduced gradient.
        state: Master weight and first and second moment, as they rest. The master weight is
            `weight` itself where layout and precision agree.
        weight: Where the new value goes, in the precision of compute.
    """

    parameter: str
    gradient: Buffer
    state: tuple[Buffer, Buffer, Buffer]
    weight: Buffer


@dataclass(frozen=True, slots=True)
class Update:
    """Take the optimizer step for some parameters, if the vote was for it.

    Attributes:
        verdict: What the vote decided.
        weights: What is updated.
    """

    verdict: Buffer
    weights: tuple[Weight, ...]

    @property
    def input(self) -> tuple[Buffer, ...]:
        """Buffers read."""
        return (self.verdict, *(b for w in self.weights for b in (w.gradient, *w.state)))

    @property
    def output(self) -> tuple[Buffer, ...]:
        """Buffers written."""
        return tuple(dict.fromkeys(b for w in self.weights for b in (*w.state, w.weight)))


Instruction = Compute | Move | Send | Recv | Free | Vote | Update

Stream = Literal["compute", "collective", "forward", "backward", "none"]


def stream(instruction: Instruction) -> Stream:
    """Give the stream that `instruction` runs on; within a stream order is kept."""
    match instruction:
        case Compute() | Update():
            return "compute"
        case Move() | Vote():
            return "collective"
        case Send(by=by):
            return "forward" if by > 0 else "backward"
        case Recv(by=by):
            return "forward" if by < 0 else "backward"
        case Free():
            return "none"


@dataclass(frozen=True, slots=True)
class StageProgram:
    """What every rank of one pipeline stage does in a step: the same list, at other coordinates.

    Attributes:
        stage: Its place along ``pp``.
        blocks: First and one past the last block of the chain.
        instructions: The list.
        buffers: What each buffer is.
    """

    stage: int
    blocks: tuple[int, int]
    instructions: tuple[Instruction, ...]
    buffers: Mapping[Buffer, Spec]

    def resting(self, *roles: Role) -> tuple[Buffer, ...]:
        """Give the buffers of `roles`, in order."""
        return tuple(name for name, spec in self.buffers.items() if spec.role in roles)


@dataclass(frozen=True, slots=True)
class Program:
    """One training step of a model under a plan.

    Attributes:
        model: What is trained.
        plan: How.
        placement: Where its tensors lie.
        chain: The model's blocks.
        stages: What each stage does.
    """

    model: Model
    plan: Plan
    placement: Placement
    chain: tuple[Block, ...]
    stages: tuple[StageProgram, ...]

    @property
    def loss_scale(self) -> float:
        """The cotangent of the summed loss: one over the positions of a step, a constant.

        The update makes it one over the valid targets, which only the vote knows.
        """
        return 1.0 / (self.plan.batch.sequences * self.plan.batch.seq)

    def of(self, rank: int) -> StageProgram:
        """Give what `rank` does."""
        return self.stages[self.placement.mesh.coordinate(rank).get("pp", 0)]

    def segments(self, compute: Compute) -> tuple[Segment, ...]:
        """Give the segments that `compute` runs."""
        first, stop = compute.segments
        return self.chain[compute.block].segments[first:stop]


def dims_of(segments: Iterable[Segment]) -> frozenset[str]:
    """Give every logical dimension that `segments` iterate over."""
    return frozenset(d for segment in segments for d in segment.dims)
