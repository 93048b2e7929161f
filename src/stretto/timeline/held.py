"""What each instruction of a stage adds to the memory of a rank, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator

import numpy as np

from stretto.model import Segment
from stretto.plan import DTYPE_BYTES
from stretto.program.instruction import (
    STAYS,
    Buffer,
    Compute,
    Free,
    Phase,
    Program,
    Role,
    StageProgram,
    Update,
)
from stretto.timeline.value import Ints

ROLES = tuple(Role)


def resting(program: Program, stage: StageProgram) -> Ints:
    """Give the bytes that a rank of a stage holds between steps, by role in the order of `ROLES`.

    With the micro-batches of a step, which are there throughout.
    """
    found = np.zeros(len(ROLES), dtype=np.int64)
    for name in stage.resting(*STAYS):
        spec = stage.buffers[name]
        found[ROLES.index(spec.role)] += spec.local_bytes(program.placement)
    return found


def changes(program: Program, stage: StageProgram) -> Ints:
    """Give by how many bytes each instruction changes what a rank holds, by role.

    A buffer is held from the instruction that first writes it to the one that frees it; but what a
    compute with a graph reads is held until the graph is freed, for autograd keeps it, and so are
    the values that only the graph has.

    Returns:
        Bytes, (instructions, roles); a column sums to zero.
    """
    found = np.zeros((len(stage.instructions), len(ROLES)), dtype=np.int64)
    ledger = _Ledger(program, stage)
    for i, instruction in enumerate(stage.instructions):
        if isinstance(instruction, Free):
            given = ledger.free(instruction.buffers)
        else:
            given = ledger.write(instruction.output)
            if isinstance(instruction, Compute):
                given = [*given, *ledger.keep(instruction)]
        for role, size in given:
            found[i, ROLES.index(role)] += size
    return found


class _Ledger:
    """Who holds what while a list is gone through.

    Attributes:
        live: Buffers that may be read.
        keepers: Of each buffer how many keep it.
        kept: What a graph keeps besides, or a gradient that overwrote it: buffers, and bytes of
            its own.
    """

    def __init__(self, program: Program, stage: StageProgram) -> None:
        self.program, self.buffers = program, stage.buffers
        self.size = {n: s.local_bytes(program.placement) for n, s in stage.buffers.items()}
        self.size |= dict.fromkeys(_borrowed(program, stage), 0)
        self.live = set(stage.resting(*STAYS))
        self.keepers: dict[Buffer, int] = {}
        self.alike: dict[Hashable, tuple[frozenset[str], int]] = {}
        self.kept: dict[Buffer, tuple[tuple[Buffer, ...], int]] = {}

    def write(self, names: Iterable[Buffer]) -> list[tuple[Role, int]]:
        """Take buffers that are written; give what comes to be held."""
        new = [name for name in dict.fromkeys(names) if name not in self.live]
        self.live.update(new)
        return [(self.buffers[name].role, self.size[name]) for name in new]

    def keep(self, compute: Compute) -> Iterator[tuple[Role, int]]:
        """Take what a compute leaves in the keeping of its graph, or of what it wrote in place.

        Autograd keeps what a forward read; the gradient of logits overwrites what their sums kept.
        """
        segments = self.program.segments(compute)
        if compute.phase is Phase.BACKWARD:
            if any(s.name == "sums" for s in segments):
                logits = self.kept[compute.graph][0][:1]  # what the sums read first
                for name in (b for n, b in compute.writes if n == "logits"):
                    self._holds(name, logits, own=0)
        elif compute.graph:
            real, own = self._keeps(compute)
            self._holds(compute.graph, [b for n, b in compute.values if n in real], own=own)
            yield Role.GRAPH, own

    def _keeps(self, compute: Compute) -> tuple[frozenset[str], int]:
        """Give which values a forward keeps, and `kept_bytes`: the same for every micro-batch."""
        names = tuple([n for n, _ in (*compute.values, *compute.writes)])
        key = compute.block, compute.segments, names
        if key not in self.alike:
            read = [v for s in self.program.segments(compute) for v in s.reads]
            real = frozenset(v.name for v in read if v.kind == "real")
            self.alike[key] = real, kept_bytes(self.program, compute)
        return self.alike[key]

    def _holds(self, keeper: Buffer, names: Iterable[Buffer], *, own: int) -> None:
        self.kept[keeper] = tuple(names), own
        for name in self.kept[keeper][0]:
            self.keepers[name] = self.keepers.get(name, 0) + 1

    def free(self, names: Iterable[Buffer]) -> list[tuple[Role, int]]:
        """Take buffers that are freed; give what is held no longer."""
        gone = []
        for name in names:
            self.live.discard(name)
            if name in self.kept:
                kept, own = self.kept.pop(name)
                gone.append((Role.GRAPH, -own))
                for one in kept:
                    self.keepers[one] -= 1
                gone += [self._given(one) for one in kept if one not in self.live]
            gone.append(self._given(name))
        return gone

    def _given(self, name: Buffer) -> tuple[Role, int]:
        return self.buffers[name].role, 0 if self.keepers.get(name) else -self.size[name]


def _borrowed(program: Program, stage: StageProgram) -> Iterator[Buffer]:
    """Give the buffers that lie where another does.

    A new weight is handed to its move as the master weight, if it has its precision; the gradient
    of logits overwrites what their sums have kept of them.
    """
    for instruction in stage.instructions:
        match instruction:
            case Update(weights=weights):
                for weight in weights:
                    if stage.buffers[weight.weight].dtype == stage.buffers[weight.state[0]].dtype:
                        yield from {weight.weight} - set(stage.resting(*STAYS))
            case Compute(phase=Phase.BACKWARD, writes=writes):
                names = [segment.name for segment in program.segments(instruction)]
                yield from (b for n, b in writes if n == "logits" and "sums" in names)
            case _:
                pass


def kept_bytes(program: Program, compute: Compute) -> int:
    """Give the bytes that autograd keeps of a forward beside what it reads and writes.

    They are what `stretto.nn` saves: results of norms and products, and of attention the logarithm
    of the sums of its scores (Dao et al., 2022).
    """
    numerics, segments = program.plan.numerics, program.segments(compute)
    value, wide = DTYPE_BYTES[numerics.dtype], max(4, DTYPE_BYTES[numerics.dtype])
    read = {v.name for s in segments if s.name != "add" for v in s.reads}
    given = {name for name, _ in (*compute.values, *compute.writes)}
    inner = [v for s in segments for v in s.writes if v.name in read - given]
    shared = sum(_elements(program, *v.dims) for v in inner if v.kind == "real")
    own = sum(_saved(program, segment, value=value, wide=wide) for segment in segments)
    return value * shared + own


def _saved(program: Program, segment: Segment, *, value: int, wide: int) -> int:
    """Give the bytes of what a segment saves that is neither read nor written."""
    model = program.model
    tokens = _elements(program, "batch", "time")
    match segment.name:
        case "norm":
            rows = _elements(program, *segment.reads[0].dims[:-1])
            return wide * rows * (2 if model.norm == "layer" else 1)
        case "attend":
            heads, keys = (
                tokens * _elements(program, *dims)
                for dims in (("kv_heads", "group"), ("kv_heads",))
            )
            again = (heads + keys) * (value * model.head_dim + wide) if model.qk_norm else 0
            return value * model.head_dim * 2 * (heads + keys) + wide * heads + again
        case "transform":
            smooth = model.gated and model.activation != "silu"
            return value * tokens * _elements(program, "ff") * (2 + model.gated + smooth)
        case "sums":
            return tokens * (8 + 1 + wide)
        case "loss":
            return tokens * wide
        case "lookup" | "add" | "logits" | "latent" | "route" | "experts" | "join":
            return 0


def _elements(program: Program, *dims: str) -> int:
    """Give how many elements of a tensor with logical `dims` a rank has in use."""
    placement, batch = program.placement, program.plan.batch
    sizes = placement.sizes | {
        "batch": batch.micro_batch * program.plan.replicas,
        "seq": batch.seq,
        "time": batch.seq,
    }
    shape = tuple(sizes[d] for d in dims)
    return math.prod(placement.layout(dims).local(shape, mesh=placement.mesh))
