"""How a checkpoint comes to be whole or not at all, how it is found again, and which are kept.

    checkpoints/
        latest                      the name of the last one committed, for people
        step-00000042/
            manifest.json           what it holds
            manifest.sha256         of manifest.json, as ``sha256sum -c`` reads it
            rank-00000.safetensors  boxes

Every rank writes into ``step-00000042.tmp/``; when all have, rank 0 joins what they say into the
manifest and renames the directory. A checkpoint is never changed after that, and a step that is
saved again gets a name of its own (``step-00000042.1``). Which is the newest, its serial says. What
a search finds does not depend on ``latest``, which may be behind by a crash, and is never ahead.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from stretto.checkpoint.manifest import (
    VERSION,
    Manifest,
    StoredFile,
    StoredTensor,
    check,
    merge,
)
from stretto.checkpoint.storage import LOCAL, Chunk, Storage
from stretto.checkpoint.strict import parse
from stretto.errors import CheckpointError, MachineError, Problem, StrettoError
from stretto.model import Model
from stretto.units import show_bytes

_NAME = re.compile(r"step-\d{8,}(\.\d+)?")
_TEMPORARY = re.compile(r"(step-\d{8,}(\.\d+)?|latest)\.tmp")
_ANOTHER = "use another checkpoint"


def file_name(rank: int) -> str:
    """Give the name of the file that `rank` writes."""
    return f"rank-{rank:05d}.safetensors"


@dataclass(frozen=True, slots=True)
class Part:
    """What one rank adds to a checkpoint.

    Attributes:
        step: The optimizer steps behind it.
        model: The model.
        extra: What else a run needs to go on, as JSON; that of rank 0 counts.
        tensors: The boxes in its file, by tensor.
        size_bytes: The size of its file; 0 for no file.
        chunks: The content of its file; read once.
    """

    step: int
    model: Model
    extra: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    size_bytes: int
    chunks: Iterable[Chunk]


def saving(
    directory: Path,
    part: Part,
    *,
    rank: int,
    world: int,
    keep: int = 2,
    storage: Storage = LOCAL,
) -> Generator[None, None, Path]:
    """Save a checkpoint, yielding wherever all ranks must have come before any goes on.

    Every rank yields as often, whatever fails, and then all raise or none does, but for a rank that
    cannot read ``latest``. A failed save leaves the checkpoints that are there as they were.

    Args:
        directory: Where checkpoints lie; all ranks see the same.
        part: What this rank adds.
        rank: Of this process.
        world: Number of ranks.
        keep: How many whole checkpoints to keep, 2 or more.
        storage: The file system.

    Returns:
        The directory of the checkpoint.

    Raises:
        MachineError: It could not be written; the numbers if there is no space.
        CheckpointError: What the ranks wrote does not make up the model.
    """
    assert keep >= 2, "the last checkpoint is removed only when two newer ones are whole"
    there: list[str] = []
    failure = _attempt(lambda: there.extend(storage.names(directory)))
    name = _unused_name(part.step, there)
    work = directory / f"{name}.tmp"
    if rank == 0:
        failure = failure or _attempt(lambda: _prepare(directory, work, storage))
    yield
    failure = failure or _attempt(lambda: _write(work, part, rank, storage))
    if failure is not None:
        _report(work, failure, rank, storage)
    yield
    if rank == 0:
        failure = failure or _attempt(lambda: _commit(directory, name, world, keep, storage))
        if failure is not None:
            with suppress(OSError):
                storage.remove(work)
    yield
    if failure is None and not _is_latest(directory, name, storage):
        failure = MachineError(Problem(str(directory / name), "was not saved", "see rank 0"))
    if failure is not None:
        raise failure
    return directory / name


def _unused_name(step: int, names: Collection[str]) -> str:
    name = f"step-{step:08d}"
    again = (f"{name}.{number}" for number in count(1))
    return name if name not in names else next(n for n in again if n not in names)


def _attempt(action: Callable[[], None]) -> StrettoError | None:
    try:
        action()
    except OSError as error:
        problem = Problem(
            str(error.filename or "checkpoint"),
            f"the disk refused: {error.strerror or error}",
            "mend it, or name another directory; earlier checkpoints are as they were",
        )
        return MachineError(problem)
    except StrettoError as error:
        return error
    return None


def _prepare(directory: Path, work: Path, storage: Storage) -> None:
    """Clear what crashes left behind, and make the directory that all ranks write into."""
    for name in storage.names(directory):
        if _TEMPORARY.fullmatch(name):
            storage.remove(directory / name)
    storage.make(work)


def _write(work: Path, part: Part, rank: int, storage: Storage) -> None:
    """Write a rank's file, and what is in it."""
    free_bytes = storage.free_bytes(work)
    if free_bytes < part.size_bytes:
        raise _no_space(work / file_name(rank), part.size_bytes, free_bytes)
    files = {}
    if part.size_bytes:
        files[file_name(rank)] = _write_hashed(work / file_name(rank), part, storage)
    said = Manifest(VERSION, part.step, 0, part.model, part.extra, part.tensors, files)
    _write_text(work / _part_name(rank), said.to_json(), storage)


