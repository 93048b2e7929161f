from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from random import Random
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from safetensors.torch import save as library_bytes

from stretto.checkpoint.io import Piece, find, load, open_checkpoint, save, verify_files
from stretto.checkpoint.manifest import (
    VERSION,
    Manifest,
    StoredBox,
    StoredFile,
    StoredTensor,
    tensor_shapes,
)
from stretto.checkpoint.storage import LOCAL, Chunk, LocalStorage, MemoryStorage, Storage
from stretto.errors import CheckpointError
from stretto.layout import Box
from stretto.mesh import Mesh
from stretto.model import Model
from stretto.rules import Placement, Rules, Store

# Three key heads, five units and eleven tokens: two ranks split none of them without padding.
MODEL = Model(
    "tiny", layers=1, embed=6, heads=6, kv_heads=3, head_dim=2, ff=5, vocab=11, positions=8,
    norm="layer", qkv_bias=True,
)  # fmt: skip
FILE = "rank-00000.safetensors"


def content(step: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Give what a tensor holds after a step: a function of step, name and element."""
    base = step * 1000 + sum(name.encode()) % 1000
    return base + torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)


def slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(*edge) for edge in box)


def whole(shape: tuple[int, ...]) -> Box:
    return tuple((0, size) for size in shape)


def placement(*, dp: int, tp: int, zero: bool = True) -> Placement:
    dims = ("embed", "ff", "head_dim", "vocab", "position")
    storage = tuple((dim, ("dp",)) for dim in dims) if zero else ()
    compute = tuple((dim, ("tp",)) for dim in ("heads", "ff", "vocab"))
    mesh = Mesh((("dp", dp), ("tp", tp)))
    return Placement(MODEL, mesh, Rules(compute, storage, storage, storage))


def pieces(case: Placement, *, step: int, rank: int) -> list[Piece]:
    """Give what a rank saves: its blocks of every tensor, padding cut off."""
    found = []
    for parameter in MODEL.parameters:
        layout, shape = case.resting(parameter, Store.OPTIMIZER), MODEL.shape(parameter)
        if not layout.owns(mesh=case.mesh, rank=rank):
            continue
        box = layout.box(case.rest_shape(parameter, layout), mesh=case.mesh, rank=rank)
        box = tuple((min(a, size), min(b, size)) for (a, b), size in zip(box, shape, strict=True))
        for name in (parameter.name, parameter.name + "#first", parameter.name + "#second"):
            found.append(Piece(name, shape, box, content(step, name, shape)[slices(box)]))
    return found


def save_rank(
    directory: Path,
    case: Placement,
    *,
    step: int,
    rank: int,
    barrier: Callable[[], object],
    storage: Storage = LOCAL,
) -> Path:
    return save(
        directory,
        step=step,
        model=MODEL,
        extra={"step": step},
        pieces=pieces(case, step=step, rank=rank),
        rank=rank,
        world=case.mesh.size,
        barrier=barrier,
        storage=storage,
    )


def save_all(directory: Path, case: Placement, *, step: int) -> Path:
    """Save with one thread for each rank."""
    barrier, ends = Barrier(case.mesh.size), set()

    def run(rank: int) -> None:
        ends.add(save_rank(directory, case, step=step, rank=rank, barrier=barrier.wait))

    threads = [Thread(target=run, args=(rank,)) for rank in range(case.mesh.size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = ends
    return path


def assert_holds(path: Path, step: int) -> None:
    """Compare every element of a checkpoint with what it should be."""
    manifest = open_checkpoint(path, model=MODEL)
    assert verify_files(path, manifest) == ()
    assert (manifest.step, manifest.extra) == (step, {"step": step})
    for name, shape in tensor_shapes(MODEL).items():
        found = load(path, manifest, name, whole(shape), dtype=torch.float32, device="cpu")
        assert torch.equal(found, content(step, name, shape)), name


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize("dp", [1, 2, 3])
def test_what_one_mesh_saves_any_other_loads(tmp_path: Path, dp: int, tp: int, zero: bool) -> None:
    path = save_all(tmp_path, placement(dp=dp, tp=tp, zero=zero), step=7)
    assert_holds(path, 7)
    manifest = open_checkpoint(path, model=MODEL)
    for other in (placement(dp=1, tp=3), placement(dp=2, tp=2)):
        for rank in range(other.mesh.size):
            for piece in pieces(other, step=7, rank=rank):
                found = load(
                    path, manifest, piece.name, piece.box, dtype=torch.float64, device="cpu"
                )
                assert torch.equal(found, piece.tensor.double()), piece.name


# ── files ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("wide", [torch.float64, torch.int64])
@given(random=st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_a_file_is_byte_for_byte_what_the_library_writes(wide: torch.dtype, random: Random) -> None:
    dtypes = (wide, torch.float32, torch.bfloat16)
    given = [
        replace(piece, tensor=piece.tensor.to(random.choice(dtypes)))
        for piece in pieces(placement(dp=1, tp=1), step=1, rank=0)
    ]
    random.shuffle(given)
    storage = MemoryStorage()
    path = save(
        Path("c"), step=1, model=MODEL, extra={}, pieces=given, rank=0, world=1,
        barrier=lambda: None, storage=storage,
    )  # fmt: skip
    assert storage.read(path / FILE) == library_bytes({p.key: p.tensor for p in given})


def test_the_library_reads_a_part_under_a_name_that_says_which(tmp_path: Path) -> None:
    path = save_all(tmp_path, placement(dp=2, tp=1), step=1)
    tensors = load_file(path / "rank-00001.safetensors")
    token = content(1, "embedding.token", (11, 6))
    assert torch.equal(tensors["embedding.token@0:11,3:6"], token[:, 3:6])
    bias = content(1, "layers.0.attention.query_bias#first", (3, 2, 2))
    assert torch.equal(tensors["layers.0.attention.query_bias#first@0:3,0:2,1:2"], bias[:, :, 1:2])


def test_contiguous_tensors_are_written_from_where_they_lie() -> None:
    given = pieces(placement(dp=1, tp=1), step=1, rank=0)
    addresses = []

    class Watching(MemoryStorage):
        def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
            def watched() -> Iterator[Chunk]:
                for chunk in chunks:
                    addresses.append(np.frombuffer(chunk, np.uint8).ctypes.data)
                    yield chunk

            MemoryStorage.write(self, path, watched())

    save(
        Path("c"), step=1, model=MODEL, extra={}, pieces=given, rank=0, world=1,
        barrier=lambda: None, storage=Watching(),
    )  # fmt: skip
    assert {piece.tensor.data_ptr() for piece in given} <= set(addresses)


CASES = {
    "half": content(1, "h", (6, 4)).bfloat16(),
    "single": content(1, "s", (6, 4)),
    "double": content(1, "d", (6, 4)).double(),
    "count": torch.arange(24).reshape(6, 4) + 2**40,
    "scalar": torch.tensor(3.5),
}


def by_library(directory: Path) -> Manifest:
    """Write the cases with the library, and the manifest by hand."""
    save_file(CASES, directory / FILE)
    tensors = {
        name: StoredTensor(
            str(tensor.dtype).removeprefix("torch."),
            tuple(tensor.shape),
            (StoredBox(whole(tuple(tensor.shape)), FILE, name),),
        )
        for name, tensor in CASES.items()
    }
    return Manifest(VERSION, 1, 1, MODEL, {}, tensors, {FILE: StoredFile(1, "0" * 64)})


@pytest.mark.parametrize("name", CASES)
def test_every_dtype_is_loaded_as_it_is_and_as_another(tmp_path: Path, name: str) -> None:
    manifest, tensor = by_library(tmp_path), CASES[name]
    box: Box = ((1, 4), (2, 4)) if tensor.ndim else ()
    wanted = tensor[slices(box)]
    for dtype in (tensor.dtype, torch.float64):
        found = load(tmp_path, manifest, name, box, dtype=dtype, device="cpu")
        assert found.dtype is dtype
        assert torch.equal(found, wanted.to(dtype))


def test_an_empty_box_is_an_empty_tensor(tmp_path: Path) -> None:
    manifest = by_library(tmp_path)
    box: Box = ((6, 6), (0, 4))
    found = load(tmp_path, manifest, "single", box, dtype=torch.float32, device="cpu")
    assert found.shape == (0, 4)


@pytest.mark.parametrize(
    ("stored", "rule"),
    [
        (StoredBox(((0, 6), (0, 4)), FILE, "other"), "does not contain tensor other"),
        (StoredBox(((0, 6), (0, 4)), "rank-00001.safetensors", "single"), "No such file"),
        (StoredBox(((0, 6), (0, 4)), FILE, "scalar"), "cannot be read: too many indices"),
        (StoredBox(((-2, 6), (0, 4)), FILE, "single"), "does not hold .* as the manifest says"),
    ],
    ids=["key", "file", "dimensions", "size"],
)
def test_a_file_that_is_not_what_the_manifest_says_is_named(
    tmp_path: Path, stored: StoredBox, rule: str
) -> None:
    manifest = by_library(tmp_path)
    tensor = replace(manifest.tensors["single"], boxes=(stored,))
    object.__setattr__(manifest, "tensors", {"single": tensor})  # what no file can say
    with pytest.raises(CheckpointError, match=f"rank-0000[01].safetensors: .*{rule}"):
        load(tmp_path, manifest, "single", ((4, 6), (0, 4)), dtype=torch.float32, device="cpu")


def test_a_piece_that_is_not_of_its_box_is_refused() -> None:
    tensor = torch.zeros(2, 3)
    for shape, box in [((4, 3), ((0, 3), (0, 3))), ((4, 3), ((3, 5), (0, 3)))]:
        with pytest.raises(AssertionError):
            Piece("t", shape, box, tensor)
    with pytest.raises(AssertionError, match="float16 is not a dtype of checkpoints"):
        Piece("t", (2, 3), whole((2, 3)), tensor.half())


# ── damage ───────────────────────────────────────────────────────────────────────────────────────


def complaints(directory: Path, path: Path) -> str:
    """Give what is said about a checkpoint, the way a run that resumes asks."""
    if find(directory).path == path:
        manifest = open_checkpoint(path, model=MODEL)
        shares = [verify_files(path, manifest, part=(rank, 3)) for rank in range(3)]
        return "\n".join(str(problem) for share in shares for problem in share)
    return "\n".join(map(str, find(directory).damaged))


def test_every_flipped_bit_of_every_file_is_found_and_the_file_named(tmp_path: Path) -> None:
    save_all(tmp_path, placement(dp=2, tp=1), step=1)
    path = save_all(tmp_path, placement(dp=2, tp=1), step=2)
    assert complaints(tmp_path, path) == ""
    random = Random(0)
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        for at in [0, len(content) - 1, *random.choices(range(len(content)), k=20)]:
            flipped = content[at] ^ (1 << random.randrange(8))
            file.write_bytes(content[:at] + bytes([flipped]) + content[at + 1 :])
            named = "manifest.json" if file.stem == "manifest" else file.name
            assert f"step-00000002: {named}: " in complaints(tmp_path, path), (file, at)
        file.write_bytes(content)
    assert_holds(path, 2)


def test_a_file_of_another_rank_or_step_is_found(tmp_path: Path) -> None:
    older = save_all(tmp_path, placement(dp=2, tp=1), step=1)
    path = save_all(tmp_path, placement(dp=2, tp=1), step=2)
    kept = path / "kept"
    (path / FILE).rename(kept)
    for other in (older / FILE, path / "rank-00001.safetensors"):
        shutil.copy(other, path / FILE)
        assert f"step-00000002: {FILE}: is damaged: its SHA-256 is" in complaints(tmp_path, path)
    manifest = open_checkpoint(path, model=MODEL)
    (path / FILE).unlink()
    (problem,) = verify_files(path, manifest, part=(0, 2))
    assert str(problem).startswith(f"{FILE}: cannot be read: No such file")
    assert verify_files(path, manifest, part=(1, 2)) == ()


# ── kill -9 ──────────────────────────────────────────────────────────────────────────────────────


class Telling(LocalStorage):
    """A file system that writes a byte to a pipe before each thing it does."""

    def __init__(self, pipe: int) -> None:
        object.__setattr__(self, "pipe", pipe)

    def tell(self) -> None:
        os.write(self.pipe, b".")  # type: ignore[attr-defined]

    def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        def told() -> Iterator[Chunk]:
            for chunk in chunks:
                self.tell()
                yield chunk

        super().write(path, told())

    def sync(self, directory: Path) -> None:
        self.tell()
        super().sync(directory)

    def rename(self, source: Path, target: Path) -> None:
        self.tell()
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self.tell()
        super().remove(path)


def keep_saving(directory: Path, case: Placement, *, step: int, **rest: Any) -> None:
    while True:
        save_rank(directory, case, step=step, **rest)
        step += 1


def kill_ranks_in_the_middle(directory: Path, *, times: int) -> None:
    """Start ranks that save one checkpoint after the other, and kill them, again and again."""
    random, fork, torn, step = Random(0), get_context("fork"), 0, 0
    case = placement(dp=3, tp=1)
    for _ in range(times):
        told, pipe = os.pipe()
        barrier = fork.Barrier(case.mesh.size)
        ranks = [
            fork.Process(
                target=keep_saving,
                args=(directory, case),
                kwargs={
                    "step": step + 1,
                    "rank": rank,
                    "barrier": barrier.wait,
                    "storage": Telling(pipe),
                },
            )
            for rank in range(case.mesh.size)
        ]
        for rank in ranks:
            rank.start()
        os.close(pipe)
        for _ in range(random.randint(400 if not step else 1, 900)):
            assert os.read(told, 1), "the ranks ended by themselves"
        random.shuffle(ranks)
        for rank in ranks:
            rank.kill()
        for rank in ranks:
            rank.join()
        os.close(told)
        found = find(directory)
        assert found.damaged == ()
        latest = directory / (directory / "latest").read_text().strip()
        assert open_checkpoint(latest, model=MODEL).step <= int(found.path.name[5:])
        assert int(found.path.name[5:]) >= step
        step = int(found.path.name[5:])
        assert_holds(found.path, step)
        torn += any(name.endswith(".tmp") for name in LOCAL.names(directory))
    assert step > times, "hardly a checkpoint was finished"
    assert torn > times // 2, "hardly a kill came in the middle"


def test_ranks_killed_at_any_moment_leave_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":  # the processes that are forked and killed are not those of the tests
    torch.set_num_threads(1)
    kill_ranks_in_the_middle(Path(sys.argv[1]), times=20)
