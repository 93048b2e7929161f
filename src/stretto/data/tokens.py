"""Tokens on disk: documents end to end in memory-mapped shards, with an index and checksums.

    index.json        what there is, with the SHA-256 of every other file
    shard-00000.bin   tokens, little-endian uint16, or uint32 for more than 65 536 of them
    documents.bin     where each document starts, counted in tokens, little-endian uint64

Every document ends with the end-of-text token and lies in one shard.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stretto.errors import DataError, Problem

VERSION = 1
"""The version of the format that is written here, and the only one that is read."""

_SHARD_TOKENS = 2**28
_COUNTED_TOKENS = 2**22


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of tokens.

    Attributes:
        name: Its name in the directory.
        tokens: How many it holds.
        sha256: Of its bytes, in hexadecimal.
    """

    name: str
    tokens: int
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class TokenSet:
    """Tokens on disk, read where they lie.

    Attributes:
        path: Its directory.
        vocab_size: All tokens are less than this.
        end_of_text: The token that ends every document.
        shards: The files of tokens.
        arrays: What is in them, memory-mapped.
        documents: Where each document starts, in tokens from the first; int64, increasing from 0.
        fingerprint: SHA-256 of the index: two sets with the same one hold the same tokens.
    """

    path: Path
    vocab_size: int
    end_of_text: int
    shards: tuple[Shard, ...]
    arrays: tuple[NDArray[np.unsignedinteger[Any]], ...]
    documents: NDArray[np.int64]
    fingerprint: str

    @property
    def size(self) -> int:
        """The number of tokens."""
        return sum(shard.tokens for shard in self.shards)

    def __getitem__(self, at: ArrayLike) -> NDArray[np.int64]:
        """Give the tokens at positions of any shape, each in ``range(size)``."""
        at = np.asarray(at, np.int64)
        if len(self.arrays) == 1:
            one: NDArray[np.int64] = self.arrays[0][at].astype(np.int64)
            return one
        ends = np.cumsum([shard.tokens for shard in self.shards])
        which = np.searchsorted(ends, at, side="right")
        found = np.empty(at.shape, np.int64)
        for shard in np.unique(which):
            here = which == shard
            found[here] = self.arrays[shard][at[here] - (ends[shard] - self.shards[shard].tokens)]
        return found

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> Self:
        """Give the set in a directory.

        Args:
            path: The directory.
            verify: Read every byte and compare it with its checksum. Otherwise only the index is
                read, and the sizes of the files are compared.

        Raises:
            DataError: Everything that is missing, of the wrong size, damaged or unknown.
        """
        raw, index = _read_index(path)
        kind = _dtype(index["vocab_size"])
        shards = tuple(Shard(**shard) for shard in index["shards"])
        starts = index["documents"]
        files = [(s.name, s.tokens * kind.itemsize, s.sha256) for s in shards]
        files.append(("documents.bin", starts["count"] * 8, starts["sha256"]))
        _raise(p for file in files for p in _check_file(path, file, verify=verify))
        found = cls(
            path=path,
            vocab_size=index["vocab_size"],
            end_of_text=index["end_of_text"],
            shards=shards,
            arrays=tuple(_map(path / shard.name, kind) for shard in shards),
            documents=_map(path / "documents.bin", np.dtype("<u8")).view("<i8"),
            fingerprint=hashlib.sha256(raw).hexdigest(),
        )
        if verify:
            _raise(_check_documents(found))
        return found


