from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from stretto.checkpoint.commit import Part, file_name, find, open_checkpoint, saving
from stretto.checkpoint.manifest import StoredBox, StoredTensor, tensor_shapes
from stretto.checkpoint.storage import LOCAL, MemoryStorage, PowerLoss, Storage
from stretto.errors import CheckpointError, MachineError, StrettoError
from stretto.model import Model

MODEL = Model(
    "tiny", layers=1, embed=4, heads=2, kv_heads=1, head_dim=2, ff=4, vocab=6, positions=8
)
DIRECTORY = Path("run/checkpoints")
WORLD = 2

Saving = Generator[None, None, Path]


def part(step: int, rank: int, *, world: int = WORLD) -> Part:
    """Every tensor whole, dealt out to the ranks in turn; as bytes, what tells rank and step."""
    tensors = {
        name: StoredTensor(
            "float32", shape, (StoredBox(tuple((0, n) for n in shape), file_name(rank), name),)
        )
        for i, (name, shape) in enumerate(tensor_shapes(MODEL).items())
        if i % world == rank
    }
    chunks = [bytes([step]) * 7, bytes([rank + 1]) * 4]
    return Part(step, MODEL, {"seed": 5}, tensors, 11, iter(chunks))


def together(ranks: Sequence[Saving]) -> list[Path | StrettoError]:
    """Run ranks in lockstep and give what each returns or raises, all at the same yield."""
    while True:
        ends: list[Path | StrettoError] = []
        for rank in ranks:
            try:
                next(rank)
            except StopIteration as end:
                ends.append(end.value)
            except StrettoError as error:
                ends.append(error)
        if ends:
            assert len(ends) == len(ranks), "a rank that leaves early leaves others at a barrier"
            return ends


def save(
    storage: Storage, *steps: int, directory: Path = DIRECTORY, keep: int = 2
) -> list[Path | StrettoError]:
    """Save after each of some steps, and give how the last one ended on each rank."""
    ends: list[Path | StrettoError] = []
    for step in steps:
        ends = together(
            [
                saving(directory, part(step, r), rank=r, world=WORLD, keep=keep, storage=storage)
                for r in range(WORLD)
            ]
        )
    return ends


def message(ends: Sequence[Path | StrettoError], rank: int) -> str:
    error = ends[rank]
    assert isinstance(error, StrettoError)
    return str(error)


def intact(storage: Storage) -> dict[str, int]:
    """Give the step of every checkpoint whose every byte is as written; an independent reading."""
    found = {}
    for name in storage.names(DIRECTORY):
        path = DIRECTORY / name
        if re.fullmatch(r"step-\d+(\.\d+)?", name) and "manifest.json" in storage.names(path):
            tree = json.loads(storage.read(path / "manifest.json"))
            files = {n: storage.read(path / n) for n in storage.names(path)}
            if all(
                hashlib.sha256(files.get(n, b"?")).hexdigest() == f["sha256"]
                for n, f in tree["files"].items()
            ):
                found[name] = tree["step"]
    return found


def latest(storage: Storage) -> str:
    return storage.read(DIRECTORY / "latest").decode().strip()


def saved(*steps: int) -> MemoryStorage:
    """Give a storage with checkpoints, all of it synchronised."""
    storage = MemoryStorage()
    save(storage, *steps)
    return storage.after_power_loss(Random(0))


def outcomes(storage: MemoryStorage) -> Iterable[MemoryStorage]:
    """Give what a loss of power may leave, every kind of it once."""
    found = [storage.after_power_loss(Random(seed)) for seed in range(32)]
    return {everything(after, Path()): after for after in found}.values()


def everything(storage: MemoryStorage, path: Path) -> object:
    """Give all that is at a path, to compare."""
    try:
        return storage.read(path)
    except OSError:
        return tuple((name, everything(storage, path / name)) for name in storage.names(path))


def operations_of_a_save() -> int:
    storage = saved(10, 20)
    save(storage, 30)
    return storage.operations


def test_a_save_leaves_the_files_of_the_format_and_nothing_else() -> None:
    storage = MemoryStorage()
    path = DIRECTORY / "step-00000010"
    assert save(storage, 10) == [path, path]
    assert storage.names(DIRECTORY) == ("latest", "step-00000010")
    assert storage.names(path) == (
        "manifest.json", "manifest.sha256", "rank-00000.safetensors", "rank-00001.safetensors",
    )  # fmt: skip
    assert latest(storage) == "step-00000010"
    manifest = open_checkpoint(path, model=MODEL, storage=storage)
    assert (manifest.step, manifest.serial, manifest.extra) == (10, 1, {"seed": 5})
    assert intact(storage) == {"step-00000010": 10}


