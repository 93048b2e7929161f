"""What one instruction takes, alone: of the same primitives as the closed form of a step."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from stretto.cost.collectives import all_reduce_s, exchange_s, ring_s, send_s
from stretto.cost.kernels import attention_s, matmul_s, memory_s
from stretto.cost.layer import BACKWARD_KERNELS, LOSS_KERNELS
from stretto.cost.machine import Machine
from stretto.cost.numbers import Number
from stretto.cost.stack import Stack
from stretto.errors import ModelError
from stretto.layout import Kind
from stretto.model import Block, Parameter, Segment
from stretto.plan import DTYPE_BYTES
from stretto.program.instruction import (
    Compute,
    Free,
    Instruction,
    Move,
    Phase,
    Program,
    Recv,
    Role,
    Send,
    StageProgram,
    Update,
    Vote,
)
from stretto.program.traffic import traffic

BALLOT_BYTES = 32
"""Of a vote: four numbers in float64."""

WEIGHT_KERNELS = 0.1
"""Kernels of a weight's update where a host does it, over those of a layer."""


@dataclass(frozen=True, slots=True)
class Message:
    """What goes over links at once: a step of a move, a send, or a vote.

    Attributes:
        kind: A step's kind, or what else it is.
        axes: Of the group that takes part; all ranks vote.
        size_bytes: What a rank sends, has after gathering, or before reducing or scattering.
        sent_bytes: What each rank sends.
        role: What it carries.
    """

    kind: Kind | Literal["send", "vote"]
    axes: tuple[str, ...]
    size_bytes: float
    sent_bytes: int
    role: Role


def messages(
    instruction: Instruction, stage: StageProgram, program: Program
) -> tuple[Message, ...]:
    """Give the messages of an instruction, one after the other.

    A receive has those of the send that it waits for, which is priced once, there.

    Args:
        instruction: One of `stage`.
        stage: Its stage.
        program: The program.
    """
    match instruction:
        case Move(legs=legs):
            steps = [s for s in legs[0].steps if s.communicates]
            role = stage.buffers[legs[0].target].role
            sent = traffic(instruction, stage, program.placement)
            mesh = program.placement.mesh
            return tuple(
                Message(s.kind, axes, _whole(s.kind, size, mesh.extent(*axes)), size, role)
                for s, (axes, size) in zip(steps, sent, strict=True)
            )
        case Send(buffers=buffers):
            role = stage.buffers[buffers[0]].role
            sent = traffic(instruction, stage, program.placement)
            return tuple(Message("send", axes, size, size, role) for axes, size in sent)
        case Vote():
            axes = tuple(name for name, _ in program.placement.mesh.axes)
            return (Message("vote", axes, BALLOT_BYTES, BALLOT_BYTES, Role.VERDICT),)
        case Compute() | Update() | Recv() | Free():
            return ()


def _whole(kind: Kind, sent_bytes: int, ranks: int) -> float:
    """Give the size of which a rank sends `sent_bytes`: see `program.traffic.sent_bytes`."""
    if ranks == 1:
        return 0.0
    twice = 2 if kind is Kind.ALL_REDUCE else 1
    return sent_bytes / twice * ranks / (ranks - 1)


@dataclass(frozen=True, slots=True)
class Burden:
    """What segments do in a forward pass on one micro-batch and rank.

    Attributes:
        products: Rows, columns and depth of each matrix product.
        scores_s: Of attention.
        moved_bytes: By norms, rotations, activations, additions and lookups.
        logits: Elements that the loss reads.
        weights: Elements of matrices whose gradients are added up.
        kernels: That the host starts.
        only_weights: Whether its backward pass takes what the forward one does, as a lookup's.
    """

    products: tuple[tuple[float, float, float], ...] = ()
    scores_s: float = 0.0
    moved_bytes: float = 0.0
    logits: float = 0.0
    weights: float = 0.0
    kernels: float = 0.0
    only_weights: bool = False


