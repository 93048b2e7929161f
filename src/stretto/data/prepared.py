"""From text to tokens: a tokenizer and two sets of tokens, made once per text and settings.

A document is held out if a hash of its text says so: equal documents go the same way, wherever they
stand.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from stretto.data import corpus
from stretto.data.tokenizer import SMALLEST, Tokenizer, learn, load
from stretto.data.tokens import TokenSet, TokenWriter, publish
from stretto.errors import DataError, MachineError, Problem

Stage = Literal["read", "learn", "encode"]
Progress = Callable[[Stage, int, int | None], None]
"""Told of the stage, the characters done, and those there are, once that is known."""

_VERSION = 1  # another one makes everything be prepared anew
_SHORTEST = 2**14  # characters: a document of no more is never cut
_LEARNT = 2**26  # characters that a tokenizer is trained on at most: two minutes on two cores
_ENOUGH = 100  # characters per token of the vocabulary, below which a tokenizer is poor
_BATCH = 2**21  # characters that are encoded at once
_REPORT = 2**20  # characters between two calls of progress


@dataclass(frozen=True, slots=True)
class Prepared:
    """Text that is ready to train on.

    Attributes:
        train: What is trained on.
        valid: What is held out.
        tokenizer_path: The ``tokenizer.json``; `tokenizer.load` reads it.
        notes: What a person should know: that the tokenizer saw little text, or only a part of it.
    """

    train: TokenSet
    valid: TokenSet
    tokenizer_path: Path
    notes: tuple[str, ...]


def prepare(
    paths: Sequence[Path],
    out: Path,
    *,
    tokenizer: Path | None = None,
    end_of_text: str | int | None = None,
    vocab_size: int = 8192,
    valid_fraction: float = 0.03,
    field: str = "text",
    progress: Progress | None = None,
) -> Prepared:
    """Give the tokens of text: from `out` if they are there, else made now.

    They lie in a directory of `out` that is named by a hash of the files' bytes and the settings,
    and that appears complete or not at all. While one process prepares, others wait for it.

    Args:
        paths: Files and directories of text; see `corpus`.
        out: The directory that keeps what was prepared.
        tokenizer: A ``tokenizer.json`` to use. None: one is trained on the text that is not held
            out.
        end_of_text: With `tokenizer`, the token or id that ends a document; see `tokenizer.load`.
        vocab_size: Without `tokenizer`, the tokens that are wanted.
        valid_fraction: The part of the documents that is held out, more than 0, at most 0.5. At
            least one document is, and at least one is not.
        field: The field of JSON lines, the column of Parquet.
        progress: Called now and then.

    Raises:
        DataError: Text, a tokenizer or settings that cannot be used, or prepared tokens that are
            damaged: all that is found.
        MachineError: `out` cannot be written.
    """
    with _machine(out):
        problems = list(_check(tokenizer, vocab_size=vocab_size, valid_fraction=valid_fraction))
        with _listed(problems):
            sources = corpus.files(paths)
        if problems:
            raise DataError(problems)
        settings = {
            "version": _VERSION,
            "text": [[corpus.kind_of(file), _sha256(file)] for file in sources],
            "field": field,
            "valid_fraction": valid_fraction,
            "tokenizer": [_sha256(file) for file in _tokenizer_files(tokenizer)] or vocab_size,
            "end_of_text": end_of_text,
        }
        home = out / hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
        if not home.exists():
            text = _Text(sources, field, valid_fraction, progress)
            with _alone(out) as work:
                if not home.exists():  # while this process waited
                    part = work / home.name
                    part.mkdir()
                    split, given = _look(text, tokenizer=tokenizer, end_of_text=end_of_text)
                    chosen, notes = (
                        (given, ()) if given else _learn(text, split, vocab_size=vocab_size)
                    )
                    chosen.save(part)
                    _encode(text, split, tokenizer=chosen, part=part)
                    record = settings | {"notes": notes}
                    (part / "prepared.json").write_text(json.dumps(record, indent=1) + "\n")
                    publish(part, home)
        return _open(home)


@dataclass(frozen=True, slots=True)
class _Text:
    """Text that is read again and again.

    Attributes:
        sources: Files.
        field: The field of JSON lines, the column of Parquet.
        valid_fraction: The fraction of hashes that is held out.
        progress: Told of what is read.
    """

    sources: tuple[Path, ...]
    field: str
    valid_fraction: float
    progress: Progress | None

    @property
    def longest(self) -> int:
        """Characters after which a document is cut: an eighth of what is to be held out.

        So even one long text has parts to hold out, and no document is most of what is. It is a
        guess from the size of the files; a compressed byte is taken for four.
        """
        guess = sum(
            file.stat().st_size * (1 if file.suffix.lower() in (".txt", ".jsonl") else 4)
            for file in self.sources
        )
        return min(max(int(guess * self.valid_fraction / 8), _SHORTEST), corpus.LONGEST)

    def documents(self, stage: Stage, *, total: int | None) -> Iterator[str]:
        """Give the documents in order, and tell of it."""
        done = told = 0
        for text in corpus.documents(self.sources, field=self.field, longest=self.longest):
            yield text
            done += len(text)
            if self.progress and done - told >= _REPORT:
                self.progress(stage, done, total)
                told = done
        if self.progress:
            self.progress(stage, done, total)


@dataclass(frozen=True, slots=True)
class _Split:
    """Which documents are held out: those with a low hash, but at least one, and not all.

    Attributes:
        documents: How many documents there are.
        characters: How many are in them.
        lowest: The lowest hash of a document.
        highest: The highest.
        below: Hashes below this are held out.
    """

    documents: int
    characters: int
    lowest: int
    highest: int
    below: int

    def holds_out(self, text: str) -> bool:
        """Say whether a document is held out."""
        number = _hash(text)
        return number == self.lowest or number < min(self.below, self.highest)


def _check(tokenizer: Path | None, *, vocab_size: int, valid_fraction: float) -> Iterator[Problem]:
    if not 0 < valid_fraction <= 0.5:
        rule = f"{valid_fraction} is not more than 0 and at most 0.5"
        yield Problem("valid_fraction", rule, "hold out 0.03 of the documents")
    if tokenizer is None and vocab_size < SMALLEST:
        rule = f"{vocab_size} tokens cannot hold 256 bytes and the end of text"
        yield Problem("vocab_size", rule, f"ask for at least {SMALLEST}")
    if tokenizer is not None and not _tokenizer_files(tokenizer):
        remedy = "name a tokenizer.json, or a directory with one"
        yield Problem(str(tokenizer), "no such tokenizer", remedy)


def _tokenizer_files(tokenizer: Path | None) -> list[Path]:
    """Give the files that a given tokenizer depends on."""
    if tokenizer is None:
        return []
    path = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    beside = [path.with_name(f"{name}_config.json") for name in ("tokenizer", "generation")]
    return [file for file in (path, *beside) if file.is_file()] if path.is_file() else []


def _look(
    text: _Text, *, tokenizer: Path | None, end_of_text: str | int | None
) -> tuple[_Split, Tokenizer | None]:
    """Read all that is given once, so that all that is wrong is found before anything is done."""
    problems: list[Problem] = []
    found = None
    documents = characters = 0
    lowest, highest = 2**64, -1
    if tokenizer is not None:
        with _listed(problems):
            found = load(tokenizer, end_of_text=end_of_text)
    with _listed(problems):
        for each in text.documents("read", total=None):
            number = _hash(each)
            documents += 1
            characters += len(each)
            lowest, highest = min(lowest, number), max(highest, number)
        if lowest == highest:
            rule = (
                f"one document of {characters:,} characters leaves nothing to hold out; documents "
                f"end with a form feed or two blank lines, or after {text.longest:,} characters"
            )
            raise DataError(Problem("data", rule, "give more text"))
    if problems:
        raise DataError(problems)
    below = int(text.valid_fraction * 2**64)
    return _Split(documents, characters, lowest, highest, below), found


def _learn(text: _Text, split: _Split, *, vocab_size: int) -> tuple[Tokenizer, tuple[str, ...]]:
    """Train a tokenizer on the training text, or part of it, and give what to say of it."""
    every = -(-split.characters // _LEARNT)
    documents = text.documents("learn", total=split.characters)
    train = (each for each in documents if not split.holds_out(each))
    tokenizer = learn(islice(train, 0, None, every), vocab_size=vocab_size)
    notes = []
    if every > 1:
        notes.append(f"The tokenizer was trained on one document in {every}.")
    if split.characters < _ENOUGH * vocab_size:
        notes.append(
            f"The tokenizer was trained on {split.characters:,} characters, fewer than {_ENOUGH} "
            f"for each of {vocab_size:,} tokens: a smaller vocabulary would serve better."
        )
    if tokenizer.size < vocab_size:
        notes.append(f"The text gives {tokenizer.size:,} tokens of the {vocab_size:,} asked for.")
    return tokenizer, tuple(notes)


def _encode(text: _Text, split: _Split, *, tokenizer: Tokenizer, part: Path) -> None:
    """Write the two sets of tokens into the directory `part`."""
    about = {"vocab_size": tokenizer.size, "end_of_text": tokenizer.end_of_text}
    documents = characters = 0
    with (
        TokenWriter(part / "train", **about) as train,
        TokenWriter(part / "valid", **about) as valid,
    ):
        for batch in _batches(text.documents("encode", total=split.characters)):
            documents += len(batch)
            characters += sum(map(len, batch))
            for each, tokens in zip(batch, tokenizer.encode_documents(batch), strict=True):
                (valid if split.holds_out(each) else train).add(tokens)
    if (documents, characters) != (split.documents, split.characters):
        rule = f"{split.characters:,} characters at first, then {characters:,}"
        raise DataError(Problem("data", rule, "leave the files alone while they are read"))


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """Give documents in lists of about `_BATCH` characters."""
    batch: list[str] = []
    characters = 0
    for each in documents:
        batch.append(each)
        characters += len(each)
        if characters >= _BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _open(home: Path) -> Prepared:
    """Give what lies prepared in `home`."""
    problems: list[Problem] = []
    path = home / "tokenizer.json"
    record = home / "prepared.json"
    with _listed(problems):
        train = TokenSet.open(home / "train", verify=False)
    with _listed(problems):
        valid = TokenSet.open(home / "valid", verify=False)
    if not path.is_file():
        problems.append(Problem(str(path), "missing", ""))
    try:
        notes = tuple(map(str, json.loads(record.read_bytes())["notes"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        problems.append(Problem(str(record), f"cannot be read: {error}", ""))
    if problems:
        remedy = f"delete {home}, and it is prepared again"
        raise DataError(replace(problem, remedy=remedy) for problem in problems)
    return Prepared(train, valid, path, notes)


@contextmanager
def _alone(out: Path) -> Iterator[Path]:
    """Give an empty directory in `out` to work in, while no other process has one."""
    out.mkdir(parents=True, exist_ok=True)
    work = out / ".work"
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(work, ignore_errors=True)  # of one that was killed
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _listed(problems: list[Problem]) -> Iterator[None]:
    """Put what is wrong into a list, and go on."""
    try:
        yield
    except DataError as error:
        problems += error.problems


@contextmanager
def _machine(out: Path) -> Iterator[None]:
    """Say what the machine refused."""
    try:
        yield
    except OSError as error:
        remedy = "make room or give leave, or prepare the data elsewhere"
        where = str(error.filename or out)
        raise MachineError(Problem(where, error.strerror or str(error), remedy)) from error


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