def test_a_loss_of_power_at_any_operation_leaves_the_newest_whole_checkpoint_to_be_found() -> None:
    before, seen = saved(10, 20), set()
    for at in range(operations_of_a_save()):
        storage = before.after_power_loss(Random(0))
        storage.faults = {at: PowerLoss()}
        with pytest.raises(PowerLoss):
            save(storage, 30)
        for after in outcomes(storage):
            steps = intact(after)
            assert 20 in steps.values()
            assert steps[latest(after)]
            found = find(DIRECTORY, storage=after)
            assert steps[found.path.name] == max(steps.values())
            assert found.damaged == ()
            seen.add(steps[found.path.name])
        path = DIRECTORY / "step-00000040"
        assert save(after, 40) == [path, path]
        assert find(DIRECTORY, storage=after).path == path
        assert len(intact(after)) >= 2
        assert not any(name.endswith(".tmp") for name in after.names(DIRECTORY))
    assert seen == {20, 30}


def test_a_checkpoint_that_was_saved_survives_any_loss_of_power() -> None:
    storage = MemoryStorage()
    for step in (10, 20, 30):
        save(storage, step)
        for seed in range(20):
            after = storage.after_power_loss(Random(seed))
            assert intact(after)[find(DIRECTORY, storage=after).path.name] == step
            assert latest(after) == f"step-{step:08d}"


@pytest.mark.parametrize(
    ("number", "lasting"), [(errno.EIO, 1), (errno.ENOSPC, 1), (errno.EIO, 2), (errno.EROFS, 100)]
)
def test_errors_from_any_operation_on_leave_earlier_checkpoints_and_the_next_save_works(
    number: int, lasting: int
) -> None:
    before = saved(10, 20)
    for at in range(operations_of_a_save()):
        storage = before.after_power_loss(Random(0))
        error = OSError(number, os.strerror(number))
        storage.faults = dict.fromkeys(range(at, at + lasting), error)
        ends = save(storage, 30)
        storage.faults = {}
        steps = intact(storage)
        assert 20 in steps.values()
        assert steps[latest(storage)] in steps.values()
        if any(isinstance(end, Path) for end in ends):
            assert latest(storage) == "step-00000030"
        found = steps[find(DIRECTORY, storage=storage).path.name]
        assert found == max(steps.values()) or (lasting == 2 and found == 20)  # neither serial read
        (path, same) = save(storage, 40)
        assert path == same == find(DIRECTORY, storage=storage).path
        assert not any(name.endswith(".tmp") for name in storage.names(DIRECTORY))


def test_two_checkpoints_are_kept_or_as_many_as_are_asked_for() -> None:
    storage = MemoryStorage()
    save(storage, 10, 20, 30)
    assert list(intact(storage).values()) == [20, 30]
    save(storage, 40, 50, 60, keep=4)
    assert list(intact(storage).values()) == [30, 40, 50, 60]
    save(storage, 70)
    assert list(intact(storage).values()) == [60, 70]


def test_a_run_that_goes_on_from_an_earlier_checkpoint_is_resumed_from_its_own() -> None:
    storage = MemoryStorage()
    save(storage, 10, 20)
    save(storage, 15)  # begun again from 10
    assert find(DIRECTORY, storage=storage).path.name == "step-00000015"
    assert set(intact(storage).values()) == {15, 20}
    save(storage, 18)
    assert set(intact(storage).values()) == {15, 18}


def test_a_step_that_is_saved_again_has_a_name_of_its_own() -> None:
    storage = MemoryStorage()
    paths = [save(storage, 10)[0] for _ in range(3)]
    assert paths == [
        DIRECTORY / name for name in ("step-00000010", "step-00000010.1", "step-00000010.2")
    ]
    assert find(DIRECTORY, storage=storage).path.name == "step-00000010.2"
    assert set(intact(storage)) == {"step-00000010.1", "step-00000010.2"}