def _write_hashed(path: Path, part: Part, storage: Storage) -> StoredFile:
    """Write a rank's file, hashing what goes in: reading it back would bless a damage."""
    digest = hashlib.sha256()

    def hashed(pool: ThreadPoolExecutor) -> Iterator[Chunk]:
        for chunk in part.chunks:
            hashing = pool.submit(digest.update, chunk)  # while it is written
            yield chunk
            hashing.result()

    with ThreadPoolExecutor(1) as pool:
        _write_file(path, hashed(pool), size_bytes=part.size_bytes, storage=storage)
    return StoredFile(part.size_bytes, digest.hexdigest())


def _write_text(path: Path, text: str, storage: Storage) -> None:
    content = text.encode()
    _write_file(path, [content], size_bytes=len(content), storage=storage)


def _write_file(path: Path, chunks: Iterable[Chunk], *, size_bytes: int, storage: Storage) -> None:
    try:
        storage.write(path, chunks)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        storage.remove(path)
        raise _no_space(path, size_bytes, storage.free_bytes(path.parent)) from error


def _no_space(path: Path, need_bytes: int, free_bytes: int) -> MachineError:
    need, free = show_bytes(need_bytes), show_bytes(free_bytes)
    return MachineError(
        Problem(
            str(path),
            f"no space: needs {need} ({need_bytes} bytes), and {free} ({free_bytes} bytes) are "
            "free",
            "free some, or name another directory; earlier checkpoints are as they were",
        )
    )


def _part_name(rank: int) -> str:
    return f"rank-{rank:05d}.json"


def _report_name(rank: int) -> str:
    return f"rank-{rank:05d}.failed"


def _report(work: Path, failure: StrettoError, rank: int, storage: Storage) -> None:
    """Leave word for rank 0; where even that fails, it says that this rank's part is missing."""
    text = json.dumps([[p.field, p.rule, p.remedy] for p in failure.problems])
    with suppress(OSError, MachineError):
        storage.remove(work / file_name(rank))  # it makes room
        _write_text(work / _report_name(rank), text, storage)


def _commit(directory: Path, name: str, world: int, keep: int, storage: Storage) -> None:
    """Make one checkpoint of what all ranks wrote, by rename; then remove those beyond `keep`."""
    work = directory / f"{name}.tmp"
    older = _whole(_opened(directory, storage))
    serial = older[-1][1].serial + 1 if older else 1
    manifest = merge(_parts(work, world, storage), serial=serial)
    problems = check(manifest)
    if problems:
        raise CheckpointError(problems)
    text = manifest.to_json()
    _write_text(work / "manifest.json", text, storage)
    _write_text(work / "manifest.sha256", _seal(text.encode()), storage)
    for rank in range(world):
        storage.remove(work / _part_name(rank))
    storage.sync(work)
    storage.rename(work, directory / name)
    storage.sync(directory)
    _write_text(directory / "latest.tmp", f"{name}\n", storage)
    storage.rename(directory / "latest.tmp", directory / "latest")
    storage.sync(directory)
    with suppress(OSError):  # the checkpoint is safe; after the next one this is tried again
        for path, _ in older[: 1 - keep]:
            _remove(path, storage)


def _parts(work: Path, world: int, storage: Storage) -> list[Manifest]:
    """Give what the ranks say that they wrote, or raise what they say instead."""
    names = storage.names(work)
    parts, problems = [], []
    for rank in range(world):
        if _report_name(rank) in names:
            name = _report_name(rank)
            said = parse(storage.read(work / name), where=name)
            problems += [Problem(f"rank {rank}: {field}", *rest) for field, *rest in said]
        elif _part_name(rank) in names:
            parts.append(Manifest.from_json(storage.read(work / _part_name(rank))))
        else:
            problems.append(Problem(f"rank {rank}", "did not write its part", "see its message"))
    if problems:
        raise MachineError(problems)
    return parts


def _seal(manifest: bytes) -> str:
    return f"{hashlib.sha256(manifest).hexdigest()}  manifest.json\n"


def _remove(path: Path, storage: Storage) -> None:
    """Remove a checkpoint; what a crash leaves of it has no checkpoint's name."""
    doomed = path.with_name(f"{path.name}.tmp")
    storage.rename(path, doomed)
    storage.sync(path.parent)
    storage.remove(doomed)


