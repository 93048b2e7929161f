from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from stretto.checkpoint.storage import LOCAL, MemoryStorage, PowerLoss, Storage


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Storage, Path]:
    return (LOCAL, tmp_path) if request.param == "disk" else (MemoryStorage(), Path())


def test_both_storages_keep_what_is_written(place: tuple[Storage, Path]) -> None:
    storage, root = place
    storage.make(root / "a" / "b")
    storage.make(root / "a" / "b")
    storage.write(root / "a" / "b" / "two", [b"12", memoryview(b"345"), b""])
    storage.write(root / "a" / "one", [])
    assert storage.names(root / "a") == ("b", "one")
    assert storage.names(root / "nothing") == ()
    assert storage.read(root / "a" / "b" / "two") == b"12345"
    assert storage.size(root / "a" / "b" / "two") == 5
    assert storage.size(root / "a" / "one") == 0
    assert storage.free_bytes(root / "a") > 0
    storage.sync(root / "a")


def test_both_storages_rename_over_a_file_and_whole_directories(
    place: tuple[Storage, Path],
) -> None:
    storage, root = place
    storage.make(root / "a")
    storage.write(root / "a" / "x", [b"x"])
    storage.write(root / "new", [b"new"])
    storage.write(root / "old", [b"old"])
    storage.rename(root / "new", root / "old")
    storage.rename(root / "a", root / "b")
    assert storage.names(root) == ("b", "old")
    assert storage.read(root / "old") == b"new"
    assert storage.read(root / "b" / "x") == b"x"


def test_both_storages_remove_directories_with_all_in_them(place: tuple[Storage, Path]) -> None:
    storage, root = place
    storage.make(root / "a" / "b")
    storage.write(root / "a" / "b" / "x", [b"x"])
    storage.remove(root / "a")
    storage.remove(root / "a")
    assert storage.names(root) == ()


REFUSED: dict[str, tuple[int, Callable[[Storage, Path], object]]] = {
    "read what is not there": (errno.ENOENT, lambda s, root: s.read(root / "none")),
    "size of nothing": (errno.ENOENT, lambda s, root: s.size(root / "none")),
    "write into nothing": (errno.ENOENT, lambda s, root: s.write(root / "none" / "x", [b""])),
    "write twice": (errno.EEXIST, lambda s, root: s.write(root / "x", [b"twice"])),
    "rename nothing": (errno.ENOENT, lambda s, root: s.rename(root / "none", root / "y")),
    "rename over a directory": (errno.ENOTEMPTY, lambda s, root: s.rename(root / "a", root / "b")),
    "sync nothing": (errno.ENOENT, lambda s, root: s.sync(root / "none")),
    "space of nothing": (errno.ENOENT, lambda s, root: s.free_bytes(root / "none")),
    "names of a file": (errno.ENOTDIR, lambda s, root: s.names(root / "x")),
    "make in a file": (errno.ENOTDIR, lambda s, root: s.make(root / "x" / "y")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_both_storages_refuse_the_same(place: tuple[Storage, Path], case: str) -> None:
    storage, root = place
    storage.make(root / "a")
    storage.make(root / "b")
    storage.write(root / "b" / "full", [b""])
    storage.write(root / "x", [b"x"])
    number, action = REFUSED[case]
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        action(storage, root)
    assert storage.read(root / "x") == b"x"


def test_a_link_is_no_file_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="not a regular file"):
        LOCAL.size(tmp_path / "link")
    (tmp_path / "target").mkdir()
    (tmp_path / "other").symlink_to(tmp_path / "target")
    LOCAL.remove(tmp_path / "other")
    assert LOCAL.names(tmp_path) == ("link", "target")


def test_bytes_are_synchronised_before_a_local_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
    LOCAL.write(tmp_path / "x", [b"123", b"45"])
    assert sizes == [5]


def test_what_is_made_is_synchronised_in_each_directory_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    LOCAL.make(tmp_path / "a" / "b")
    assert synced == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]


def outcomes(before: Callable[[MemoryStorage], None]) -> set[tuple[tuple[str, bytes], ...]]:
    """Give every content of the root that a loss of power may leave."""
    storage = MemoryStorage()
    before(storage)
    found = set()
    for seed in range(100):
        after = storage.after_power_loss(Random(seed))
        found.add(tuple((name, after.read(Path(name))) for name in after.names(Path())))
    return found


def test_a_synchronised_file_under_a_synchronised_name_survives() -> None:
    def both(storage: MemoryStorage) -> None:
        storage.write(Path("x"), [b"abc"])
        storage.sync(Path())

    assert outcomes(both) == {(("x", b"abc"),)}


def test_a_name_that_is_not_synchronised_may_be_lost() -> None:
    def name(storage: MemoryStorage) -> None:
        storage.write(Path("x"), [b"abc"])

    assert outcomes(name) == {(("x", b"abc"),), ()}


def test_a_rename_that_is_not_synchronised_happens_whole_or_not_at_all() -> None:
    def rename(storage: MemoryStorage) -> None:
        storage.write(Path("new"), [b"new"])
        storage.write(Path("old"), [b"old"])
        storage.sync(Path())
        storage.rename(Path("new"), Path("old"))

    assert outcomes(rename) == {(("old", b"new"),), (("new", b"new"), ("old", b"old"))}


def test_changes_that_are_not_synchronised_may_be_lost_in_any_order() -> None:
    def two(storage: MemoryStorage) -> None:
        storage.write(Path("x"), [b"x"])
        storage.write(Path("y"), [b"y"])

    x, y = ("x", b"x"), ("y", b"y")
    assert outcomes(two) == {(), (x,), (y,), (x, y)}


def test_bytes_that_are_not_synchronised_are_cut_off_or_zero() -> None:
    def torn(storage: MemoryStorage) -> None:
        storage.write(Path("x"), [b""])
        storage.sync(Path())
        storage.remove(Path("x"))
        storage.sync(Path())
        storage.faults = {storage.operations + 2: PowerLoss()}
        with pytest.raises(PowerLoss):
            storage.write(Path("x"), [b"abcd"])

    contents = (b"", b"a", b"ab", b"abc", b"abc\0", b"ab\0\0", b"a\0\0\0", b"\0\0\0\0")
    assert outcomes(torn) == {(), *((("x", content),) for content in (*contents, b"abcd"))}


def test_after_a_loss_of_power_nothing_more_is_done() -> None:
    storage = MemoryStorage(faults={2: PowerLoss()})
    storage.write(Path("x"), [])
    for _ in range(2):
        with pytest.raises(PowerLoss):
            storage.names(Path())


def test_a_fault_comes_at_its_operation_and_only_there() -> None:
    storage = MemoryStorage(faults={1: OSError(errno.EIO, "input/output error")})
    with pytest.raises(OSError, match="input/output"):
        storage.write(Path("x"), [b"abcd"])
    assert storage.read(Path("x")) == b"ab"


def test_what_does_not_fit_is_no_space() -> None:
    storage = MemoryStorage(10)
    storage.write(Path("x"), [b"1234567"])
    assert storage.free_bytes(Path()) == 3
    with pytest.raises(OSError, match="No space left"):
        storage.write(Path("y"), [b"12", b"34"])
    storage.remove(Path("y"))
    storage.write(Path("y"), [b"12", b"3"])
    assert storage.free_bytes(Path()) == 0
