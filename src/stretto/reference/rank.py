"""One rank of the reference: what every instruction means."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stretto.model import Segment
from stretto.program.instruction import (
    Buffer,
    Compute,
    Free,
    Leg,
    Move,
    Named,
    Phase,
    Program,
    Recv,
    Send,
    Sums,
    Update,
    Vote,
)
from stretto.recipe import Recipe
from stretto.reference.arrays import Array, combine, cropped, padded
from stretto.reference.blocks import Local, run

Letter = tuple[int, int, int, int]
"""(source, target, how many messages came before, which buffer of the message)."""
Waits = Generator[str, None, None]
"""Work that now and then says what it waits for."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all ranks agree on about a step.

    Attributes:
        loss: Sum over valid targets.
        count: Number of valid targets.
        scale: What makes a gradient buffer the gradient of the mean loss.
        norm: Of the mean gradient, over all parameters.
        ok: Whether there is a loss, and it and the norm are finite; if not, nothing is updated.
    """

    loss: float
    count: int
    scale: float
    norm: float
    ok: bool


@dataclass(slots=True)
class Step:
    """One step while it is played: what ranks give each other, and what is kept of it.

    Attributes:
        number: Which step, from 0.
        recipe: How weights change.
        mail: Buffers sent and not yet received, with the tags of their messages.
        meetings: What ranks brought to a collective, by its key.
        results: What each rank takes from it.
        gradients: The mean gradient of each parameter, by rank; before clipping.
        verdict: What came of the vote.
        progress: Counts whatever brings the step nearer to its end.
    """

    number: int
    recipe: Recipe
    mail: dict[Letter, tuple[str, Array]] = field(default_factory=dict)
    meetings: dict[Hashable, dict[int, Any]] = field(default_factory=dict)
    results: dict[Hashable, dict[int, Any]] = field(default_factory=dict)
    gradients: dict[str, dict[int, tuple[Buffer, Array]]] = field(default_factory=dict)
    verdict: Verdict | None = None
    progress: int = 0

    def meet(
        self, key: str, group: Sequence[int], *, rank: int, brings: Any,
        together: Callable[[list[Any]], list[Any]],
    ) -> Generator[str, None, Any]:  # fmt: skip
        """Wait until all of a group have brought something, and give what this rank takes.

        Args:
            key: What they meet for; one meeting for each key and group.
            group: Who meets.
            rank: This rank.
            brings: What it brings.
            together: From what all bring to what each takes, in the order of the group.
        """
        place = (key, tuple(group))
        table = self.meetings.setdefault(place, {})
        table[rank] = brings
        self.progress += 1
        if len(table) == len(group):
            taken = together([table[r] for r in group])
            self.results[place] = dict(zip(group, taken, strict=True))
        while place not in self.results:
            yield f"ranks {sorted(set(group) - set(table))} at {key}"
        return self.results[place].pop(rank)


class Rank:
    """A rank: the buffers that it holds, and the meaning of what it is told to do.

    Attributes:
        index: Its number.
        stage: What it does in a step.
        held: Its blocks by buffer; for graphs a pullback, for a verdict a `Verdict`.
    """

    def __init__(self, program: Program, index: int) -> None:
        """Stand at `index` of the mesh, with nothing in hand."""
        self.index = index
        self.stage = program.of(index)
        self.held: dict[Buffer, Any] = {}
        self._program, self._placement = program, program.placement
        self._mesh = program.placement.mesh
        self._shapes = {
            name: spec.local_shape(program.placement) for name, spec in self.stage.buffers.items()
        }
        self._decays = {p.name for p in program.model.parameters if p.decay}
        self._locals: dict[Hashable, list[tuple[Segment, Local]]] = {}
        self._group = functools.cache(functools.partial(self._mesh.group, index))
        self._coming: dict[Buffer, tuple[Letter, str, list[Array]]] = {}
        self._sent, self._received = Counter[int](), Counter[int]()

    def write(self, buffer: Buffer, block: Array) -> None:
        """Hold a block, which must have the shape that the program says."""
        wanted = self._shapes[buffer]
        assert block.shape == wanted, f"{buffer}: block is {block.shape}, its spec says {wanted}"
        self.held[buffer] = block

    def read(self, buffer: Buffer) -> Any:
        """Give what a buffer holds, which must have been written and not been freed."""
        assert buffer in self.held, f"rank {self.index} reads {buffer}, which it does not hold"
        return self.held[buffer]

    def play(self, step: Step) -> Waits:
        """Do everything that the program says, one instruction after another."""
        for i, instruction in enumerate(self.stage.instructions):
            named = instruction.buffers if isinstance(instruction, Free) else instruction.input
            for buffer in named:
                yield from self._await(buffer, step)
            match instruction:
                case Move():
                    yield from self._move(instruction, step, at=i)
                case Vote():
                    yield from self._vote(instruction, step)
                case _:
                    self._do(instruction, step)
            step.progress += 1
        assert not self._coming, f"rank {self.index} never looks at {sorted(self._coming)}"

    def _do(self, instruction: Compute | Send | Recv | Free | Update, step: Step) -> None:
        """Do what needs no other rank."""
        match instruction:
            case Compute(phase=Phase.BACKWARD):
                self._backward(instruction)
            case Compute():
                self._forward(instruction)
            case Send():
                self._send(instruction, step)
            case Recv():
                self._receive(instruction)
            case Free():
                for buffer in instruction.buffers:
                    self.read(buffer)
                    del self.held[buffer]
            case Update():
                self._update(instruction, step)

    # ── compute ──────────────────────────────────────────────────────────────────────────────────

    def _forward(self, compute: Compute) -> None:
        """Forward and recompute: the segments on this rank's blocks."""
        written, pullback = run(
            self._local(compute),
            parameters=self._named(compute.parameters),
            values=self._named(compute.values),
        )
        self._store(compute.writes, written, compute.adds)
        if compute.graph:
            self.held[compute.graph] = pullback

    def _backward(self, compute: Compute) -> None:
        cotangents = self._named(compute.values)
        if self._program.segments(compute)[-1].name == "loss":
            cotangents["loss"] = np.asarray(self._program.loss_scale)
        pullback = self.read(compute.graph)
        read, gradients = pullback(self._named(compute.parameters), cotangents)
        self._store(compute.writes, read, compute.adds)
        self._store(compute.gradients, gradients, compute.adds)

    def _named(self, named: Named) -> dict[str, Array]:
        return {name: self.read(buffer) for name, buffer in named}

    def _store(self, named: Named, arrays: Mapping[str, Array], adds: Sums) -> None:
        for name, buffer in named:
            self.write(buffer, self._sum(buffer, arrays[name], adds))

    def _sum(self, buffer: Buffer, block: Array, adds: Sums) -> Array:
        """Give a block with what is to be added to it when it is written."""
        for target, source in adds:
            if target == buffer:
                block = block + self.read(source)
        return block

    def _local(self, compute: Compute) -> list[tuple[Segment, Local]]:
        """Give segments, each with what this rank's blocks are of the whole when it runs them."""
        key = (compute.block, compute.segments)
        if key not in self._locals:
            layer = self._program.chain[compute.block].layer
            vocab, (first, last) = self._real("vocab"), self._real("group")
            self._locals[key] = [
                (s, Local(self._program.model, layer, self._leads(s), vocab, last - first))
                for s in self._program.segments(compute)
            ]
        return self._locals[key]

    def _leads(self, segment: Segment) -> bool:
        """Say whether this rank is the first of those that hold parts of what a segment writes."""
        written = {d for value in segment.writes for d in value.dims}
        parts = self._placement.over(segment.dims, lacking=written)
        return self._mesh.index(self.index, parts) == 0

    def _real(self, dim: str) -> tuple[int, int]:
        """Give this rank's part of a logical dimension, without padding."""
        layout, size = self._placement.layout((dim,)), self._placement.sizes[dim]
        ((start, stop),) = layout.box((size,), mesh=self._mesh, rank=self.index)
        true = self._program.model.sizes[dim]
        return min(start, true), min(stop, true)

    # ── communication ────────────────────────────────────────────────────────────────────────────

    def _move(self, move: Move, step: Step, *, at: int) -> Waits:
        """Take every step with its group; `at`, the place in the list, tells moves apart."""
        blocks = [self._wide(leg) for leg in move.legs]
        for n, first in enumerate(move.legs[0].steps):
            steps = [leg.steps[n] for leg in move.legs]

            def together(brought: list[list[Array]], steps: Any = steps) -> list[Any]:
                legs = zip(steps, zip(*brought, strict=True), strict=True)
                return list(zip(*(combine(s, b) for s, b in legs), strict=True))

            key = f"step {n} of move {at} of stage {self.stage.stage}"
            group = self._group(first.axes)
            blocks = yield from step.meet(
                key, group, rank=self.index, brings=blocks, together=together
            )
        for leg, block in zip(move.legs, blocks, strict=True):
            block = cropped(block, self._shapes[leg.target])
            self.write(leg.target, self._sum(leg.target, block, move.adds))

    def _wide(self, leg: Leg) -> Array:
        """Give the source of a leg, padded where the target is wider: there it is whole."""
        source, target = self.stage.buffers[leg.source], self.stage.buffers[leg.target]
        block = self.read(leg.source)
        for d, (here, there) in enumerate(zip(source.shape, target.shape, strict=True)):
            axes = source.layout.dims[d] if here < there else target.layout.dims[d]
            assert here == there or not axes, f"{leg.source} changes its size where it is split"
        wide = zip(block.shape, source.shape, target.shape, strict=True)
        return padded(block, [there if there > here else size for size, here, there in wide])

    def _send(self, send: Send, step: Step) -> None:
        to = self._mesh.shift(self.index, "pp", by=send.by)
        for i, buffer in enumerate(send.buffers):
            step.mail[self.index, to, self._sent[to], i] = (send.tag, self.read(buffer))
        self._sent[to] += 1

    def _receive(self, recv: Recv) -> None:
        """Expect buffers; whoever reads or frees one first waits for it."""
        source = self._mesh.shift(self.index, "pp", by=recv.by)
        for i, buffer in enumerate(recv.buffers):
            added = [self.read(b) for target, b in recv.adds if target == buffer]
            letter = (source, self.index, self._received[source], i)
            self._coming[buffer] = (letter, recv.tag, added)
        self._received[source] += 1

    def _await(self, buffer: Buffer, step: Step) -> Waits:
        if buffer not in self._coming:
            return
        letter, wanted, added = self._coming[buffer]
        while letter not in step.mail:
            yield f"{buffer} from rank {letter[0]}"
        tag, block = step.mail.pop(letter)
        assert tag == wanted, f"rank {self.index} receives {tag} where it expects {wanted}"
        self.write(buffer, sum(added, start=block))
        del self._coming[buffer]
        step.progress += 1

    # ── optimizer ────────────────────────────────────────────────────────────────────────────────

    def _vote(self, vote: Vote, step: Step) -> Waits:
        """Sum loss, valid targets and squared gradients over the ranks that own them."""
        sums = np.zeros(3)
        for i, buffers in enumerate((vote.loss, vote.counts, vote.gradients)):
            for buffer in buffers:
                layout, block = self.stage.buffers[buffer].layout, self.read(buffer)
                if layout.owns(mesh=self._mesh, rank=self.index, besides=("pp",)):
                    sums[i] += np.sum(block * block) if i == 2 else block
        everyone = range(self._mesh.size)
        total = yield from step.meet(
            "vote", everyone, rank=self.index, brings=sums,
            together=lambda brought: [sum(brought)] * len(everyone),
        )  # fmt: skip
        loss, count, squares = (float(t) for t in total)
        scale = 1 / (self._program.loss_scale * max(count, 1))
        norm = math.sqrt(squares) * scale
        ok = count > 0 and math.isfinite(loss) and math.isfinite(norm)
        verdict = Verdict(loss, int(count), scale, norm, ok)
        self.held[vote.verdict] = step.verdict = verdict

    def _update(self, update: Update, step: Step) -> None:
        verdict, recipe = self.read(update.verdict), step.recipe
        clip = min(1.0, recipe.clip / (verdict.norm + 1e-6)) if recipe.clip else 1.0
        for weight in update.weights:
            gradient = self.read(weight.gradient) * verdict.scale
            kept = step.gradients.setdefault(weight.parameter, {})
            kept[self.index] = (weight.gradient, gradient)
            state = [self.read(buffer) for buffer in weight.state]
            if verdict.ok:
                decay = recipe.weight_decay if weight.parameter in self._decays else 0.0
                state = _stepped(state, gradient * clip, step=step, decay=decay)
            for buffer, block in zip(
                (*weight.state, weight.weight), (*state, state[0]), strict=True
            ):
                self.write(buffer, block)


def _stepped(state: list[Array], gradient: Array, *, step: Step, decay: float) -> list[Array]:
    """Give master weight and moments after AdamW (Loshchilov and Hutter, 2019), as in PyTorch."""
    weight, first, second = state
    recipe, lr, number = step.recipe, step.recipe.lr_at(step.number), step.number + 1
    first = recipe.beta1 * first + (1 - recipe.beta1) * gradient
    second = recipe.beta2 * second + (1 - recipe.beta2) * gradient * gradient
    mean = first / (1 - recipe.beta1**number)
    root = np.sqrt(second / (1 - recipe.beta2**number))
    return [weight * (1 - lr * decay) - lr * mean / (root + recipe.eps), first, second]
