from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.checkpoint.manifest import VERSION, Manifest, StoredBox, StoredFile, StoredTensor
from stretto.checkpoint.reshard import reads
from stretto.errors import CheckpointError
from stretto.layout import Box, Layout
from stretto.mesh import Mesh
from stretto.model import Model

MODEL = Model(
    "tiny", layers=1, embed=4, heads=2, kv_heads=1, head_dim=2, ff=4, vocab=6, positions=8
)


def boxes(shape: tuple[int, ...], random: Random) -> list[tuple[int, Box]]:
    """Give (rank, box) of each owner under a random layout on a random mesh, without padding."""
    mesh = Mesh(tuple((name, random.randint(1, 3)) for name in ("pp", "dp", "tp")))
    axes = list(mesh.expand(mesh.names))
    random.shuffle(axes)
    dims: list[tuple[str, ...]] = [()] * len(shape)
    for axis in axes:
        if shape and random.random() < 0.7:
            d = random.randrange(len(shape))
            dims[d] = (*dims[d], axis)
    layout = Layout(tuple(dims))
    padded = tuple(
        -(-size // mesh.extent(*axes)) * mesh.extent(*axes)
        for size, axes in zip(shape, layout.dims, strict=True)
    )
    found = []
    for rank in range(mesh.size):
        box = layout.box(padded, mesh=mesh, rank=rank)
        clipped = tuple((min(a, n), min(b, n)) for (a, b), n in zip(box, shape, strict=True))
        if layout.owns(mesh=mesh, rank=rank) and all(a < b for a, b in clipped):
            found.append((rank, clipped))
    return found


def slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(*edge) for edge in box)


def manifest(shape: tuple[int, ...], parts: list[tuple[int, Box]]) -> Manifest:
    names = {rank: f"rank-{rank:05d}.safetensors" for rank, _ in parts}
    tensor = StoredTensor(
        "float64", shape, tuple(StoredBox(box, names[rank], "t") for rank, box in parts)
    )
    files = {name: StoredFile(1, "0" * 64) for name in names.values()}
    return Manifest(VERSION, 1, 1, MODEL, {}, {"t": tensor}, files)


@given(st.lists(st.integers(1, 7), max_size=3).map(tuple), st.randoms(use_true_random=False))
def test_every_box_of_every_layout_is_filled_once_from_any_other(
    shape: tuple[int, ...], random: Random
) -> None:
    whole = np.arange(np.prod(shape, dtype=int), dtype=float).reshape(shape)
    saved = boxes(shape, random)
    files = {f"rank-{rank:05d}.safetensors": whole[slices(box)] for rank, box in saved}
    for _, wanted in boxes(shape, random):
        result, filled = np.full(whole[slices(wanted)].shape, -1.0), 0
        for read in reads(manifest(shape, saved), "t", wanted):
            piece = files[read.file][read.source]
            assert piece.size > 0
            assert result[read.target].shape == piece.shape
            result[read.target] = piece
            filled += piece.size
        np.testing.assert_array_equal(result, whole[slices(wanted)])
        assert filled == result.size


def test_what_lies_in_one_file_is_one_read() -> None:
    saved: list[tuple[int, Box]] = [(0, ((0, 4), (0, 6))), (3, ((4, 8), (0, 6)))]
    (read,) = reads(manifest((8, 6), saved), "t", ((5, 7), (2, 6)))
    assert (read.file, read.key) == ("rank-00003.safetensors", "t")
    assert (read.source, read.target) == (slices(((1, 3), (2, 6))), slices(((0, 2), (0, 4))))


@pytest.mark.parametrize("box", [((0, 9), (0, 6)), ((0, 8),), ((-1, 3), (0, 6))])
def test_a_box_outside_of_the_tensor_is_refused(box: Box) -> None:
    case = manifest((8, 6), [(0, ((0, 8), (0, 6)))])
    with pytest.raises(CheckpointError, match=r"t: has shape \(8, 6\) in the checkpoint"):
        reads(case, "t", box)


def test_a_tensor_that_is_not_there_is_named() -> None:
    with pytest.raises(CheckpointError, match="u: is not in the checkpoint"):
        reads(manifest((2,), [(0, ((0, 2),))]), "u", ((0, 2),))