def test_no_space_is_refused_with_its_numbers_before_anything_is_written() -> None:
    storage = saved(10, 20)
    storage.capacity_bytes = 0
    storage.capacity_bytes = 10 - storage.free_bytes(DIRECTORY)
    parts = [part(30, rank) for rank in range(WORLD)]
    ends = together(
        [saving(DIRECTORY, p, rank=r, world=WORLD, storage=storage) for r, p in enumerate(parts)]
    )
    assert all(len(tuple(p.chunks)) == 2 for p in parts)
    assert "needs 11 B (11 bytes), and 10 B (10 bytes) are free" in message(ends, 0)
    assert "needs 11 B (11 bytes)" in message(ends, 1)
    assert all(isinstance(end, MachineError) for end in ends)
    assert storage.names(DIRECTORY) == ("latest", "step-00000010", "step-00000020")
    assert set(intact(storage).values()) == {10, 20}


def test_space_that_runs_out_anywhere_while_ranks_write_is_refused_with_its_numbers() -> None:
    torn = set()
    for free_bytes in range(8_000, 40_000, 250):
        storage = saved(10)
        storage.capacity_bytes = 0
        storage.capacity_bytes = free_bytes - storage.free_bytes(DIRECTORY)
        wide = [replace(part(30, rank), size_bytes=8_000) for rank in range(WORLD)]
        wide = [replace(p, chunks=[bytes(4_000), bytes(4_000)]) for p in wide]
        ends = together(
            [saving(DIRECTORY, p, rank=r, world=WORLD, storage=storage) for r, p in enumerate(wide)]
        )
        torn |= {type(end) for end in ends}
        if isinstance(ends[0], StrettoError):
            text = "\n".join(map(str, ends))  # of the rank for which there is not even room for it
            numbers = r"no space: needs .* \((\d+) bytes\), and .* \((\d+) bytes\) are free"
            said = re.search(numbers, text)
            assert free_bytes < 19_000 or "did not write its part" not in text
            assert said
            assert int(said[1]) > int(said[2])
            assert isinstance(ends[1], StrettoError)
            assert storage.names(DIRECTORY) == ("latest", "step-00000010")
            assert set(intact(storage).values()) == {10}
    assert torn == {MachineError, type(DIRECTORY)}


def test_a_rank_that_fails_makes_all_fail_and_the_first_says_why() -> None:
    storage = MemoryStorage()
    save(storage, 10)

    def broken() -> Iterator[bytes]:
        yield b"x"
        raise OSError(errno.EIO, "input/output error", "rank-00001.safetensors")

    parts = [part(20, 0), replace(part(20, 1), chunks=broken())]
    ends = together(
        [saving(DIRECTORY, p, rank=r, world=WORLD, storage=storage) for r, p in enumerate(parts)]
    )
    assert message(ends, 0).startswith(
        "rank 1: rank-00001.safetensors: the disk refused: input/output error"
    )
    assert message(ends, 1).startswith("rank-00001.safetensors: the disk refused")
    assert set(intact(storage).values()) == {10}


def test_ranks_that_do_not_make_up_the_model_save_nothing() -> None:
    storage = MemoryStorage()
    ends = together(
        [
            saving(DIRECTORY, part(10, 0), rank=0, world=WORLD, storage=storage),
            saving(DIRECTORY, replace(part(10, 1), tensors={}, size_bytes=0), rank=1, world=WORLD,
                   storage=storage),
        ]
    )  # fmt: skip
    assert isinstance(ends[0], CheckpointError)
    assert "embedding.token#first: a tensor of shape (6, 4) is missing" in message(ends, 0)
    assert "step-00000010: was not saved; see rank 0" in message(ends, 1)
    assert storage.names(DIRECTORY) == ()


def test_a_rank_without_tensors_writes_no_file() -> None:
    storage = MemoryStorage()
    parts = [part(10, 0, world=1), replace(part(10, 1), tensors={}, size_bytes=0, chunks=())]
    path, _ = together(
        [saving(DIRECTORY, p, rank=r, world=WORLD, storage=storage) for r, p in enumerate(parts)]
    )
    assert isinstance(path, Path)
    assert storage.names(path) == ("manifest.json", "manifest.sha256", "rank-00000.safetensors")


def test_a_directory_without_checkpoints_is_named() -> None:
    with pytest.raises(CheckpointError, match="checkpoints: has no whole checkpoint; "):
        find(DIRECTORY, storage=MemoryStorage())


# ── on a disk ────────────────────────────────────────────────────────────────────────────────────