def _is_latest(directory: Path, name: str, storage: Storage) -> bool:
    try:
        return storage.read(directory / "latest") == f"{name}\n".encode()
    except OSError:
        return False


# ── finding ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Found:
    """The newest whole checkpoint.

    Attributes:
        path: Its directory.
        damaged: What is wrong with those that are not whole.
    """

    path: Path
    damaged: tuple[Problem, ...]


def find(directory: Path, *, skip: Collection[Path] = (), storage: Storage = LOCAL) -> Found:
    """Give the newest checkpoint whose manifest is intact and whose files have their sizes.

    Args:
        directory: Where checkpoints lie.
        skip: Checkpoints that are known to be damaged, by `verify_files`.
        storage: The file system.

    Raises:
        CheckpointError: There is none, and what is wrong with those that are there.
    """
    opened = _opened(directory, storage)
    damaged = [p for e in opened.values() if isinstance(e, CheckpointError) for p in e.problems]
    whole = [path for path, _ in _whole(opened) if path not in skip]
    if not whole:
        remedy = "name another directory, or begin a new run"
        raise CheckpointError(
            [Problem(str(directory), "has no whole checkpoint", remedy), *damaged]
        )
    return Found(whole[-1], tuple(damaged))


def open_checkpoint(path: Path, *, model: Model | None, storage: Storage = LOCAL) -> Manifest:
    """Read the manifest of a checkpoint and compare it with the model and the sizes of the files.

    Args:
        path: The directory of the checkpoint.
        model: What it should be of; None for whatever model it is of.
        storage: The file system.

    Raises:
        CheckpointError: The first mismatches with the model, every file that is missing or of
            another size, or what is wrong with the manifest.
    """
    try:
        text = storage.read(path / "manifest.json")
        seal = storage.read(path / "manifest.sha256")
        if seal != _seal(text).encode():
            raise CheckpointError(Problem("manifest.json", "is not what was written", _ANOTHER))
        manifest = Manifest.from_json(text)
        problems = [*check(manifest, model), *_size_problems(path, manifest, storage)]
    except OSError as error:
        problems = [_unreadable(error)]
    except CheckpointError as error:
        problems = list(error.problems)
    if problems:
        raise CheckpointError(
            Problem(f"{path.name}: {p.field}", p.rule, p.remedy) for p in problems
        )
    return manifest


def verify_files(
    path: Path, manifest: Manifest, *, part: tuple[int, int] = (0, 1)
) -> tuple[Problem, ...]:
    """Read files whole, and give a problem for each whose SHA-256 is not that of the manifest.

    Args:
        path: The directory of the checkpoint.
        manifest: Its manifest.
        part: (r, n) to read every n-th file from the r-th on: the share of rank r of n.
    """
    start, step = part
    problems = []
    for name in sorted(manifest.files)[start::step]:
        try:
            with (path / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            problems.append(_unreadable(error))
            continue
        wanted = manifest.files[name].sha256
        if found != wanted:
            rule = f"is damaged: its SHA-256 is {found[:12]}…, not {wanted[:12]}…"
            problems.append(Problem(f"{path.name}: {name}", rule, _ANOTHER))
    return tuple(problems)


def _opened(directory: Path, storage: Storage) -> dict[Path, Manifest | CheckpointError]:
    """Open everything in a directory that has a checkpoint's name."""
    opened: dict[Path, Manifest | CheckpointError] = {}
    for name in filter(_NAME.fullmatch, storage.names(directory)):
        try:
            opened[directory / name] = open_checkpoint(
                directory / name, model=None, storage=storage
            )
        except CheckpointError as error:
            opened[directory / name] = error
    return opened


def _whole(opened: Mapping[Path, Manifest | CheckpointError]) -> list[tuple[Path, Manifest]]:
    """Give the whole ones, the newest last."""
    whole = [(path, found) for path, found in opened.items() if isinstance(found, Manifest)]
    # a serial is there twice if the first could not be read when the second was saved: by step then
    return sorted(whole, key=lambda item: item[1].serial)


def _size_problems(path: Path, manifest: Manifest, storage: Storage) -> Iterator[Problem]:
    for name, file in manifest.files.items():
        try:
            found = storage.size(path / name)
        except OSError as error:
            yield _unreadable(error)
            continue
        if found != file.bytes:
            yield Problem(name, f"is {found} bytes long, not {file.bytes}", _ANOTHER)


def _unreadable(error: OSError) -> Problem:
    name = Path(error.filename or "checkpoint").name
    return Problem(name, f"cannot be read: {error.strerror or error}", _ANOTHER)