class TokenWriter:
    """Writes a `TokenSet` into a directory, document by document, in constant memory.

    The set is complete when the ``with`` block ends without an error: the index is written last. To
    make it appear at once or not at all, write it elsewhere and `publish` it.
    """

    def __init__(
        self, path: Path, *, vocab_size: int, end_of_text: int, shard_tokens: int = _SHARD_TOKENS
    ) -> None:
        """Begin in the directory `path`, which is made.

        Args:
            path: The directory.
            vocab_size: All tokens are less than this.
            end_of_text: The last token of every document.
            shard_tokens: A shard that holds so many is not added to.
        """
        assert 0 <= end_of_text < vocab_size
        self._path = path
        self._vocab_size = vocab_size
        self._end_of_text = end_of_text
        self._shard_tokens = shard_tokens
        self._tokens = 0
        self._shards: list[Shard] = []
        self._files = ExitStack()
        path.mkdir()
        self._starts = _Sink(self._files.enter_context((path / "documents.bin").open("wb")))
        self._shard = self._next_shard()

    def add(self, document: NDArray[Any]) -> None:
        """Append a document; its last token is the end of text."""
        assert document[-1] == self._end_of_text
        assert document.max() < self._vocab_size
        if self._shard.items >= self._shard_tokens:
            self._end_shard()
            self._shard = self._next_shard()
        self._starts.write(np.array([self._tokens], "<u8"))
        self._shard.write(document.astype(_dtype(self._vocab_size)))
        self._tokens += len(document)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._files:
            if kind:
                return
            if not self._tokens:
                rule = "a set of tokens without a document"
                raise DataError(Problem(str(self._path), rule, "write at least one"))
            self._end_shard()
        index = {
            "version": VERSION,
            "dtype": _dtype(self._vocab_size).name,
            "vocab_size": self._vocab_size,
            "end_of_text": self._end_of_text,
            "shards": [
                {"name": s.name, "tokens": s.tokens, "sha256": s.sha256} for s in self._shards
            ],
            "documents": {"count": self._starts.items, "sha256": self._starts.sha256},
        }
        (self._path / "index.json").write_text(json.dumps(index, indent=1) + "\n")

    def _next_shard(self) -> _Sink:
        path = self._path / _shard_name(len(self._shards))
        return _Sink(self._files.enter_context(path.open("wb")))

    def _end_shard(self) -> None:
        name = _shard_name(len(self._shards))
        self._shards.append(Shard(name, self._shard.items, self._shard.sha256))


