"""`lower`: the only place where a plan becomes actions.

A stage's list is made by walking its schedule. Every block is run group by group; whenever a value,
a cotangent or a parameter is wanted in another layout than it has, `redistribute` says how it
moves. Nothing here knows of data, tensor, sequence or sharded parallelism: they are what the rules
make of the layouts.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from stretto.errors import ModelError, PlanError
from stretto.layout import Layout, redistribute
from stretto.model import Block, BlockKind, Model, Parameter
from stretto.plan import DTYPE_BYTES, Plan
from stretto.program.cut import stage_cut
from stretto.program.free import with_frees
from stretto.program.group import Group, groups
from stretto.program.instruction import (
    Buffer,
    Compute,
    Instruction,
    Leg,
    Move,
    Named,
    Phase,
    Program,
    Recv,
    Role,
    Route,
    Send,
    Spec,
    StageProgram,
    Sums,
    Update,
    Vote,
    Weight,
    route,
)
from stretto.program.repeat import ANY, Run, gathered, mention
from stretto.rules import Placement, Store
from stretto.schedule import SCHEDULES, Action, Pass, Schedule

RESIDUAL = ("batch", "seq", "embed")
"""The logical dimensions of what passes between blocks."""


def lower(model: Model, plan: Plan) -> Program:
    """Give the program of one training step.

    Args:
        model: What is trained.
        plan: How.

    Raises:
        PlanError: The plan cannot run; all that is wrong.
        ModelError: The model predicts several tokens, which is not lowered yet.
    """
    problems = plan.obstacles(model)
    if problems:
        raise PlanError(problems)
    if model.mtp_layers:  # their heads stand within the chain, past which a cotangent must go
        raise ModelError(model.unsupported)
    placement = Placement(model, plan.mesh, plan.rules)
    chain = model.blocks
    schedule = SCHEDULES[plan.pipeline.schedule](plan.stages, plan.micro_batches)
    cut = (*stage_cut(model, plan), len(chain))
    spans = list(itertools.pairwise(cut))
    ties = _ties(chain, spans)
    stages = []
    for stage, span in enumerate(spans):
        stages.append(_Stage(model, plan, placement, chain, schedule, stage, span, ties).lower())
    return Program(model, plan, placement, chain, tuple(stages))


def _ties(chain: Sequence[Block], spans: Sequence[tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    """Give the stages of each parameter that several stages use."""
    stages: dict[str, list[int]] = {}
    for stage, (first, stop) in enumerate(spans):
        for name in {p.name for b in chain[first:stop] for p in b.parameters}:
            stages.setdefault(name, []).append(stage)
    return {name: tuple(s) for name, s in stages.items() if len(s) > 1}


@dataclass(frozen=True, slots=True)
class _Use:
    """One run of a block on a micro-batch."""

    direction: Pass
    block: int
    micro_batch: int


class _Stage:
    """The list of one stage while it is being written."""

    def __init__(
        self, model: Model, plan: Plan, placement: Placement, chain: tuple[Block, ...],
        schedule: Schedule, stage: int, span: tuple[int, int], ties: dict[str, tuple[int, ...]],
    ) -> None:  # fmt: skip
        self.model, self.plan, self.placement = model, plan, placement
        self.chain, self.schedule, self.stage, self.span, self.ties = (
            chain, schedule, stage, span, ties,
        )  # fmt: skip
        self.out: list[Instruction] = []
        self.buffers: dict[Buffer, Spec] = {}
        self.specs: dict[Spec, Spec] = {}
        self.last: dict[Buffer, int] = {}
        self.noted = 0
        self.written: dict[tuple[Pass, int, bool], Run] = {}
        self.micro_batches = plan.micro_batches
        self.compute, self.master = plan.numerics.dtype, plan.numerics.master
        self.groups = {b: groups(chain[b], placement) for b in range(*span)}
        self.recomputed = plan.memory.kinds
        self.kept: dict[tuple[int, int], bool] = {}
        self.working: dict[str, Buffer] = {}
        self.rests: set[str] = set()  # parameters that are used as they rest
        self.begun: set[str] = set()
        self.pending: dict[Route, list[Parameter]] = {}
        self.reduced: dict[str, Buffer] = {}
        blocks = [chain[b] for b in range(*span)]
        self.parameters = {p.name: p for b in blocks for p in b.parameters}
        self.left = Counter(p.name for b in blocks for p in b.parameters)
        self.backwards: Counter[int] = Counter()
        batch = plan.batch
        self.sizes = placement.sizes | {
            "batch": batch.micro_batch * plan.replicas, "seq": batch.seq, "time": batch.seq,
        }  # fmt: skip
        shape, layout = tuple(self.sizes[d] for d in RESIDUAL), placement.layout(RESIDUAL)
        self.residual = Spec(Role.ACTIVATION, shape, layout, self.compute)
        # Every micro-batch asks the same again.
        self.redistribute, self.resting = cache(redistribute), cache(placement.resting)
        self.rest_shape = cache(placement.rest_shape)
        self.gives, self.gradient = cache(Group.gives), cache(Group.gradient)
        for parameter in self.parameters.values():
            self._rest(parameter)
        self.wanted = {
            direction: {b: self._wanted(direction, b) for b in range(*span)}
            for direction in (Pass.FORWARD, Pass.BACKWARD)
        }

    # ── the walk ─────────────────────────────────────────────────────────────────────────────────

    def lower(self) -> StageProgram:
        """Walk the schedule, then reduce, vote and update."""
        for m in range(self.micro_batches):
            self._given(m)
        actions = self.schedule.ranks[self.stage]
        uses = [self._uses(a) for a in actions]
        flat = [use for action in uses for use in action]
        following = iter((*flat[1:], None))
        self._receive(actions[0])
        for i, action in enumerate(actions):
            if i + 1 < len(actions):
                self._receive(actions[i + 1])
            for use in uses[i]:
                self._run(use, next(following))
            self._send(action)
        self._flush(everything=True)
        self._tie()
        self._update()
        mention(self.last, self.out, self.noted)
        listed = with_frees(self.out, self.last, self.buffers)
        return StageProgram(self.stage, self.span, listed, self.buffers)

    def _uses(self, action: Action) -> list[_Use]:
        blocks = range(*self.span)
        order = blocks if action.direction is Pass.FORWARD else reversed(blocks)
        return [_Use(action.direction, b, action.micro_batch) for b in order]

    def _run(self, use: _Use, following: _Use | None) -> None:
        """Run a block, with the parameters of the next one already on their way."""
        after = self.wanted[following.direction][following.block] if following else ()
        self._gather(self.wanted[use.direction][use.block])
        self._gather(after)
        at = use.block, use.micro_batch
        if use.direction is Pass.FORWARD:
            again = _Use(Pass.BACKWARD, *at)
            self.kept[at] = self.chain[use.block].kind not in self.recomputed or following == again
        self._write(use, keep=self.kept[at])
        if use.direction is Pass.BACKWARD:
            self._close(use.block)
        for p in self.wanted[use.direction][use.block]:
            if p not in after:
                del self.working[p.name]

    def _write(self, use: _Use, *, keep: bool) -> None:
        """Write a run of a block, as it was written for another micro-batch if it was."""
        key = use.direction, use.block, keep
        run, begun = self.written.get(key), len(self.begun)
        if run is None:
            run = self._for_any(_Use(use.direction, use.block, ANY), keep=keep)
        fresh = len(self.begun) > begun  # what begins a sum is written once
        mention(self.last, self.out, self.noted)
        self.noted = len(self.out)
        last = run.fill(use.micro_batch, self.working, out=self.out, buffers=self.buffers)
        if not fresh:
            self.written[key] = run
            self.last |= last
            self.noted = len(self.out)

    def _for_any(self, use: _Use, *, keep: bool) -> Run:
        """Give what a run of a block writes, for any micro-batch."""
        whole = self.out, self.buffers, self.working
        moving = [p.name for p in self.chain[use.block].parameters if p.name not in self.rests]
        self.out, self.buffers = [], {}
        self.working = self.working | {name: gathered(name) for name in moving}
        if use.direction is Pass.FORWARD:
            self._forward(use, Phase.FORWARD, keep=keep)
        else:
            if not keep:
                self._forward(use, Phase.RECOMPUTE, keep=True)
            self._backward(use)
        run = Run.of(self.out, self.buffers, parameters=moving)
        self.out, self.buffers, self.working = whole
        return run

    def _wanted(self, direction: Pass, block: int) -> tuple[Parameter, ...]:
        """Give the parameters that a run of a block reads and that do not rest where it does."""
        read = self.chain[block].parameters
        if direction is Pass.BACKWARD:
            read = tuple(dict.fromkeys(p for g in self.groups[block] for p in g.recalled))
        return tuple(p for p in read if p.name not in self.rests)

    # ── buffers ──────────────────────────────────────────────────────────────────────────────────

    def _new(self, name: str, role: Role, layout: Layout, *, dims: Iterable[str] = (),
             dtype: str | None = None, shape: tuple[int, ...] | None = None,
             parameter: str = "") -> Buffer:  # fmt: skip
        shape = tuple(self.sizes[d] for d in dims) if shape is None else shape
        spec = Spec(role, shape, layout, dtype or self.compute, parameter)
        spec = self.specs.setdefault(spec, spec)  # one for all micro-batches
        assert self.buffers.get(name, spec) == spec, f"buffer {name} is two things"
        self.buffers[name] = spec
        return name

    def _rest(self, p: Parameter) -> None:
        """Name what stays of a parameter between steps: itself, and its optimizer state."""
        layout = self.resting(p, Store.PARAMETER)
        owned = self.resting(p, Store.OPTIMIZER)
        shape = self.rest_shape(p, layout)
        rest = self._new(f"w:{p.name}", Role.PARAMETER, layout, shape=shape, parameter=p.name)
        if (layout, shape) == (self.placement.layout(p.dims), self.placement.shape(p)):
            self.working[p.name] = rest
            self.rests.add(p.name)
        shape = self.rest_shape(p, owned)
        states = ("first", "second") if self._is_master(p) else ("master", "first", "second")
        for state in states:
            self._new(f"{state}:{p.name}", Role.STATE, owned, shape=shape, dtype=self.master,
                      parameter=p.name)  # fmt: skip

    def _is_master(self, p: Parameter) -> bool:
        """Whether the parameter as it rests is its own master weight."""
        rests = {self.resting(p, s) for s in (Store.PARAMETER, Store.OPTIMIZER)}
        return self.compute == self.master and len(rests) == 1

    def _given(self, m: int) -> None:
        names = {v.name: v for b in range(*self.span) for g in self.groups[b] for v in g.reads
                 if v.kind == "given"}  # fmt: skip
        for value in names.values():
            layout = self.placement.layout(value.dims)
            self._new(f"{value.name}.m{m}", Role.GIVEN, layout, dims=value.dims, dtype="int64")
        if self._has_loss:
            parts = self.placement.over(("batch", "time"), lacking=())
            self._new(f"count.m{m}", Role.GIVEN, Layout((), parts), dtype="int64")

    @property
    def _has_loss(self) -> bool:
        return self.span[1] == len(self.chain)

    def _input(self, block: int, m: int) -> Buffer:
        """Name what enters `block`, in the layout of the residual stream."""
        name = f"x{block}.m{m}"
        self.buffers[name] = self.residual
        return name

    def _cotangent(self, block: int, m: int) -> Buffer:
        """Name the cotangent of what leaves `block`, in the layout of the residual stream."""
        name = f"dx{block + 1}.m{m}"
        self.buffers[name] = self.residual
        return name

    # ── communication between stages ─────────────────────────────────────────────────────────────

    def _receive(self, action: Action) -> None:
        """Post the receive of what `action` reads from a neighbour."""
        m = action.micro_batch
        if action.direction is Pass.FORWARD and self.span[0] > 0:
            self.out.append(Recv((self._input(self.span[0], m),), -1, f"x.m{m}"))
        if action.direction is Pass.BACKWARD and not self._has_loss:
            self.out.append(Recv((self._cotangent(self.span[1] - 1, m),), 1, f"dx.m{m}"))

    def _send(self, action: Action) -> None:
        m = action.micro_batch
        if action.direction is Pass.FORWARD and not self._has_loss:
            self.out.append(Send((self._input(self.span[1], m),), 1, f"x.m{m}"))
        if action.direction is Pass.BACKWARD and self.span[0] > 0:
            self.out.append(Send((self._cotangent(self.span[0] - 1, m),), -1, f"dx.m{m}"))

    # ── parameters ───────────────────────────────────────────────────────────────────────────────

    def _gather(self, parameters: Iterable[Parameter]) -> None:
        """Bring parameters from where they rest to where they are used."""
        moves = []
        for p in parameters:
            if p.name in self.working:
                continue
            layout, shape = self.placement.layout(p.dims), self.placement.shape(p)
            name = f"u{len(self.out)}:{p.name}"
            self._new(name, Role.WORKING, layout, shape=shape, parameter=p.name)
            moves.append((f"w:{p.name}", name))
            self.working[p.name] = name
        self._move(moves)

    # ── forward ──────────────────────────────────────────────────────────────────────────────────

    def _forward(self, use: _Use, phase: Phase, *, keep: bool) -> None:
        b, m = use.block, use.micro_batch
        mark = "" if phase is Phase.FORWARD else "'"
        held: dict[str, Buffer] = {}
        if self.chain[b].kind is not BlockKind.EMBEDDING:
            held["x"] = self._input(b, m)
        for group in self.groups[b]:
            if phase is Phase.RECOMPUTE and group.is_sum:
                continue
            values = self._bring(group, held, m)
            writes = self._writes(group, b, m, mark, keep=keep)
            graph = f"graph{b}.{group.span[0]}.m{m}" if keep and not group.is_sum else ""
            if graph:
                self._new(graph, Role.GRAPH, Layout(()))
            adds = self._begin([(w, w) for n, w in writes if n == "loss" and not mark])
            self.out.append(
                Compute(
                    phase,
                    b,
                    group.span,
                    m,
                    values,
                    self._used(group.parameters),
                    writes,
                    (),
                    adds,
                    graph,
                )
            )
            held |= dict(writes)
        if phase is Phase.FORWARD and not (self._has_loss and b == self.span[1] - 1):
            self._move([(held["x"], self._input(b + 1, m))])

    def _used(self, parameters: Iterable[Parameter]) -> Named:
        return tuple((p.name, self.working[p.name]) for p in parameters)

    def _writes(self, group: Group, b: int, m: int, mark: str, *, keep: bool) -> Named:
        """Name what a group writes; what leaves the block in the right layout is the next input."""
        writes = []
        for value in group.writes:
            layout, dims = self.gives(group, value), value.dims
            if value.name == "loss":
                name = "loss" if not mark else f"loss.m{m}{mark}"
                self._new(name, Role.ACTIVATION, layout, dtype=self.master)
            elif value.name == "x" and layout == self.placement.layout(RESIDUAL) and not mark:
                name = self._input(b + 1, m)
            else:
                small = "embed" not in dims and "vocab" not in dims
                name = self._new(f"{value.name}{b}.m{m}{mark}", Role.ACTIVATION, layout, dims=dims,
                                 dtype=self.master if small else None)  # fmt: skip
            writes.append((value.name, name))
        return tuple(writes)

    def _bring(self, group: Group, held: dict[str, Buffer], m: int) -> Named:
        """Give the buffers that hold a group's inputs in the layouts that it needs."""
        values, moves = [], []
        for value in group.reads:
            if value.kind == "given":
                values.append((value.name, f"{value.name}.m{m}"))
                continue
            source = held[value.name]
            spec, layout = self.buffers[source], group.needs(value)
            if spec.layout == layout:
                values.append((value.name, source))
                continue
            name = self._new(f"{source}>{group.span[0]}", Role.ACTIVATION, layout, dims=value.dims,
                             dtype=spec.dtype)  # fmt: skip
            moves.append((source, name))
            values.append((value.name, name))
        self._move(moves)
        held |= dict(values)  # a later group may read it as it lies now
        return tuple(values)

    def _move(self, pairs: Sequence[tuple[Buffer, Buffer]], adds: Sums = ()) -> None:
        """Move buffers to where they are wanted, those that go by one route in one instruction."""
        by_route: dict[Route, list[Leg]] = {}
        for source, target in pairs:
            if source != target:
                steps = self.redistribute(self.buffers[source].layout, self.buffers[target].layout)
                by_route.setdefault(route(steps), []).append(Leg(source, target, steps))
        for legs in by_route.values():
            targets = {leg.target for leg in legs}
            self.out.append(Move(tuple(legs), tuple(a for a in adds if a[0] in targets)))

    # ── backward ─────────────────────────────────────────────────────────────────────────────────

    def _backward(self, use: _Use) -> None:
        b, m = use.block, use.micro_batch
        is_head = b == len(self.chain) - 1
        incoming: dict[str, Buffer] = {} if is_head else {"x": self._cotangent(b, m)}
        addend: Buffer = ""  # what reaches the block's input past its groups
        for group in reversed(self.groups[b]):
            if group.is_sum:
                incoming["d"] = addend = incoming.pop("x")
                continue
            values = self._cotangents_in(group, incoming, b, m)
            writes, adds, moves = self._cotangents_out(group, b, m, addend)
            gradients, sums, reductions = self._gradients(group, b, m)
            graph = f"graph{b}.{group.span[0]}.m{m}"
            used = self._used(group.recalled)
            sums = (*adds, *sums)
            self.out.append(
                Compute(
                    Phase.BACKWARD, b, group.span, m, values, used, writes, gradients, sums, graph
                )
            )
            incoming = dict(writes)
            if moves:
                self._move(moves, ((moves[0][1], addend),) if addend else ())
            if reductions:
                self._move(reductions, self._begin(reductions))

    def _cotangents_in(self, group: Group, incoming: dict[str, Buffer], b: int, m: int) -> Named:
        """Give the cotangents of what a group wrote, in the layouts of what it wrote, whole."""
        values, moves = [], []
        for value in group.writes:
            if value.kind != "real" or value.name == "loss":
                continue
            source, layout = incoming[value.name], group.needs(value)
            if self.buffers[source].layout != layout:
                name = self._new(f"d{value.name}{b}.{group.span[0]}<.m{m}", Role.ACTIVATION, layout,
                                 dims=value.dims, dtype=self.buffers[source].dtype)  # fmt: skip
                moves.append((source, name))
                source = name
            values.append((value.name, source))
        self._move(moves)
        return tuple(values)

    def _cotangents_out(
        self, group: Group, b: int, m: int, addend: Buffer
    ) -> tuple[Named, Sums, list[tuple[Buffer, Buffer]]]:
        """Name the cotangents of what a group read.

        Returns:
            The names; what is added to them; what must move before it leaves the block.
        """
        writes: list[tuple[str, Buffer]] = []
        adds: Sums = ()
        moves = []
        for value in group.reads:
            if value.kind != "real":
                continue
            layout = self.gives(group, value)
            leaves = value.name == "x"
            if leaves and layout == self.placement.layout(RESIDUAL):
                name = self._cotangent(b - 1, m)
                adds = ((name, addend),) if addend else ()
            else:
                small = "embed" not in value.dims and "vocab" not in value.dims
                name = self._new(f"d{value.name}{b}.{group.span[0]}.m{m}", Role.ACTIVATION, layout,
                                 dims=value.dims, dtype=self.master if small else None)  # fmt: skip
                if leaves:
                    moves.append((name, self._cotangent(b - 1, m)))
            writes.append((value.name, name))
        return tuple(writes), adds, moves

    # ── gradients ────────────────────────────────────────────────────────────────────────────────

    def _gradients(
        self, group: Group, b: int, m: int
    ) -> tuple[Named, Sums, list[tuple[Buffer, Buffer]]]:
        """Name the gradients that a group's backward writes.

        A gradient rests in its storage layout, in parts over the axes that this does not split, and
        is summed over micro-batches there. What the storage splits is reduced at once.
        """
        gradients: list[tuple[str, Buffer]] = []
        sums: list[tuple[Buffer, Buffer]] = []
        reductions: list[tuple[Buffer, Buffer]] = []
        for p in group.parameters:
            raw = self.gradient(group, p)
            rest = self.resting(p, Store.GRADIENT)
            rest = rest.with_partial(a for a in raw.partial if a not in rest.axes)
            shape = self.rest_shape(p, rest)
            total = self._new(f"g:{p.name}", Role.GRADIENT, rest, dtype=self.master, shape=shape,
                              parameter=p.name)  # fmt: skip
            if raw == rest:
                gradients.append((p.name, total))
                sums += self._begin([(total, total)])
            else:
                name = self._new(f"g{b}.m{m}:{p.name}", Role.GRADIENT, raw, parameter=p.name,
                                 shape=self.placement.shape(p))  # fmt: skip
                gradients.append((p.name, name))
                reductions.append((name, total))
        return tuple(gradients), tuple(sums), reductions

    def _begin(self, pairs: Sequence[tuple[Buffer, Buffer]]) -> Sums:
        """Add to the buffers that hold a sum already; the others begin one now."""
        adds = tuple((t, t) for _, t in pairs if t in self.begun)
        self.begun |= {t for _, t in pairs}
        return adds

    def _close(self, block: int) -> None:
        """Note which gradients are complete; those still to be reduced wait for a bucket."""
        self.backwards[block] += 1
        if self.backwards[block] < self.micro_batches:
            return
        for p in (p for group in reversed(self.groups[block]) for p in group.parameters):
            self.left[p.name] -= 1
            if self.left[p.name]:
                continue
            total = f"g:{p.name}"
            owned = self.resting(p, Store.OPTIMIZER)
            shape = self.rest_shape(p, owned)
            if (self.buffers[total].layout, self.buffers[total].shape) == (owned, shape):
                self.reduced[p.name] = total
            else:
                steps = self.redistribute(self.buffers[total].layout, owned)
                self.pending.setdefault(route(steps), []).append(p)
        self._flush()

    def _flush(self, *, everything: bool = False) -> None:
        """Reduce the buckets that are full, or all."""
        for way, waiting in list(self.pending.items()):
            size = DTYPE_BYTES[self.master] * sum(
                math.prod(self.placement.shape(p)) for p in waiting
            )
            if everything or size >= self.plan.communication.bucket_bytes:
                pairs = []
                for p in waiting:
                    owned = self.resting(p, Store.OPTIMIZER)
                    name = self._new(f"r:{p.name}", Role.GRADIENT, owned, dtype=self.master,
                                     shape=self.rest_shape(p, owned),
                                     parameter=p.name)  # fmt: skip
                    self.reduced[p.name] = name
                    pairs.append((f"g:{p.name}", name))
                self._move(pairs)
                del self.pending[way]

    def _tie(self) -> None:
        """Sum the gradients of what another stage uses too: each sends the other its own."""
        for name, stages in self.ties.items():
            if self.stage not in stages:
                continue
            assert len(stages) == 2, "a parameter is shared by two stages at most"
            by = sum(stages) - 2 * self.stage
            mine = self.reduced[name]
            spec = self.buffers[mine]
            total = self._new(f"t:{name}", Role.GRADIENT, spec.layout, shape=spec.shape,
                              dtype=spec.dtype, parameter=name)  # fmt: skip
            self.out.append(Recv((total,), by, f"tie:{name}", ((total, mine),)))
            self.out.append(Send((mine,), by, f"tie:{name}"))
            self.reduced[name] = total

    # ── update ───────────────────────────────────────────────────────────────────────────────────

    def _update(self) -> None:
        """Vote on the step, update what this rank owns, and bring new weights to their rest."""
        self._new("verdict", Role.VERDICT, Layout(()), dtype=self.master)
        mine = [
            p
            for p in self.parameters.values()
            if self.ties.get(p.name, (self.stage,))[0] == self.stage
        ]
        counts = tuple(f"count.m{m}" for m in range(self.micro_batches))
        self.out.append(
            Vote(
                ("loss",) if self._has_loss else (),
                counts if self._has_loss else (),
                tuple(self.reduced[p.name] for p in mine),
                "verdict",
            )
        )
        for bucket in _buckets(self.parameters.values(), self.placement, self.plan):
            weights, moves = [], []
            for p in bucket:
                rest = f"w:{p.name}"
                owned = self.resting(p, Store.OPTIMIZER)
                target = rest
                if self.buffers[rest].layout != owned:
                    shape = self.rest_shape(p, owned)
                    target = self._new(f"n:{p.name}", Role.WORKING, owned, shape=shape,
                                       parameter=p.name)  # fmt: skip
                    moves.append((target, rest))
                master = rest if self._is_master(p) else f"master:{p.name}"
                state = (master, f"first:{p.name}", f"second:{p.name}")
                weights.append(Weight(p.name, self.reduced[p.name], state, target))
            self.out.append(Update("verdict", tuple(weights)))
            self._move(moves)


def _buckets(
    parameters: Iterable[Parameter], placement: Placement, plan: Plan
) -> list[list[Parameter]]:
    """Cut parameters into runs of about a bucket's size."""
    buckets: list[list[Parameter]] = [[]]
    size = 0
    for p in parameters:
        if size >= plan.communication.bucket_bytes:
            buckets.append([])
            size = 0
        buckets[-1].append(p)
        size += DTYPE_BYTES[plan.numerics.dtype] * math.prod(placement.shape(p))
    return buckets
