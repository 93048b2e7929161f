"""The few directory operations that a checkpoint needs: on a disk, and in memory with faults.

What is on a disk survives a loss of power only once it is synchronised: the bytes of a file by
`write`, which does it, and names (made, changed or removed) by `sync` of their directory; `make`
does that for what it makes.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

Chunk = bytes | memoryview
"""Bytes, where they lie."""


class Storage(Protocol):
    """Directories of files. Every operation raises `OSError` where it cannot be done."""

    def names(self, directory: Path) -> tuple[str, ...]:
        """Give the names in a directory, sorted; none where there is no directory."""
        ...

    def size(self, path: Path) -> int:
        """Give the bytes of a regular file."""
        ...

    def read(self, path: Path) -> bytes:
        """Give the content of a file."""
        ...

    def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        """Make a file that does not exist, and return when its bytes are synchronised."""
        ...

    def make(self, directory: Path) -> None:
        """Make a directory, and those around it, where they do not exist, synchronised."""
        ...

    def sync(self, directory: Path) -> None:
        """Return when the names in a directory are synchronised."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Move a file, or a directory to a name that is free, at once; a file is replaced."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file or a whole directory, if it exists."""
        ...

    def free_bytes(self, directory: Path) -> int:
        """Give the bytes that may still be written to the disk of an existing directory."""
        ...


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """The file system."""

    def names(self, directory: Path) -> tuple[str, ...]:
        """Give the names in a directory, sorted; none where there is no directory."""
        try:
            return tuple(sorted(os.listdir(directory)))
        except FileNotFoundError:
            return ()

    def size(self, path: Path) -> int:
        """Give the bytes of a regular file; a link is none."""
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return found.st_size

    def read(self, path: Path) -> bytes:
        """Give the content of a file."""
        return path.read_bytes()

    def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        """Make a file that does not exist, and return when its bytes are synchronised."""
        with path.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())

    def make(self, directory: Path) -> None:
        """Make a directory, and those around it, where they do not exist, synchronised."""
        if not directory.exists():
            self.make(directory.parent)
            directory.mkdir(exist_ok=True)
            self.sync(directory.parent)

    def sync(self, directory: Path) -> None:
        """Return when the names in a directory are synchronised."""
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Move a file, or a directory to a name that is free, at once; a file is replaced."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file or a whole directory, if it exists."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def free_bytes(self, directory: Path) -> int:
        """Give the bytes that may still be written to the disk of an existing directory."""
        return shutil.disk_usage(directory).free


LOCAL = LocalStorage()
"""The file system of this machine; it has no state."""


# ── in memory ────────────────────────────────────────────────────────────────────────────────────


class PowerLoss(BaseException):
    """The machine is gone, and what it would have done next; no handler of errors runs."""


@dataclass(slots=True, eq=False)
class _File:
    """Attributes: content: what a read gives; synced: what the disk holds."""

    content: bytes = b""
    synced: bytes = b""


@dataclass(slots=True, eq=False)
class _Directory:
    """Attributes: entries: by name; synced: those on the disk; pending: changes since, in order."""

    entries: dict[str, _File | _Directory] = field(default_factory=dict)
    synced: dict[str, _File | _Directory] = field(default_factory=dict)
    pending: list[_Change] = field(default_factory=list)

    def change(self, change: _Change) -> None:
        change(self.entries)
        self.pending.append(change)


_Change = Callable[[dict[str, _File | _Directory]], None]


@dataclass(slots=True, eq=False)
class MemoryStorage:
    """A file system in memory that fails when it is told to, and forgets as a disk may.

    Attributes:
        capacity_bytes: What fits; more is ``ENOSPC``.
        faults: What the operation of that number raises; after a `PowerLoss` every operation does.
            A write is one operation for the file, one for each chunk, one for the synchronisation.
        operations: How many were begun.
        root: What it holds.
    """

    capacity_bytes: float = float("inf")
    faults: Mapping[int, BaseException] = field(default_factory=dict)
    operations: int = 0
    root: _Directory = field(default_factory=_Directory)
    _lost: bool = False

    def after_power_loss(self, random: Random) -> MemoryStorage:
        """Give what the disk holds when the machine is back.

        Of the changes of names that were not synchronised any may be lost, whatever their order; of
        the bytes of a file, any tail, cut off or zero.
        """
        return MemoryStorage(self.capacity_bytes, root=_remembered(self.root, random))

    def names(self, directory: Path) -> tuple[str, ...]:
        """Give the names in a directory, sorted; none where there is no directory."""
        self._begin()
        try:
            return tuple(sorted(self._directory(directory).entries))
        except FileNotFoundError:
            return ()

    def size(self, path: Path) -> int:
        """Give the bytes of a file."""
        return len(self.read(path))

    def read(self, path: Path) -> bytes:
        """Give the content of a file."""
        self._begin()
        node = self._directory(path.parent).entries.get(path.name)
        if not isinstance(node, _File):
            raise _error(errno.ENOENT, path)
        return node.content

    def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        """Make a file that does not exist, and return when its bytes are synchronised."""
        self._begin()
        directory, file = self._directory(path.parent), _File()
        if path.name in directory.entries:
            raise _error(errno.EEXIST, path)
        directory.change(_entering(path.name, file))
        for chunk in chunks:
            written, half = file.content, bytes(chunk)[: len(chunk) // 2]
            file.content += half  # what is on its way when the operation fails
            self._begin()
            if len(chunk) - len(half) > self._free():
                raise _error(errno.ENOSPC, path)
            file.content = written + bytes(chunk)
        self._begin()
        file.synced = file.content

    def make(self, directory: Path) -> None:
        """Make a directory, and those around it, where they do not exist, synchronised."""
        if directory.parts and directory.name not in self.names(directory.parent):
            self.make(directory.parent)
            self._begin()
            parent = self._directory(directory.parent)
            parent.change(_entering(directory.name, _Directory()))
            self.sync(directory.parent)

    def sync(self, directory: Path) -> None:
        """Return when the names in a directory are synchronised."""
        self._begin()
        node = self._directory(directory)
        node.synced = dict(node.entries)
        node.pending.clear()

    def rename(self, source: Path, target: Path) -> None:
        """Move a file, or a directory to a name that is free, at once; within one directory."""
        self._begin()
        assert source.parent == target.parent, "names change within one directory"
        directory = self._directory(source.parent)
        if source.name not in directory.entries:
            raise _error(errno.ENOENT, source)
        if isinstance(directory.entries.get(target.name), _Directory):
            raise _error(errno.ENOTEMPTY, target)
        directory.change(_moving(source.name, target.name))

    def remove(self, path: Path) -> None:
        """Remove a file or a whole directory, if it exists."""
        self._begin()
        node = self._directory(path.parent).entries.get(path.name)
        if isinstance(node, _Directory):
            for name in tuple(node.entries):
                self.remove(path / name)
        self._directory(path.parent).change(_moving(path.name, None))

    def free_bytes(self, directory: Path) -> int:
        """Give the bytes that may still be written."""
        self._begin()
        self._directory(directory)
        return int(min(self._free(), 2**62))

    def _begin(self) -> None:
        fault = PowerLoss() if self._lost else self.faults.get(self.operations)
        self.operations += 1
        if fault is not None:
            self._lost = isinstance(fault, PowerLoss)
            raise fault

    def _free(self) -> float:
        return self.capacity_bytes - _used(self.root)

    def _directory(self, path: Path) -> _Directory:
        at = self.root
        for name in path.parts:
            inner = at.entries.get(name)
            if not isinstance(inner, _Directory):
                raise _error(errno.ENOENT if inner is None else errno.ENOTDIR, path)
            at = inner
        return at


def _entering(name: str, node: _File | _Directory) -> _Change:
    return lambda entries: entries.update({name: node})


def _moving(source: str, target: str | None) -> _Change:
    """Give the change of a name to another, or to none; it does nothing where there is no such."""

    def change(entries: dict[str, _File | _Directory]) -> None:
        node = entries.pop(source, None)
        if node is not None and target is not None:
            entries[target] = node

    return change


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def _used(node: _File | _Directory) -> int:
    if isinstance(node, _File):
        return len(node.content)
    return sum(_used(entry) for entry in node.entries.values())


def _remembered(directory: _Directory, random: Random) -> _Directory:
    entries = dict(directory.synced)
    for change in directory.pending:
        if random.random() < 0.5:
            change(entries)
    after: dict[str, _File | _Directory] = {}
    for name, node in entries.items():
        if isinstance(node, _Directory):
            after[name] = _remembered(node, random)
        else:
            content = node.content if node.content == node.synced else _torn(node.content, random)
            after[name] = _File(content, content)
    return _Directory(after, dict(after))


def _torn(content: bytes, random: Random) -> bytes:
    kept = random.randint(0, len(content))
    return content[:kept] + random.choice((b"", bytes(len(content) - kept)))
