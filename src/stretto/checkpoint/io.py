"""Checkpoints of torch tensors: saved box by box, loaded by reading just the bytes of a box."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from stretto.checkpoint.commit import (
    Found,
    Part,
    file_name,
    find,
    open_checkpoint,
    saving,
    verify_files,
)
from stretto.checkpoint.manifest import Manifest, StoredBox, StoredTensor
from stretto.checkpoint.reshard import Read, reads
from stretto.checkpoint.storage import LOCAL, Chunk, Storage
from stretto.errors import CheckpointError, Problem
from stretto.layout import Box
from stretto.model import Model

__all__ = ["Found", "Piece", "find", "load", "open_checkpoint", "save", "verify_files"]

_CODES: Mapping[str, str] = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "int64": "I64"}
"""What safetensors calls a dtype."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A part of a tensor that this rank saves.

    Attributes:
        name: Of the tensor: a parameter's, alone or with ``#first`` or ``#second``.
        shape: Of the whole tensor, without padding.
        box: Which part of it this is.
        tensor: The data, in the shape of the box, on any device. It is copied to the host, one
            piece at a time, only where it lies elsewhere or is not contiguous.
    """

    name: str
    shape: tuple[int, ...]
    box: Box
    tensor: torch.Tensor

    def __post_init__(self) -> None:
        """Check that tensor, box and shape fit."""
        extents = tuple(stop - start for start, stop in self.box)
        assert extents == tuple(self.tensor.shape), f"{self.name}: {self.box} is not of the tensor"
        inside = all(0 <= a <= b <= n for (a, b), n in zip(self.box, self.shape, strict=True))
        assert inside, f"{self.name}: {self.box} is outside of {self.shape}"
        assert self.dtype in _CODES, f"{self.name}: {self.dtype} is not a dtype of checkpoints"

    @property
    def dtype(self) -> str:
        """The dtype of the tensor, as the manifest names it."""
        return str(self.tensor.dtype).removeprefix("torch.")

    @property
    def key(self) -> str:
        """Its name in the file; that of the tensor where it is the whole of it."""
        if self.box == tuple((0, size) for size in self.shape):
            return self.name
        return f"{self.name}@" + ",".join(f"{start}:{stop}" for start, stop in self.box)


def save(
    directory: Path,
    *,
    step: int,
    model: Model,
    extra: Mapping[str, Any],
    pieces: Iterable[Piece],
    rank: int,
    world: int,
    barrier: Callable[[], object],
    keep: int = 2,
    storage: Storage = LOCAL,
) -> Path:
    """Save a checkpoint together with all other ranks.

    Args:
        directory: Where checkpoints lie; all ranks see the same.
        step: The optimizer steps behind it.
        model: The model.
        extra: What else a run needs to go on, as JSON.
        pieces: What this rank saves; those of all ranks tile every tensor. Empty ones are left out.
        rank: Of this process.
        world: Number of ranks.
        barrier: Returns when all ranks have called it.
        keep: How many whole checkpoints to keep, 2 or more.
        storage: The file system.

    Returns:
        The directory of the checkpoint, which is whole and safe from a loss of power.

    Raises:
        MachineError: It could not be written; the numbers if there is no space.
        CheckpointError: The pieces do not make up the model.
    """
    part = _part(step, model, extra, pieces=pieces, rank=rank)
    steps = saving(directory, part, rank=rank, world=world, keep=keep, storage=storage)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            path: Path = end.value
            return path
        barrier()


def load(
    path: Path,
    manifest: Manifest,
    name: str,
    box: Box,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> torch.Tensor:
    """Give a part of a tensor of a checkpoint, whatever parts it was saved in.

    Args:
        path: The directory of the checkpoint.
        manifest: Its manifest.
        name: The tensor.
        box: Which part, inside the tensor's shape.
        dtype: Of the result.
        device: Of the result.

    Returns:
        A tensor in the shape of the box. Besides it no more than the pages of one read is held.

    Raises:
        CheckpointError: There is no such tensor or part, or a file is not what the manifest says.
    """
    result = torch.empty([stop - start for start, stop in box], dtype=dtype, device=device)
    if result.numel():
        for read in reads(manifest, name, box):
            _fill(result[read.target], path / read.file, read)
    return result


def _fill(target: torch.Tensor, path: Path, read: Read) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            source = file.get_slice(read.key)[read.source or ...]
    except (OSError, SafetensorError, IndexError) as error:
        raise CheckpointError(_damaged(path, f"cannot be read: {error}")) from error
    if source.shape != target.shape:
        rule = f"{read.key!r} does not hold {read.source}, as the manifest says"
        raise CheckpointError(_damaged(path, rule))
    target.copy_(source)


def _damaged(path: Path, rule: str) -> Problem:
    return Problem(f"{path.parent.name}: {path.name}", rule, "use another checkpoint")


# ── what a rank writes ───────────────────────────────────────────────────────────────────────────


def _part(
    step: int, model: Model, extra: Mapping[str, Any], *, pieces: Iterable[Piece], rank: int
) -> Part:
    # the widest elements first, as safetensors has it, so that all of them lie aligned
    ordered = sorted(
        (piece for piece in pieces if piece.tensor.numel()),
        key=lambda piece: (-piece.tensor.itemsize, piece.key),
    )
    header = _header(ordered)
    size_bytes = len(header) + sum(piece.tensor.nbytes for piece in ordered)
    tensors: dict[str, StoredTensor] = {}
    for piece in ordered:
        empty = StoredTensor(piece.dtype, piece.shape, ())
        boxes = tensors.get(piece.name, empty).boxes
        box = StoredBox(piece.box, file_name(rank), piece.key)
        tensors[piece.name] = StoredTensor(piece.dtype, piece.shape, (*boxes, box))
    return Part(step, model, extra, tensors, size_bytes if ordered else 0, _chunks(header, ordered))


def _header(pieces: Iterable[Piece]) -> bytes:
    """Give the head of a safetensors file; the library writes no file without holding it all."""
    entries, end = {}, 0
    for piece in pieces:
        start, end = end, end + piece.tensor.nbytes
        entries[piece.key] = {
            "dtype": _CODES[piece.dtype],
            "shape": tuple(piece.tensor.shape),
            "data_offsets": (start, end),
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _chunks(header: bytes, pieces: Iterable[Piece]) -> Iterator[Chunk]:
    yield header
    for piece in pieces:
        flat = piece.tensor.detach().to("cpu").contiguous().view(-1)
        yield flat.view(torch.uint8).numpy().data
