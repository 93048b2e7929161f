"""How many bytes a rank sends, by the axes that they go over."""

from __future__ import annotations

import math
from collections.abc import Iterator

from stretto.layout import Kind, Layout, Step, apply
from stretto.mesh import Mesh
from stretto.plan import DTYPE_BYTES
from stretto.program.instruction import Instruction, Leg, Move, Send, StageProgram
from stretto.rules import Placement

Axes = tuple[str, ...]


def traffic(
    instruction: Instruction, stage: StageProgram, placement: Placement
) -> tuple[tuple[Axes, int], ...]:
    """Give (axes, bytes that a rank sends) of each message of a move or a send.

    They are the fewest with which the step can be done (Chan et al., 2007): of n ranks that hold b
    bytes each, one sends (n - 1)·b to gather, (n - 1)/n·b to scatter or exchange, and twice that to
    reduce for all. The votes' few numbers are left out.
    """
    match instruction:
        case Move(legs=legs):
            messages = [list(_messages(leg, stage, placement)) for leg in legs]
            return tuple(
                (parts[0][0], sum(size for _, size in parts))
                for parts in zip(*messages, strict=True)
            )
        case Send(buffers=buffers):
            return ((("pp",), sum(stage.buffers[b].local_bytes(placement) for b in buffers)),)
        case _:
            return ()


def _messages(leg: Leg, stage: StageProgram, placement: Placement) -> Iterator[tuple[Axes, int]]:
    """Give axes and bytes of each step of a leg that communicates.

    A gradient that is added up in more precision than it was computed in travels in that.
    """
    source, target = stage.buffers[leg.source], stage.buffers[leg.target]
    shape = tuple(max(pair) for pair in zip(source.shape, target.shape, strict=True))
    layout = source.layout
    for step in leg.steps:
        if step.communicates:
            size = DTYPE_BYTES[target.dtype] * _block(layout, shape, placement.mesh)
            yield step.axes, sent_bytes(step, size, ranks=placement.mesh.extent(*step.axes))
        layout = apply(layout, step)


def _block(layout: Layout, shape: tuple[int, ...], mesh: Mesh) -> int:
    return math.prod(layout.local(shape, mesh=mesh))


def sent_bytes(step: Step, block_bytes: int, *, ranks: int) -> int:
    """Give the bytes that each of `ranks` sends in a step that starts with blocks of a size."""
    match step.kind:
        case Kind.ALL_GATHER:
            return (ranks - 1) * block_bytes
        case Kind.ALL_REDUCE:
            return -(-2 * (ranks - 1) * block_bytes // ranks)
        case Kind.REDUCE_SCATTER | Kind.ALL_TO_ALL:
            return -(-(ranks - 1) * block_bytes // ranks)
        case Kind.SLICE | Kind.MASK:
            return 0