def write(
    path: Path, documents: Iterable[ArrayLike], *, vocab_size: int, end_of_text: int
) -> TokenSet:
    """Write a set of tokens that appears at `path` complete, or not at all.

    Args:
        path: A directory that does not exist.
        documents: The tokens of each, the last one `end_of_text`.
        vocab_size: All tokens are less than this.
        end_of_text: The token that ends every document.

    Raises:
        DataError: Something is at `path`, or there are no documents.
    """
    if path.exists():
        raise DataError(Problem(str(path), "exists", "delete it, or name another"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tokens-", dir=path.parent) as work:
        part = Path(work) / "tokens"
        with TokenWriter(part, vocab_size=vocab_size, end_of_text=end_of_text) as writer:
            for document in documents:
                writer.add(np.asarray(document))
        publish(part, path)
    return TokenSet.open(path, verify=False)


def publish(part: Path, path: Path) -> None:
    """Make a finished directory appear at `path`, all of it on disk first."""
    for each in [*part.rglob("*"), part]:
        _fsync(each)
    part.rename(path)
    _fsync(path.parent)


def unigram_loss(train: TokenSet, valid: TokenSet) -> float:
    """Give the loss on `valid` of a model that knows only how frequent each token is in `train`.

    Counts are smoothed by adding one (Laplace). A model that learnt anything from the order of
    tokens is below this.

    Returns:
        Nats per token.
    """
    assert train.vocab_size == valid.vocab_size
    seen = _counts(train) + 1
    return float(np.log(seen.sum()) - _counts(valid) @ np.log(seen) / valid.size)


def _counts(tokens: TokenSet) -> NDArray[np.int64]:
    """Give how often each token of the vocabulary occurs."""
    found = np.zeros(tokens.vocab_size, np.int64)
    for array in tokens.arrays:
        for start in range(0, len(array), _COUNTED_TOKENS):
            part = array[start : start + _COUNTED_TOKENS]
            found += np.bincount(part, minlength=tokens.vocab_size)
    return found


class _Sink:
    """A file that is being written, its items counted and its bytes hashed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.items = 0

    def write(self, items: NDArray[Any]) -> None:
        data = items.tobytes()
        self._file.write(data)
        self._hash.update(data)
        self.items += len(items)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def _dtype(vocab_size: int) -> np.dtype[Any]:
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.bin"


def _map(path: Path, kind: np.dtype[Any]) -> NDArray[Any]:
    return np.memmap(path, kind, "r").view(np.ndarray)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise(problems: Iterable[Problem]) -> None:
    found = tuple(problems)
    if found:
        raise DataError(found)


def _damaged(path: Path, rule: str) -> Problem:
    return Problem(str(path), rule, f"delete {path.parent} and write it again")


def _read_index(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Give the bytes of an index and what they say, once it is known to be well formed."""
    file = path / "index.json"
    try:
        raw = file.read_bytes()
        index = json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_number)
    except OSError as error:
        raise DataError(_damaged(file, f"cannot be read: {error.strerror}")) from error
    except (ValueError, RecursionError) as error:
        raise DataError(_damaged(file, f"not JSON: {error}")) from error
    _raise(_damaged(file, rule) for rule in _check_index(index))
    return raw, index


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _check_index(index: Any) -> Iterator[str]:
    """Give what is wrong with an index, outermost first: what is inside it needs what is around."""
    shape = {
        "version": int,
        "dtype": str,
        "vocab_size": int,
        "end_of_text": int,
        "shards": list,
        "documents": dict,
    }
    wrong = list(_check_fields(index, shape, "the index"))
    if not wrong:
        wrong += _check_fields(index["documents"], {"count": int, "sha256": str}, "documents")
        for number, shard in enumerate(index["shards"]):
            fields = {"name": str, "tokens": int, "sha256": str}
            wrong += _check_fields(shard, fields, f"shard {number}")
    yield from wrong or _check_values(index)


def _check_fields(value: Any, fields: dict[str, type], where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is not an object"
        return
    for name in sorted(value.keys() - fields.keys()):
        yield f"{where} has an unknown field {name!r}"
    for name, kind in fields.items():
        if name not in value:
            yield f"{where} lacks {name!r}"
        elif type(value[name]) is not kind:
            yield f"{where}: {name} is {value[name]!r}, not of type {kind.__name__}"


def _check_values(index: dict[str, Any]) -> Iterator[str]:
    vocab_size = index["vocab_size"]
    if index["version"] != VERSION:
        yield f"version is {index['version']}, and {VERSION} is read here"
    if not 1 <= vocab_size <= 2**32:
        yield f"vocab_size is {vocab_size}, not in 1 … 2³²"
    elif index["dtype"] != _dtype(vocab_size).name:
        yield f"dtype is {index['dtype']!r}, and {vocab_size} tokens take {_dtype(vocab_size).name}"
    if not 0 <= index["end_of_text"] < vocab_size:
        yield f"end_of_text is {index['end_of_text']}, outside a vocabulary of {vocab_size}"
    if not index["shards"]:
        yield "there is no shard"
    for number, shard in enumerate(index["shards"]):
        if shard["name"] != _shard_name(number):
            yield f"shard {number} is named {shard['name']!r}, not {_shard_name(number)!r}"
        if shard["tokens"] < 1:
            yield f"shard {number} has {shard['tokens']} tokens, not one at least"
    if index["documents"]["count"] < 1:
        yield f"documents: count is {index['documents']['count']}, not one at least"


def _check_file(path: Path, file: tuple[str, int, str], *, verify: bool) -> Iterator[Problem]:
    name, size, sha256 = file
    try:
        found = (path / name).stat().st_size
        if found != size:
            yield _damaged(path / name, f"{found} bytes long, not {size}")
        elif verify:
            with (path / name).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                    yield _damaged(path / name, "damaged: not the SHA-256 of the index")
    except OSError as error:
        yield _damaged(path / name, f"cannot be read: {error.strerror}")


def _check_documents(tokens: TokenSet) -> Iterator[Problem]:
    starts = tokens.documents
    if starts[0] != 0 or starts[-1] >= tokens.size or not (np.diff(starts) > 0).all():
        rule = f"document starts do not increase from 0 to less than {tokens.size} tokens"
        yield _damaged(tokens.path / "documents.bin", rule)
