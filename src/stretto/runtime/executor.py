"""`execute`: one rank runs its stage's list of instructions, step after step. It decides nothing.

Each compute runs under autograd on detached inputs; what autograd keeps lies in the graph's buffer
until the backward takes it. Moves and receives are issued where they stand and awaited by the first
instruction that reads what they write, so they overlap with what lies between.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stretto import nn
from stretto.data.feed import MicroBatch
from stretto.layout import Layout
from stretto.program.instruction import (
    Buffer,
    Compute,
    Free,
    Instruction,
    Leg,
    Move,
    Phase,
    Program,
    Recv,
    Role,
    Send,
    Spec,
    Sums,
    Update,
    Vote,
)
from stretto.recipe import Recipe
from stretto.runtime.collective import Group, Message, issue
from stretto.runtime.optimizer import adamw

DTYPES: Mapping[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
}


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

    loss: float
    targets: int
    norm: float
    applied: bool
    stop: bool


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


@dataclass(slots=True)
class _Graph:
    """What the backward of a compute needs."""

    inputs: list[tuple[str, Tensor]]
    parameters: list[tuple[str, Tensor]]
    outputs: dict[str, Tensor]


@dataclass(slots=True)
class _Pending:
    """A message whose targets nobody has read yet."""

    message: Message
    finish: Callable[[list[Tensor]], None]
    targets: tuple[Buffer, ...]


@dataclass(slots=True)
class Executor:
    """One rank's state between and during steps.

    Attributes:
        program: The program.
        rank: This rank.
        device: Where its buffers lie.
        groups: The process groups by axes, and ``forward`` and ``backward`` along ``pp``.
        recipe: How weights change.
        buffers: Every live buffer.
        clock: Where the time of the last step went.
        gradients: If set, called with every reduced gradient before the update.
    """

    program: Program
    rank: int
    device: torch.device
    groups: Mapping[tuple[str, ...], Group]
    recipe: Recipe
    buffers: dict[Buffer, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    gradients: Callable[[str, Layout, Tensor], None] | None = None
    _pending: dict[Buffer, _Pending] = field(default_factory=dict)
    _sends: list[tuple[dist.Work, Tensor]] = field(default_factory=list)
    _actions: list[Callable[[], None]] = field(default_factory=list)
    _step: int = 0
    _stop: bool = False
    _outcome: Outcome = Outcome(math.nan, 0, math.nan, applied=False, stop=False)

    def __post_init__(self) -> None:
        """Bind every instruction to what it does."""
        self._bind()

    @property
    def stage(self) -> Any:
        """This rank's stage of the program."""
        return self.program.of(self.rank)

    def _bind(self) -> None:
        instructions = self.stage.instructions
        following = [*instructions[1:], None]
        for instruction, after in zip(instructions, following, strict=True):
            freed = set(after.buffers) if isinstance(after, Free) else set()
            self._actions.append(self._action(instruction, freed))

    def _action(self, instruction: Instruction, freed: set[Buffer]) -> Callable[[], None]:
        match instruction:
            case Compute(phase=Phase.BACKWARD):
                return self._backward(instruction)
            case Compute():
                return self._forward(instruction)
            case Move():
                return self._move(instruction, freed)
            case Send():
                return self._send(instruction)
            case Recv():
                return self._recv(instruction)
            case Free(buffers=names):
                return lambda: self._free(names)
            case Vote():
                return self._vote(instruction)
            case Update():
                return self._update(instruction)

    # ── a step ───────────────────────────────────────────────────────────────────────────────────

    def step(self, batches: Iterable[MicroBatch], *, step: int, stop: bool = False) -> Outcome:
        """Run the program once.

        Args:
            batches: This replica's micro-batches, in order.
            step: The step's number, counted from 0.
            stop: Whether this rank asks to stop after the step.
        """
        self.clock = Clock()
        began = time.perf_counter()
        self._step, self._stop = step, stop
        for m, batch in enumerate(batches):
            self._give(batch, m)
        for action in self._actions:
            action()
        for work, _ in self._sends:
            work.wait()
        self._sends.clear()
        for name in self.stage.resting(Role.GIVEN):
            self.buffers.pop(name, None)
        self.clock.step_s = time.perf_counter() - began
        return self._outcome

    def settle(self) -> None:
        """Wait for every message that is still under way."""
        while self._pending:
            self._await(next(iter(self._pending)))

    def _give(self, batch: MicroBatch, m: int) -> None:
        """Put a micro-batch where the program expects it."""
        specs = self.stage.buffers
        arrays = {
            "tokens": batch.tokens_BT,
            "targets": batch.targets_BT,
            "positions": batch.positions_BT,
        }
        for name, array in arrays.items():
            if f"{name}.m{m}" in specs:
                tensor = torch.from_numpy(array)
                self.buffers[f"{name}.m{m}"] = tensor.to(self.device, non_blocking=True)
        if f"mask.m{m}" in specs:
            documents = batch.documents_BT
            self.buffers[f"mask.m{m}"] = nn.attention_input(
                self.program.model,
                positions=batch.tokens_BT.shape[1],
                documents_BT=None if documents is None else torch.from_numpy(documents),
                device=self.device,
                dtype=DTYPES[self.program.plan.numerics.dtype],
            )
        if f"count.m{m}" in specs:
            self.buffers[f"count.m{m}"] = int((batch.targets_BT >= 0).sum())

    # ── buffers ──────────────────────────────────────────────────────────────────────────────────

    def _read(self, name: Buffer) -> Any:
        if name in self._pending:
            self._await(name)
        return self.buffers[name]

    def _await(self, name: Buffer) -> None:
        pending = self._pending[name]
        began = time.perf_counter()
        tensors = pending.message.wait()
        for target in pending.targets:
            del self._pending[target]
        pending.finish(tensors)
        self.clock.communication_s += time.perf_counter() - began

    def _free(self, names: tuple[Buffer, ...]) -> None:
        for name in names:
            if name in self._pending:
                self._await(name)
            del self.buffers[name]

    def _addends(self, adds: Sums) -> dict[Buffer, tuple[bool, Tensor]]:
        """Give what is added to each written buffer, and whether it is added to in place."""
        return {target: (target == name, self._read(name)) for target, name in adds}

    def _put(self, name: Buffer, tensor: Tensor, addend: tuple[bool, Tensor] | None) -> None:
        """Write a buffer in its precision, adding what is to be added."""
        dtype = DTYPES[self.stage.buffers[name].dtype]
        match addend:
            case None:
                self.buffers[name] = tensor.to(dtype)
            case (True, total):
                self.buffers[name] = total.add_(tensor)
            case (False, other):
                self.buffers[name] = torch.add(other, tensor).to(dtype)

    # ── compute ──────────────────────────────────────────────────────────────────────────────────

    def _local(self, compute: Compute) -> list[nn.Local]:
        """Say what this rank holds of what each segment contracts."""
        placement = self.program.placement
        mesh = placement.mesh
        start, stop = self._real("vocab")
        first, last = self._real("group")
        coordinate = mesh.coordinate(self.rank)
        found = []
        for segment in self.program.segments(compute):
            split = {
                a for v in segment.writes for a in placement.over(segment.dims, lacking=v.dims)
            }
            leads = all(coordinate[a] == 0 for a in split)
            found.append(nn.Local(leads, start, stop, groups=last - first))
        return found

    def _real(self, dim: str) -> tuple[int, int]:
        """Give what this rank holds of a dimension of parameters, without padding."""
        placement = self.program.placement
        ((start, stop),) = placement.layout((dim,)).box(
            (placement.sizes[dim],), mesh=placement.mesh, rank=self.rank
        )
        true = self.program.model.sizes[dim]
        return min(start, true), min(stop, true)

    def _runner(
        self, compute: Compute
    ) -> Callable[[dict[str, Tensor], dict[str, Any]], dict[str, Any]]:
        """Give the function that runs a compute's segments: the same for every layer."""
        model, locals_ = self.program.model, self._local(compute)
        segments = self.program.segments(compute)
        layer = self.program.chain[compute.block].layer

        def run(parameters: dict[str, Tensor], values: dict[str, Any]) -> dict[str, Any]:
            for segment, local in zip(segments, locals_, strict=True):
                values = values | nn.run(
                    segment, model=model, layer=layer, parameters=parameters, values=values,
                    local=local,
                )  # fmt: skip
            return values

        return torch.compile(run) if self.program.plan.numerics.compile else run

    def _forward(self, compute: Compute) -> Callable[[], None]:
        run = self._runner(compute)
        real = {v.name for s in self.program.segments(compute) for v in s.reads if v.kind == "real"}
        wanted = {
            v.name for s in self.program.segments(compute) for v in s.writes if v.kind == "real"
        }
        keep = bool(compute.graph)

        def forward() -> None:
            inputs = {n: self._read(b) for n, b in compute.values}
            weights = {n: self._read(b) for n, b in compute.parameters}
            addends = self._addends(compute.adds)
            began = time.perf_counter()
            if keep:
                inputs = {n: _leaf(t) if n in real else t for n, t in inputs.items()}
                weights = {n: _leaf(t) for n, t in weights.items()}
            with torch.set_grad_enabled(keep):
                values = run(weights, inputs)
            outputs = {n: values[n] for n, _ in compute.writes}
            if keep:
                self.buffers[compute.graph] = _Graph(
                    [(n, t) for n, t in inputs.items() if n in real],
                    list(weights.items()),
                    {n: t for n, t in outputs.items() if n in wanted},
                )
            for name, buffer in compute.writes:
                self._put(buffer, outputs[name].detach(), addends.get(buffer))
            self.clock.compute_s += time.perf_counter() - began

        return forward

    def _backward(self, compute: Compute) -> Callable[[], None]:
        scale = self.program.loss_scale
        places = dict((*compute.writes, *compute.gradients))

        def backward() -> None:
            graph: _Graph = self.buffers.pop(compute.graph)
            self.buffers[compute.graph] = None
            given = {n: self._read(b) for n, b in compute.values}
            addends = self._addends(compute.adds)
            began = time.perf_counter()
            outputs, cotangents = [], []
            for name, tensor in graph.outputs.items():
                if name in given:
                    outputs.append(tensor)
                    cotangents.append(given[name])
                elif name == "loss":
                    outputs.append(tensor)
                    cotangents.append(torch.full_like(tensor, scale))
            leaves = [*graph.inputs, *graph.parameters]
            found: tuple[Tensor | None, ...] = torch.autograd.grad(
                outputs, [t for _, t in leaves], cotangents, allow_unused=True
            )
            for (name, leaf), gradient in zip(leaves, found, strict=True):
                buffer = places[name]
                value = torch.zeros_like(leaf) if gradient is None else gradient
                self._put(buffer, value, addends.get(buffer))
            self.clock.compute_s += time.perf_counter() - began

        return backward

    # ── communication ────────────────────────────────────────────────────────────────────────────

    def _move(self, move: Move, freed: set[Buffer]) -> Callable[[], None]:
        specs = self.stage.buffers
        fits = [_fit(leg, specs) for leg in move.legs]
        depth = len(move.route)

        def go() -> None:
            addends = self._addends(move.adds)

            def finish(tensors: list[Tensor]) -> None:
                for leg, tensor, (_, crop) in zip(move.legs, tensors, fits, strict=True):
                    self._put(leg.target, _cropped(tensor, crop), addends.get(leg.target))

            tensors = [self._read(leg.source) for leg in move.legs]
            began = time.perf_counter()
            tensors = [
                _padded(t.to(DTYPES[specs[leg.target].dtype]), pad)
                for t, leg, (pad, _) in zip(tensors, move.legs, fits, strict=True)
            ]
            consumed = all(leg.source in freed or specs[leg.source].dtype != specs[leg.target].dtype
                           for leg in move.legs)  # fmt: skip
            for i in range(depth):
                steps = [leg.steps[i] for leg in move.legs]
                group = self.groups[steps[0].axes]
                message = issue(
                    steps[0].kind, tensors, steps, group=group, consumed=consumed or i > 0
                )
                if i + 1 < depth:
                    tensors = message.wait()
            if depth and message.works:
                pending = _Pending(message, finish, move.output)
                self._pending |= dict.fromkeys(move.output, pending)
            else:
                finish(message.wait() if depth else tensors)
            self.clock.communication_s += time.perf_counter() - began

        return go

    def _peer(self, by: int) -> tuple[int, Group]:
        mesh = self.program.placement.mesh
        name = ("forward",) if by > 0 else ("backward",)
        return mesh.shift(self.rank, "pp", by=by), self.groups[name]

    def _send(self, send: Send) -> Callable[[], None]:
        peer, group = self._peer(send.by)

        def go() -> None:
            for name in send.buffers:
                tensor = self._read(name).contiguous()
                work = dist.isend(tensor, peer, group=group.handle)
                assert work is not None
                self._sends.append((work, tensor))
            self._sends = [(w, t) for w, t in self._sends if not w.is_completed()]

        return go

    def _recv(self, recv: Recv) -> Callable[[], None]:
        mesh = self.program.placement.mesh
        peer = mesh.shift(self.rank, "pp", by=recv.by)
        group = self.groups[("forward",) if recv.by < 0 else ("backward",)]
        placement, specs = self.program.placement, self.stage.buffers

        def go() -> None:
            addends = self._addends(recv.adds)

            def finish(tensors: list[Tensor]) -> None:
                for name, tensor in zip(recv.buffers, tensors, strict=True):
                    self._put(name, tensor, addends.get(name))

            tensors, works = [], []
            for name in recv.buffers:
                spec = specs[name]
                tensors.append(torch.empty(spec.local_shape(placement), dtype=DTYPES[spec.dtype],
                                           device=self.device))  # fmt: skip
                work = dist.irecv(tensors[-1], peer, group=group.handle)
                assert work is not None
                works.append(work)
            pending = _Pending(Message(works, lambda: tensors), finish, recv.buffers)
            self._pending |= dict.fromkeys(recv.buffers, pending)

        return go

    # ── the end of the step ──────────────────────────────────────────────────────────────────────

    def _owns(self, name: Buffer) -> bool:
        layout = self.stage.buffers[name].layout
        mesh = self.program.placement.mesh
        return bool(layout.owns(mesh=mesh, rank=self.rank, besides=("pp",)))

    def _vote(self, vote: Vote) -> Callable[[], None]:
        owned = [g for g in vote.gradients if self._owns(g)]
        speaks = bool(vote.loss) and self._owns(vote.loss[0])
        scale, world = self.program.loss_scale, self.groups[()]
        finals = _final(self.stage.instructions)

        def go() -> None:
            for name in vote.gradients:
                self._read(name)
            gradients = [self.buffers[g] for g in owned]
            began = time.perf_counter()
            votes = torch.zeros(4, dtype=torch.float64, device=self.device)
            if speaks:
                votes[0] = self._read(vote.loss[0])
                votes[1] = sum(self.buffers[c] for c in vote.counts)
            if gradients:
                votes[2] = torch.stack(torch._foreach_norm(gradients)).double().square().sum()
            votes[3] = float(self._stop)
            self.clock.compute_s += time.perf_counter() - began
            began = time.perf_counter()
            if world.size > 1:
                dist.all_reduce(votes, group=world.handle)
            loss, count, squares, stop = votes.tolist()
            self.clock.communication_s += time.perf_counter() - began
            unscale = 1.0 / (scale * count) if count else math.nan
            norm = math.sqrt(squares) * unscale if squares >= 0 else math.nan
            mean = loss / count if count else math.nan
            ok = math.isfinite(mean) and math.isfinite(norm)
            clip = self.recipe.clip
            shrink = min(1.0, clip / (norm + 1e-6)) if clip and ok else 1.0
            self.buffers[vote.verdict] = unscale * shrink if ok else 0.0
            self._outcome = Outcome(mean, int(count), norm, ok, stop > 0)
            if self.gradients is not None:
                for name in finals:
                    spec = self.stage.buffers[name]
                    self.gradients(spec.parameter, spec.layout, self._read(name) * unscale)

        return go

    def _update(self, update: Update) -> Callable[[], None]:
        decays = {p.name: p.decay for p in self.program.model.parameters}
        recipe = self.recipe

        def go() -> None:
            factor = self._read(update.verdict)
            began = time.perf_counter()
            tensors = [
                (decays[w.parameter], self.buffers[w.gradient], *(self._read(s) for s in w.state))
                for w in update.weights
            ]
            if factor:
                adamw(tensors, recipe=recipe, lr=recipe.lr_at(self._step), step=self._step + 1,
                      factor=factor)  # fmt: skip
            for weight, (_, _, master, _, _) in zip(update.weights, tensors, strict=True):
                if weight.weight == weight.state[0]:
                    continue
                if weight.weight in self.buffers:
                    self.buffers[weight.weight].copy_(master)
                else:  # on its way to where it rests
                    dtype = DTYPES[self.stage.buffers[weight.weight].dtype]
                    self.buffers[weight.weight] = master.to(dtype)
            self.clock.compute_s += time.perf_counter() - began

        return go