@dataclass(frozen=True)
class Prices:
    """What the instructions of a program take.

    Attributes:
        program: The program.
        machine: What it runs on.
        stack: With which software.
    """

    program: Program
    machine: Machine
    stack: Stack

    def seconds(self, instruction: Instruction, stage: StageProgram) -> float:
        """Give the seconds that an instruction takes alone, on links between the nearest ranks.

        A receive and a free take none: the one waits for a send, the other is done at once.
        """
        match instruction:
            case Compute():
                return self.compute_s(instruction)
            case Update():
                return self.update_s(instruction, stage)
            case Move() | Send() | Vote():
                mesh = self.program.placement.mesh
                return sum(
                    self.message_s(m, mesh.group(0, m.axes)[: 2 if m.kind == "send" else None])
                    for m in messages(instruction, stage, self.program)
                )
            case Recv() | Free():
                return 0.0

    # ── on the device ────────────────────────────────────────────────────────────────────────────

    def compute_s(self, compute: Compute) -> float:
        """Give the seconds that a compute keeps the device busy."""
        return self._taken(compute)[0]

    def host_s(self, compute: Compute) -> float:
        """Give the seconds that a host beside the device needs to start a compute's kernels."""
        return self._taken(compute)[1]

    def _taken(self, compute: Compute) -> tuple[float, float]:
        """Give the seconds of device and host; blocks of a kind that attend alike take the same.

        A device that is its own host takes both.
        """
        block, backward = self.program.chain[compute.block], _is_backward(compute)
        positions = self.program.plan.batch.seq
        attended = self.program.model.attends_to(block.layer, positions=positions)
        key = (backward, block.kind, compute.segments, attended)
        if key not in self._known:
            burdens = list(self._burdens(compute))
            one = self._backward_s if backward else self._forward_s
            kernels = sum(b.kernels for b in burdens) * (BACKWARD_KERNELS if backward else 1.0)
            started, own = kernels * float(self.machine.launch_s), float(self.machine.host)
            self._known[key] = sum(map(one, burdens)) + own * started, (1 - own) * started
        return self._known[key]

    @cached_property
    def _known(self) -> dict[Hashable, tuple[float, float]]:
        return {}

    def update_s(self, update: Update, stage: StageProgram) -> float:
        """Give the seconds of an optimizer step."""
        placement = self.program.placement
        states = (stage.buffers[w.state[1]] for w in update.weights)
        elements = sum(math.prod(spec.local_shape(placement)) for spec in states)
        kernels = WEIGHT_KERNELS * float(self.stack.kernels) * len(update.weights)
        started = float(self.machine.host) * kernels * float(self.machine.launch_s)
        return float(memory_s(self.stack.optimizer_bytes * elements, self.machine)) + started

    def _forward_s(self, burden: Burden) -> float:
        moved = self.stack.pointwise * burden.moved_bytes
        moved = moved + self.stack.loss_bytes * burden.logits / 2
        products = sum(self._product_s(*p) for p in burden.products)
        return products + burden.scores_s + float(memory_s(moved, self.machine))

    def _backward_s(self, burden: Burden) -> float:
        again = 1.0 if burden.only_weights else self.stack.pointwise_backward
        moved = self.stack.pointwise * again * burden.moved_bytes
        moved = moved + self.stack.loss_bytes * burden.logits / 2
        moved = moved + self.stack.accumulate_bytes * burden.weights
        inputs = sum(self._product_s(m, k, n) for m, n, k in burden.products)
        weights = sum(self._product_s(n, k, m) for m, n, k in burden.products)
        scores = burden.scores_s * float(self.stack.attention_backward)
        return inputs + weights + scores + float(memory_s(moved, self.machine))

    def _product_s(self, rows: float, columns: float, depth: float) -> float:
        seconds = matmul_s(
            _number(rows),
            _number(columns),
            depth=_number(depth),
            machine=self._device,
            precision=self._precision,
        )
        return float(seconds / self.stack.matrix)

    @cached_property
    def _precision(self) -> Number:
        return _number(self.program.plan.numerics.dtype == "bfloat16")

    @cached_property
    def _device(self) -> Machine:
        """The machine; one that multiplies in float64 where that is asked for."""
        if self.program.plan.numerics.dtype != "float64":
            return self.machine
        _, *others = self.machine.matrix_flops_per_s
        rates = (self.machine.double_flops_per_s, *others)
        return replace(self.machine, matrix_flops_per_s=rates)

    def _burdens(self, compute: Compute) -> Iterator[Burden]:
        """Give what the segments of a compute do.

        What a block adds to the residual stream passes its backward at once; the sum of what comes
        back both ways is made where the block begins.
        """
        block = self.program.chain[compute.block]
        first, stop = compute.segments
        for i, segment in enumerate(block.segments):
            at = 0 if _is_backward(compute) and segment.name == "add" else i
            if first <= at < stop:
                yield self._burden(segment, block)

    def _burden(self, segment: Segment, block: Block) -> Burden:
        model, width = self.program.model, DTYPE_BYTES[self.program.plan.numerics.dtype]
        tokens = self._local("batch", "time")
        match segment.name:
            case "lookup":
                moved = 3 * width * self._local("batch", "time", "embed")
                return Burden(moved_bytes=moved, only_weights=True)
            case "norm":
                return Burden(moved_bytes=2 * width * self._local(*segment.reads[0].dims))
            case "add":
                return Burden(moved_bytes=3 * width * self._local(*segment.reads[0].dims))
            case "attend":
                heads, keys = self._local("kv_heads", "group"), self._local("kv_heads")
                rotated = 2 * (heads + 2 * keys) * model.head_dim * tokens
                return Burden(
                    tuple(self._products(segment.parameters, tokens)),
                    scores_s=self._scores_s(block.layer, tokens, heads),
                    moved_bytes=width * rotated,
                    weights=self._elements(segment.parameters),
                    kernels=float(self.stack.kernels) / 2,
                )
            case "transform":
                products = tuple(self._products(segment.parameters, tokens))
                inside = products[0][1] + products[-1][2]
                return Burden(
                    products,
                    moved_bytes=width * inside * tokens,
                    weights=self._elements(segment.parameters),
                    kernels=float(self.stack.kernels) / 2,
                )
            case "logits":
                return Burden(tuple(self._products(segment.parameters, tokens)))
            case "sums":
                kernels = LOSS_KERNELS * float(self.stack.kernels)
                return Burden(logits=self._local("batch", "time", "vocab"), kernels=kernels)
            case "loss":  # three numbers for each position
                master = DTYPE_BYTES[self.program.plan.numerics.master]
                return Burden(moved_bytes=3 * master * tokens)
            case "latent" | "route" | "experts" | "join":
                raise ModelError(model.unsupported)

    def _products(
        self, parameters: Iterable[Parameter], tokens: float
    ) -> Iterator[tuple[float, float, float]]:
        """Give the products with matrices: those that read the same are one."""
        embed = self._local("embed")
        into = 0.0
        out = []
        for p in parameters:
            if p.decay and p.dims[-1] == "embed":
                into += self._local(*p.dims[:-1])
            elif p.decay:
                out.append((tokens, embed, self._local(*p.dims[1:])))
        yield tokens, into, embed
        yield from out

    def _elements(self, parameters: Iterable[Parameter]) -> float:
        return sum(self._local(*p.dims) for p in parameters if p.decay)

    def _scores_s(self, layer: int, tokens: float, heads: float) -> float:
        """Give the seconds of attention's scores in a layer, forward."""
        model, stack, seq = self.program.model, self.stack, self.program.plan.batch.seq
        width, rate = 2 * model.head_dim, self._device.matrix(self._precision) * stack.attention
        if stack.fused_attention > 0:
            seconds = attention_s(
                _number(tokens),
                _number(model.attends_to(layer, positions=seq)),
                heads=_number(heads),
                width=_number(width),
                rate=np.minimum(rate, stack.attention_cap_flops_per_s),
                ramp=stack.attention_ramp,
            )
        else:
            scores = tokens * heads * seq
            seconds = 2 * scores * width / rate + memory_s(stack.score_bytes * scores, self.machine)
        return float(seconds)

    def _local(self, *dims: str) -> float:
        """Give how many elements of a tensor with logical `dims` a rank has in use."""
        placement, batch = self.program.placement, self.program.plan.batch
        sizes = placement.sizes | {
            "batch": batch.micro_batch * self.program.plan.replicas,
            "seq": batch.seq,
            "time": batch.seq,
        }
        shape = tuple(sizes[d] for d in dims)
        return float(math.prod(placement.layout(dims).local(shape, mesh=placement.mesh)))

    # ── on links ─────────────────────────────────────────────────────────────────────────────────

    def message_s(self, message: Message, ranks: Sequence[int]) -> float:
        """Give the seconds of a message among `ranks` while nothing else is under way.

        Ranks of a group are taken to be evenly far apart.
        """
        n = len(ranks)
        if n < 2:
            return float(self.stack.step_s) if message.kind == "vote" else 0.0
        size, count = _number(message.size_bytes), _number(n)
        stride = _number((max(ranks) - min(ranks)) / (n - 1))
        blocking = float(self.stack.collective_s) if message.role is Role.ACTIVATION else 0.0
        match message.kind:
            case Kind.ALL_GATHER | Kind.REDUCE_SCATTER:
                seconds = ring_s(size, count, stride=stride, machine=self.machine)
            case Kind.ALL_REDUCE:
                seconds = all_reduce_s(size, count, stride=stride, machine=self.machine)
                blocking *= 2  # as the two rings that it is made of
            case Kind.ALL_TO_ALL:
                seconds = exchange_s(size, count, stride=stride, machine=self.machine)
            case "send":
                joined = self.machine.links[level_of(ranks, self.machine)].devices
                seconds, blocking = send_s(size, stride=joined / 2, machine=self.machine), 0.0
            case "vote":
                seconds = all_reduce_s(size, count, stride=stride, machine=self.machine)
                blocking = float(self.stack.step_s)
            case Kind.SLICE | Kind.MASK:
                return 0.0
        return float(seconds) + blocking


def hidden_rate(role: Role, stack: Stack) -> float:
    """Give the rate, of its own, at which a message of some role moves beside a compute."""
    match role:
        case Role.GRADIENT:
            return min(1.0, float(stack.data_overlap))
        case Role.WORKING | Role.PARAMETER:
            return min(1.0, float(stack.gather_overlap))
        case _:
            return 1.0


def level_of(ranks: Sequence[int], machine: Machine) -> int:
    """Give the index of the innermost level of links that joins all of `ranks`."""
    low, high = min(ranks), max(ranks)
    sizes = [float(link.devices) for link in machine.links]
    return next((i for i, n in enumerate(sizes) if low // n == high // n), len(sizes) - 1)


def _is_backward(compute: Compute) -> bool:
    return compute.phase is Phase.BACKWARD


def _number(value: float) -> Number:
    return np.asarray(value, dtype=np.float64)
