"""A step of a move, played on the arrays of all ranks: what `redistribute` means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stretto.layout import Kind, Step
from stretto.mesh import Mesh

Array = NDArray[Any]


def combine(step: Step, blocks: Sequence[Array]) -> list[Array]:
    """Play a step within one group.

    Args:
        step: What is done.
        blocks: What each rank of the group holds, in the order of the group.

    Returns:
        What each rank of the group holds afterwards, in the same order.
    """
    count = len(blocks)
    match step.kind:
        case Kind.ALL_GATHER:
            return [np.concatenate(blocks, axis=step.dim)] * count
        case Kind.ALL_REDUCE:
            return [_reduced(step, blocks)] * count
        case Kind.REDUCE_SCATTER:
            return np.split(_reduced(step, blocks), count, axis=step.dim)
        case Kind.ALL_TO_ALL:
            parts = [np.split(block, count, axis=step.to) for block in blocks]
            return [np.concatenate(mine, axis=step.dim) for mine in zip(*parts, strict=True)]
        case Kind.SLICE:
            return [np.split(b, count, axis=step.dim)[i] for i, b in enumerate(blocks)]
        case Kind.MASK:
            return [blocks[0], *(np.zeros_like(block) for block in blocks[1:])]


def _reduced(step: Step, blocks: Sequence[Array]) -> Array:
    stacked = np.stack(blocks)
    return np.asarray(stacked.max(axis=0) if step.reduction == "max" else stacked.sum(axis=0))


def play(steps: Iterable[Step], blocks: Sequence[Array], *, mesh: Mesh) -> list[Array]:
    """Play steps on a whole mesh.

    Args:
        steps: What is done, one after another.
        blocks: What each rank holds.
        mesh: The ranks.

    Returns:
        What each rank holds afterwards.
    """
    held = list(blocks)
    for step in steps:
        for group in mesh.groups(step.axes):
            for rank, block in zip(group, combine(step, [held[r] for r in group]), strict=True):
                held[rank] = block
    return held


def padded(block: Array, shape: Sequence[int]) -> Array:
    """Give a block with zeros at its ends, as wide as `shape` where that is wider."""
    wide = tuple(max(pair) for pair in zip(block.shape, shape, strict=True))
    if wide == block.shape:
        return block
    zeros = np.zeros(wide, block.dtype)
    zeros[tuple(slice(0, size) for size in block.shape)] = block
    return zeros


def cropped(block: Array, shape: Sequence[int]) -> Array:
    """Give a block without its ends, as narrow as `shape` where that is narrower."""
    return block[tuple(slice(0, size) for size in shape)]
