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
from stretto.checkpoint.storage import Chunk, LocalStorage, Storage
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
    storage: Storage = LocalStorage(),  # noqa: B008 — it has no state
) -> Generator[None, None, Path]:
    """Save a checkpoint, yielding wherever all ranks must have come before any goes on.

    Every rank yields as often, whatever fails, and afterwards either all raise or none does: a
    failed save leaves the checkpoints that are there and costs no more than its time.

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
    name = _unused_name(part.step, storage.names(directory))
    work = directory / f"{name}.tmp"
    failure = _attempt(lambda: _prepare(directory, work, storage)) if rank == 0 else None
    yield
    failure = failure or _attempt(lambda: _write(work, part, rank, storage))
    if failure is not None:
        _excuse(work, failure, rank, storage)
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
    storage.sync(directory.parent)


def _write(work: Path, part: Part, rank: int, storage: Storage) -> None:
    """Write a rank's file, and what is in it."""
    files = {}
    if part.size_bytes:
        free_bytes = storage.free_bytes(work)
        if free_bytes < part.size_bytes:
            raise MachineError(_no_space(work, part.size_bytes, free_bytes))
        path = work / file_name(rank)
        try:
            files[path.name] = _write_file(path, part.chunks, storage)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            storage.remove(path)
            free_bytes = storage.free_bytes(work)
            raise MachineError(_no_space(work, part.size_bytes, free_bytes)) from error
    said = Manifest(VERSION, part.step, 0, part.model, part.extra, part.tensors, files)
    storage.write(work / _part_name(rank), [said.to_json().encode()])


def _no_space(work: Path, need_bytes: int, free_bytes: int) -> Problem:
    need, free = show_bytes(need_bytes), show_bytes(free_bytes)
    return Problem(
        str(work),
        f"no space: this rank's part needs {need} ({need_bytes} bytes), and {free} ({free_bytes} "
        "bytes) are free",
        "free some, or name another directory; earlier checkpoints are as they were",
    )


def _write_file(path: Path, chunks: Iterable[Chunk], storage: Storage) -> StoredFile:
    """Write a file, hashing what it is made of: reading it back would bless a damage."""
    digest, size_bytes = hashlib.sha256(), 0

    def hashed(pool: ThreadPoolExecutor) -> Iterator[Chunk]:
        nonlocal size_bytes
        for chunk in chunks:
            size_bytes += len(chunk)
            hashing = pool.submit(digest.update, chunk)  # while it is written
            yield chunk
            hashing.result()

    with ThreadPoolExecutor(1) as pool:
        storage.write(path, hashed(pool))
    return StoredFile(size_bytes, digest.hexdigest())


def _part_name(rank: int) -> str:
    return f"rank-{rank:05d}.json"


def _excuse_name(rank: int) -> str:
    return f"rank-{rank:05d}.failed"


def _excuse(work: Path, failure: StrettoError, rank: int, storage: Storage) -> None:
    """Leave word for rank 0; where even that fails, it says that this rank's part is missing."""
    text = json.dumps([[p.field, p.rule, p.remedy] for p in failure.problems])
    with suppress(OSError):
        storage.write(work / _excuse_name(rank), [text.encode()])


def _commit(directory: Path, name: str, world: int, keep: int, storage: Storage) -> None:
    """Make one checkpoint of what all ranks wrote, by rename; then remove those beyond `keep`."""
    work = directory / f"{name}.tmp"
    parts = _parts(work, world, storage)
    older = {path: found for path, found in _opened(directory, storage) if _whole(found)}
    serial = 1 + max((found.serial for found in older.values()), default=0)
    manifest = merge(parts, serial=serial)
    problems = check(manifest)
    if problems:
        raise CheckpointError(problems)
    text = manifest.to_json().encode()
    storage.write(work / "manifest.json", [text])
    seal = f"{hashlib.sha256(text).hexdigest()}  manifest.json\n"
    storage.write(work / "manifest.sha256", [seal.encode()])
    for rank in range(world):
        storage.remove(work / _part_name(rank))
    storage.sync(work)
    storage.rename(work, directory / name)
    storage.sync(directory)
    storage.write(directory / "latest.tmp", [f"{name}\n".encode()])
    storage.rename(directory / "latest.tmp", directory / "latest")
    storage.sync(directory)
    with suppress(OSError):  # this checkpoint is safe; the next one tries again
        _prune(directory, keep, storage)
