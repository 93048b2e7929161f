"""Do buffers lie as instructions need? Layouts, shapes and precisions, without arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from stretto.layout import Kind, Layout, Step, apply
from stretto.model import Parameter, Value
from stretto.program.fault import Fault
from stretto.program.group import Group, groups
from stretto.program.instruction import (
    Buffer,
    Compute,
    Leg,
    Move,
    Phase,
    Program,
    Recv,
    Role,
    Spec,
    StageProgram,
    Sums,
    Update,
    Vote,
)
from stretto.rules import Store

IN_USE = (Role.PARAMETER, Role.WORKING)
"""Roles of the buffers in which a compute finds parameters."""


def misfits(program: Program, stage: StageProgram) -> Iterator[Fault]:
    """Give a fault for each buffer that does not lie as an instruction of `stage` needs it."""
    parts = {b: groups(program.chain[b], program.placement) for b in range(*stage.blocks)}
    check = _Fit(program, stage, parts)
    for i, instruction in enumerate(stage.instructions):
        match instruction:
            case Compute():
                found = check.compute(instruction)
            case Move():
                found = check.move(instruction)
            case Recv():
                found = check.sums(instruction.adds)
            case Vote():
                found = check.vote(instruction)
            case Update():
                found = check.update(instruction)
            case _:
                continue
        for rule, remedy in found:
            yield Fault(stage.stage, i, rule, remedy)


Found = Iterator[tuple[str, str]]
"""(rule, remedy)."""


@dataclass(frozen=True, slots=True)
class _Fit:
    """The questions, for one stage.

    Attributes:
        program: The program.
        stage: The stage.
        groups: The groups of each of its blocks.
    """

    program: Program
    stage: StageProgram
    groups: Mapping[int, tuple[Group, ...]]

    # ── what every buffer is asked ───────────────────────────────────────────────────────────────

    def _is(self, buffer: Buffer, layout: Layout, shape: tuple[int, ...]) -> Found:
        spec = self.stage.buffers[buffer]
        if (spec.layout, spec.shape) != (layout, shape):
            yield (
                f"{buffer} is {spec.shape} {spec.layout}, not {shape} {layout}",
                "move it there first",
            )

    def _holds(self, buffer: Buffer, parameter: str, roles: tuple[Role, ...]) -> Found:
        spec = self.stage.buffers[buffer]
        if spec.parameter != parameter or spec.role not in roles:
            yield f"{buffer} is not a {' or '.join(roles)} of {parameter}", "name its own buffer"

    def _shape(self, dims: Iterable[str]) -> tuple[int, ...]:
        batch = self.program.plan.batch
        sizes = self.program.placement.sizes | {
            "batch": batch.micro_batch * self.program.plan.replicas,
            "seq": batch.seq,
            "time": batch.seq,
        }
        return tuple(sizes[d] for d in dims)

    def sums(self, adds: Sums) -> Found:
        """What is added lies as what it is added to."""
        for target, addend in adds:
            spec = self.stage.buffers[target]
            yield from self._is(addend, spec.layout, spec.shape)

    # ── computes ─────────────────────────────────────────────────────────────────────────────────

    def compute(self, compute: Compute) -> Found:
        """A compute reads and writes what its group does, as the group needs and gives it."""
        parts = self.groups.get(compute.block, ())
        group = next((g for g in parts if g.span == compute.segments), None)
        if group is None:
            yield (
                f"segments {compute.segments} of block {compute.block} are no group of the stage",
                f"run one of {[g.span for g in parts]}, or the blocks of the stage",
            )
            return
        yield from self._parameters(compute, group)
        yield from self.sums(compute.adds)
        if compute.phase is Phase.BACKWARD:
            yield from self._backward(compute, group)
        else:
            yield from self._forward(compute, group)
        if compute.graph and self.stage.buffers[compute.graph].role is not Role.GRAPH:
            yield f"{compute.graph} is no graph", "name a graph"

    def _named(self, what: str, there: Iterable[str], wanted: Iterable[str]) -> Found:
        there, wanted = sorted(there), sorted(wanted)
        if there != wanted:
            yield f"{what} {there}, not {wanted}", "name what the group does"

    def _parameters(self, compute: Compute, group: Group) -> Found:
        back = compute.phase is Phase.BACKWARD
        used = {p.name: p for p in (group.recalled if back else group.parameters)}
        yield from self._named("uses parameters", dict(compute.parameters), used)
        for name, buffer in compute.parameters:
            if name in used:
                p = used[name]
                layout, shape = self.program.placement.layout(p.dims), self._shape(p.dims)
                yield from self._is(buffer, layout, shape)
                yield from self._holds(buffer, name, IN_USE)

    def _forward(self, compute: Compute, group: Group) -> Found:
        reads, writes = ({v.name: v for v in side} for side in (group.reads, group.writes))
        yield from self._named("reads", dict(compute.values), reads)
        yield from self._named("writes", dict(compute.writes), writes)
        for name, buffer in compute.values:
            if name in reads:
                yield from self._is(buffer, group.needs(reads[name]), self._shape(reads[name].dims))
        for name, buffer in compute.writes:
            if name in writes:
                shape = self._shape(writes[name].dims)
                yield from self._is(buffer, group.gives(writes[name]), shape)
        if compute.graph and group.is_sum:
            yield "keeps a graph of a sum, whose backward is the identity", "keep none"

    def _backward(self, compute: Compute, group: Group) -> Found:
        reads, writes = (
            {v.name: v for v in side if _has_cotangent(v)} for side in (group.reads, group.writes)
        )
        yield from self._named("reads cotangents of", dict(compute.values), writes)
        yield from self._named("writes cotangents of", dict(compute.writes), reads)
        for name, buffer in compute.values:
            if name in writes:
                shape = self._shape(writes[name].dims)
                yield from self._is(buffer, group.needs(writes[name]), shape)
        for name, buffer in compute.writes:
            if name in reads:
                yield from self._is(buffer, group.gives(reads[name]), self._shape(reads[name].dims))
        used = {p.name: p for p in group.parameters}
        yield from self._named("writes gradients of", dict(compute.gradients), used)
        for name, buffer in compute.gradients:
            if name in used:
                layout, shape = group.gradient(used[name]), self._shape(used[name].dims)
                yield from self._is(buffer, layout, shape)
                yield from self._holds(buffer, name, (Role.GRADIENT,))
        if not compute.graph:
            yield "reads no graph", "name the one that the forward kept"

    # ── moves ────────────────────────────────────────────────────────────────────────────────────

    def move(self, move: Move) -> Found:
        """The steps of every leg lead from where its source lies to where its target does."""
        if len({tuple((s.kind, s.axes) for s in leg.steps) for leg in move.legs}) != 1:
            yield "its legs go by different routes", "move them apart"
        yield from self.sums(move.adds)
        for leg in move.legs:
            yield from self._leg(leg)

    def _leg(self, leg: Leg) -> Found:
        source, target = (self.stage.buffers[b] for b in (leg.source, leg.target))
        known = {axis for axis, _ in self.program.placement.mesh.axes} - {"pp"}
        layout = source.layout
        for step in leg.steps:
            if not known.issuperset(step.axes):
                yield f"{step} is not within a stage", f"use axes of {sorted(known)}"
                return
            if not _possible(layout, step):
                yield f"{step} cannot follow on {layout}", "take the steps of redistribute"
                return
            layout = apply(layout, step)
        wanted = target.layout
        if wanted.reduction == "max":  # equal values are their own partial maxima
            layout = layout.with_partial(wanted.partial, reduction="max")
        if layout != wanted:
            yield f"leads {leg.source} to {layout}, not to {wanted}", "redistribute it"
        yield from _resized(leg, source, target)
        yield from self._converted(leg, source, target)

    def _converted(self, leg: Leg, source: Spec, target: Spec) -> Found:
        if source.parameter != target.parameter:
            yield f"{leg.source} and {leg.target} belong to different parameters", "move its own"
        master = self.program.plan.numerics.master
        widens = target.role is Role.GRADIENT and target.dtype == master
        if source.dtype != target.dtype and not widens:
            yield f"turns {source.dtype} into {target.dtype}", "keep the precision"

    # ── the end of the step ──────────────────────────────────────────────────────────────────────

    def _parameter(self, name: str) -> Parameter | None:
        blocks = self.program.chain[slice(*self.stage.blocks)]
        return next((p for b in blocks for p in b.parameters if p.name == name), None)

    def _owned(self, buffer: Buffer, name: str, roles: tuple[Role, ...]) -> Found:
        """`buffer` lies as the optimizer state of its parameter does, with nothing to reduce."""
        parameter = self._parameter(name)
        if parameter is None:
            yield f"no block of the stage uses {name!r}", "leave it out"
            return
        placement = self.program.placement
        layout = placement.resting(parameter, Store.OPTIMIZER)
        yield from self._is(buffer, layout, placement.rest_shape(parameter, layout))
        yield from self._holds(buffer, name, roles)

    def vote(self, vote: Vote) -> Found:
        """Gradients are reduced; the stage of the loss, and no other, knows loss and counts."""
        for buffer in vote.gradients:
            name = self.stage.buffers[buffer].parameter
            yield from self._owned(buffer, name, (Role.GRADIENT,))
        parts = self.program.placement.over(("batch", "time"), lacking=())
        for buffer in vote.counts:
            yield from self._is(buffer, Layout((), parts), ())
        last = self.stage.blocks[1] == len(self.program.chain)
        if len(vote.loss) != last or bool(vote.counts) != last:
            yield f"votes on losses {vote.loss} and counts {vote.counts}", "vote where the loss is"

    def update(self, update: Update) -> Found:
        """Gradient, master weight and moments lie alike, and the new weight too."""
        for weight in update.weights:
            name = weight.parameter
            yield from self._owned(weight.gradient, name, (Role.GRADIENT,))
            yield from self._owned(weight.weight, name, IN_USE)
            own = (Role.STATE, Role.PARAMETER) if weight.state[0] == weight.weight else ()
            yield from self._owned(weight.state[0], name, own or (Role.STATE,))
            for moment in weight.state[1:]:
                yield from self._owned(moment, name, (Role.STATE,))
            if len(set(weight.state)) != len(weight.state):
                yield f"the state of {name} is {weight.state}", "name three buffers"


def _has_cotangent(value: Value) -> bool:
    """Whether a cotangent of `value` is passed on; that of the loss is a constant."""
    return value.kind == "real" and value.name != "loss"


def _possible(layout: Layout, step: Step) -> bool:
    """Whether `step` makes sense of `layout`."""
    axes = set(step.axes)
    inner = {d: dim[-len(step.axes) :] for d, dim in enumerate(layout.dims)}
    reduces = axes <= set(layout.partial) and step.reduction == layout.reduction
    match step.kind:
        case Kind.ALL_GATHER:
            return inner.get(step.dim) == step.axes
        case Kind.ALL_REDUCE:
            return reduces
        case Kind.REDUCE_SCATTER:
            return reduces and step.dim in inner
        case Kind.ALL_TO_ALL:
            return inner.get(step.dim) == step.axes and step.to in set(inner) - {step.dim}
        case Kind.SLICE:
            return axes.isdisjoint(layout.axes) and step.dim in inner
        case Kind.MASK:
            return axes.isdisjoint(layout.axes)


def _resized(leg: Leg, source: Spec, target: Spec) -> Found:
    """A dimension is padded where its source is not split, and cropped where its target is not."""
    if len(source.shape) != len(target.shape):
        yield f"{leg.source} and {leg.target} differ in dimensions", "move it to its like"
        return
    for d, (a, b) in enumerate(zip(source.shape, target.shape, strict=True)):
        smaller = source if a < b else target
        if a != b and smaller.layout.dims[d]:
            yield f"dimension {d} changes from {a} to {b} while it is split", "pad all of it alike"
