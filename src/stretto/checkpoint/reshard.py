"""Which bytes of a checkpoint make up a box: intersections of boxes, whoever wrote them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stretto.checkpoint.manifest import Manifest
from stretto.errors import CheckpointError, Problem
from stretto.layout import Box, intersect

Slices = tuple[slice, ...]
"""One slice for each dimension, with start and stop."""


@dataclass(frozen=True, slots=True)
class Read:
    """A part of a wanted box that lies in one stored box.

    Attributes:
        file: The file to read.
        key: The name of the stored box in it.
        source: Where the part is in the stored box.
        target: Where it goes in the wanted box.
    """

    file: str
    key: str
    source: Slices
    target: Slices


def reads(manifest: Manifest, name: str, box: Box) -> tuple[Read, ...]:
    """Give the reads that fill a wanted box, each element once.

    Args:
        manifest: Of a checkpoint whose boxes tile its tensors.
        name: The tensor.
        box: The part that is wanted, inside the tensor's shape; not empty.

    Raises:
        CheckpointError: The checkpoint has no such tensor, or the tensor no such part.
    """
    if name not in manifest.tensors:
        raise CheckpointError(Problem(name, "is not in the checkpoint", "use another checkpoint"))
    tensor = manifest.tensors[name]
    if len(box) == len(tensor.shape):
        common = [(stored, intersect(stored.box, box)) for stored in tensor.boxes]
        if _volume(box) == sum(_volume(part) for _, part in common if part is not None):
            return tuple(
                Read(stored.file, stored.key, _within(stored.box, part), _within(box, part))
                for stored, part in common
                if part is not None
            )
    rule = f"has shape {tensor.shape} in the checkpoint, which does not hold {box}"
    raise CheckpointError(Problem(name, rule, "use the model of the checkpoint"))


def _volume(box: Box) -> int:
    return math.prod(stop - start for start, stop in box)


def _within(box: Box, part: Box) -> Slices:
    """Give where `part` is in `box`."""
    return tuple(
        slice(start - origin, stop - origin)
        for (start, stop), (origin, _) in zip(part, box, strict=True)
    )