def test_damage_of_any_kind_is_named_and_the_checkpoint_before_it_found(tmp_path: Path) -> None:
    save(LOCAL, 10, 20, directory=tmp_path)
    path = tmp_path / "step-00000020"
    manifest = (path / "manifest.json").read_bytes()

    def damaged(expected: str) -> None:
        found = find(tmp_path)
        assert found.path.name == "step-00000010"
        assert expected in "\n".join(map(str, found.damaged))
        with pytest.raises(CheckpointError, match=re.escape(expected)):
            open_checkpoint(path, model=None)

    data = (path / "rank-00001.safetensors").read_bytes()
    (path / "rank-00001.safetensors").write_bytes(data[:-1])
    damaged("step-00000020: rank-00001.safetensors: is 10 bytes long, not 11")
    (path / "rank-00001.safetensors").unlink()
    damaged("step-00000020: rank-00001.safetensors: cannot be read: No such file")
    (path / "rank-00001.safetensors").symlink_to(path / "rank-00000.safetensors")
    damaged("step-00000020: rank-00001.safetensors: cannot be read: not a regular file")
    (path / "rank-00001.safetensors").unlink()
    (path / "rank-00001.safetensors").write_bytes(data)
    assert find(tmp_path).path == path

    (path / "manifest.json").write_bytes(manifest.replace(b'"step": 20', b'"step": 21'))
    damaged("step-00000020: manifest.json: is not what was written")
    (path / "manifest.json").write_bytes(manifest[:-9])
    damaged("step-00000020: manifest.json: is not what was written")
    (path / "manifest.json").unlink()
    damaged("step-00000020: manifest.json: cannot be read: No such file")
    (path / "manifest.json").mkdir()
    damaged("step-00000020: manifest.json: cannot be read: Is a directory")


def test_a_damaged_checkpoint_is_not_counted_among_those_kept(tmp_path: Path) -> None:
    save(LOCAL, 10, 20, directory=tmp_path)
    (tmp_path / "step-00000020" / "manifest.json").unlink()
    save(LOCAL, 30, directory=tmp_path)
    assert LOCAL.names(tmp_path) == ("latest", "step-00000010", "step-00000020", "step-00000030")
    save(LOCAL, 40, directory=tmp_path)
    assert LOCAL.names(tmp_path) == ("latest", "step-00000020", "step-00000030", "step-00000040")


def test_all_checkpoints_damaged_are_all_listed(tmp_path: Path) -> None:
    save(LOCAL, 10, 20, directory=tmp_path)
    for name in ("step-00000010", "step-00000020"):
        (tmp_path / name / "rank-00000.safetensors").unlink()
    with pytest.raises(CheckpointError) as caught:
        find(tmp_path)
    assert [p.field for p in caught.value.problems] == [
        str(tmp_path),
        "step-00000010: rank-00000.safetensors",
        "step-00000020: rank-00000.safetensors",
    ]


def test_a_checkpoint_that_is_known_to_be_damaged_is_passed_over(tmp_path: Path) -> None:
    save(LOCAL, 10, 20, directory=tmp_path)
    found = find(tmp_path, skip=[tmp_path / "step-00000020"])
    assert found.path == tmp_path / "step-00000010"


def test_another_model_is_refused_with_the_fields_that_differ(tmp_path: Path) -> None:
    save(LOCAL, 10, directory=tmp_path)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "step-00000010", model=replace(MODEL, ff=8, tied=True))
    assert str(caught.value).splitlines()[:2] == [
        "step-00000010: model.ff: is 4 in the checkpoint, but 8 here; use the model of the "
        "checkpoint, or another checkpoint",
        "step-00000010: model.tied: is False in the checkpoint, but True here; use the model of "
        "the checkpoint, or another checkpoint",
    ]


def test_the_seal_of_the_manifest_is_what_sha256sum_checks(tmp_path: Path) -> None:
    save(LOCAL, 10, directory=tmp_path)
    path = tmp_path / "step-00000010"
    digest = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
    assert (path / "manifest.sha256").read_text() == f"{digest}  manifest.json\n"


def test_only_what_has_the_name_of_a_checkpoint_is_touched(tmp_path: Path) -> None:
    others = ["step-1", "step-00000010.old", "notes.tmp", "step-00000010.tmp.bak", "500"]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000005.tmp").mkdir()
    save(LOCAL, 10, directory=tmp_path)
    assert LOCAL.names(tmp_path) == tuple(sorted([*others, "latest", "step-00000010"]))
    assert find(tmp_path).damaged == ()
