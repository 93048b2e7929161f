"""What a rank holds between steps: where it comes from, and how it is saved.

A rank reads or makes its own boxes only. Boxes are in global coordinates of the true tensor; what a
plan pads is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from stretto.checkpoint.io import Piece
from stretto.initial import initial
from stretto.layout import Box
from stretto.model import Parameter
from stretto.program.instruction import Buffer, Role, Spec
from stretto.runtime.rank import DTYPES, Rank

Source = Callable[[Parameter, str, Box], Tensor]
"""(parameter, ``weight``, ``first`` or ``second``, box) → the content of the box."""


def fresh(*, seed: int, shape: Callable[[Parameter], tuple[int, ...]]) -> Source:
    """Give initial weights and zero moments, each element a function of seed and place."""

    def source(parameter: Parameter, what: str, box: Box) -> Tensor:
        if what != "weight":
            return torch.zeros([stop - start for start, stop in box])
        return torch.from_numpy(initial(parameter, box, shape=shape(parameter), seed=seed))

    return source


def fill(rank: Rank, source: Source) -> None:
    """Fill a rank's parameters and optimizer state from `source`."""
    parameters = {p.name: p for p in rank.program.model.parameters}
    for name in rank.stage.resting(Role.PARAMETER, Role.STATE):
        spec = rank.stage.buffers[name]
        parameter = parameters[spec.parameter]
        box, local = _box(rank, spec, true=rank.program.model.shape(parameter))
        tensor = torch.zeros(local, dtype=DTYPES[spec.dtype], device=rank.device)
        if all(start < stop for start, stop in box):
            inner = tuple(slice(0, stop - start) for start, stop in box)
            tensor[inner] = source(parameter, _content(name), box).to(tensor)
        rank.buffers[name] = tensor


def pieces(rank: Rank) -> Iterator[Piece]:
    """Give what this rank is to save: the first holder of a box saves it."""
    model = rank.program.model
    parameters = {p.name: p for p in model.parameters}
    rank.settle()
    mesh = rank.program.placement.mesh
    masters = {s.parameter for n, s in rank.stage.buffers.items() if n.startswith("master:")}
    first_stage = _first_stage(rank)
    for name in rank.stage.resting(Role.PARAMETER, Role.STATE):
        spec = rank.stage.buffers[name]
        if spec.role is Role.PARAMETER and spec.parameter in masters:
            continue
        if not spec.layout.owns(mesh=mesh, rank=rank.number, besides=("pp",)):
            continue
        if first_stage[spec.parameter] != rank.stage.stage:
            continue
        true = model.shape(parameters[spec.parameter])
        box, _ = _box(rank, spec, true=true)
        if any(start >= stop for start, stop in box):
            continue
        inner = tuple(slice(0, stop - start) for start, stop in box)
        parameter = parameters[spec.parameter]
        tensor = rank.buffers[name][inner]
        yield Piece(piece_name(parameter.name, _content(name)), model.shape(parameter), box, tensor)


def piece_name(parameter: str, what: str) -> str:
    """Give the name under which a checkpoint holds a weight or a moment."""
    return parameter if what == "weight" else f"{parameter}#{what}"


def _box(rank: Rank, spec: Spec, *, true: tuple[int, ...]) -> tuple[Box, tuple[int, ...]]:
    """Give a rank's box of a buffer, cut to the true tensor, and the local shape with padding."""
    placement = rank.program.placement
    padded = spec.layout.box(spec.shape, mesh=placement.mesh, rank=rank.number)
    box = tuple(
        (min(start, size), min(stop, size))
        for (start, stop), size in zip(padded, true, strict=True)
    )
    return box, spec.local_shape(placement)


def _content(name: Buffer) -> str:
    kind = name.split(":", 1)[0]
    return kind if kind in ("first", "second") else "weight"


def _first_stage(rank: Rank) -> dict[str, int]:
    first: dict[str, int] = {}
    for stage in rank.program.stages:
        for spec in stage.buffers.values():
            first.setdefault(spec.parameter, stage.stage)
    return first