def _final(instructions: tuple[Instruction, ...]) -> set[Buffer]:
    """Give the gradients that updates read."""
    return {w.gradient for i in instructions if isinstance(i, Update) for w in i.weights}


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


Fit = tuple[tuple[int, int], ...]
"""(dimension, size) of each dimension that changes."""


def _fit(leg: Leg, specs: Mapping[Buffer, Spec]) -> tuple[Fit, Fit]:
    """Give what to pad before the steps of a leg, and what to crop after them."""
    pairs = list(zip(specs[leg.source].shape, specs[leg.target].shape, strict=True))
    grown = tuple((d, b) for d, (a, b) in enumerate(pairs) if b > a)
    shrunk = tuple((d, b) for d, (a, b) in enumerate(pairs) if b < a)
    return grown, shrunk


def _padded(tensor: Tensor, fit: Fit) -> Tensor:
    for dim, size in fit:
        shape = list(tensor.shape)
        shape[dim] = size - shape[dim]
        tensor = torch.cat([tensor, tensor.new_zeros(shape)], dim=dim)
    return tensor


def _cropped(tensor: Tensor, fit: Fit) -> Tensor:
    for dim, size in fit:
        tensor = tensor.narrow(dim, 0, size)
    return tensor.contiguous() if fit else tensor
