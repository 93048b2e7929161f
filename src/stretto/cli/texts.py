"""Text on disk: a look at it before anything is done, and its tokens, made or found."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from stretto.cli.keys import Settings
from stretto.cli.say import attempt
from stretto.data import corpus
from stretto.data.prepared import Prepared, Progress, Stage, prepare
from stretto.data.tokenizer import load
from stretto.data.tokens import TokenSet
from stretto.errors import DataError, Problem
from stretto.model import Model

CACHE = Path("runs") / "data"
"""Where tokens are kept unless something else is asked for."""

_LOOKED_AT = 64  # files of which the beginning is read before anything is done
_VERBS: dict[Stage, str] = {"read": "reading", "learn": "learning", "encode": "tokenising"}


def text_problems(data: Sequence[Path], *, field: str) -> Iterator[Problem]:
    """Give what is wrong with text as far as a quick look tells: its names and how it begins."""
    if _is_prepared(data):
        return
    problems: list[Problem] = []
    files: tuple[Path, ...] = ()
    try:
        files = corpus.files(data)
    except DataError as error:
        yield from error.problems
        files = tuple(p for p in data if p.is_file() and p.stat().st_size and corpus.kind_of(p))
    for file in files[:_LOOKED_AT]:
        attempt(partial(next, corpus.documents([file], field=field), None), problems)
    yield from problems


def tokenizer_problems(tokenizer: Path | None, model: Model | None) -> Iterator[Problem]:
    """Give what is wrong with a tokenizer that is named, and whether the model has its tokens."""
    if tokenizer is None:
        return
    try:
        size = load(tokenizer).size
    except DataError as error:
        yield from error.problems
        return
    if model is not None and size > model.vocab:
        yield _too_many(str(tokenizer), size, model)


def _too_many(where: str, size: int, model: Model) -> Problem:
    rule = f"has {size} tokens, but {model.name or 'the model'} has a vocabulary of {model.vocab}"
    return Problem(where, rule, "use the tokenizer of the model, or a model for this tokenizer")


def tokens_of(
    data: Sequence[Path],
    cache: Path,
    *,
    model: Model,
    tokenizer: Path | None,
    settings: Settings,
    progress: Progress | None = None,
) -> Prepared:
    """Give the tokens of text: prepared ones as they are, else from the cache, else made now.

    Args:
        data: Files and directories of text, or one directory that `prepare` made.
        cache: Where tokens are kept.
        model: What is to read them.
        tokenizer: The tokenizer; None to train one as large as the vocabulary of the model.
        settings: What is held out, and the field of JSON lines.
        progress: Told of what is done.

    Raises:
        DataError: All that is wrong with text or tokenizer.
        MachineError: The disk refuses.
    """
    if _is_prepared(data):
        found = _opened(data[0])
    else:
        found = prepare(
            data,
            cache,
            tokenizer=tokenizer,
            vocab_size=model.vocab,
            valid_fraction=settings.valid_fraction,
            field=settings.field,
            progress=progress,
        )
    if found.train.vocab_size > model.vocab:
        raise DataError(_too_many(str(found.tokenizer_path), found.train.vocab_size, model))
    return found


def _is_prepared(data: Sequence[Path]) -> bool:
    return len(data) == 1 and (data[0] / "prepared.json").is_file()


def _opened(home: Path) -> Prepared:
    problems: list[Problem] = []
    train = attempt(lambda: TokenSet.open(home / "train", verify=False), problems)
    valid = attempt(lambda: TokenSet.open(home / "valid", verify=False), problems)
    if train is None or valid is None:
        raise DataError(problems)
    return Prepared(train, valid, home / "tokenizer.json", ())


class Telling:
    """Tells on a terminal how far preparing text is; elsewhere, once that it has begun."""

    def __init__(self) -> None:
        """Begin the clock."""
        self.live = sys.stdout.isatty()
        self.began = time.monotonic()
        self.told: set[str] = set()

    def __call__(self, stage: Stage, done: int, total: int | None) -> None:
        """Tell of `done` characters of `total`."""
        verb = _VERBS[stage]
        if self.live:
            share = f"{done / total:4.0%}" if total else f"{done / 1e6:.0f} MB"
            print(f"\r{verb} {share}\x1b[K", end="", flush=True)
        elif verb not in self.told:
            print(f"{verb} …", flush=True)
        self.told.add(verb)

    def done(self) -> None:
        """Clear the line."""
        if self.live and self.told:
            print("\r\x1b[K", end="", flush=True)
