"""The command line: options, names, and ``key=value``, in any order."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from stretto.errors import InputError, Problem

_KEY = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Words:
    """What stands on a command line besides options.

    Attributes:
        names: Words without ``=``.
        keys: (key, value) of each ``key=value``, in order; values as TOML reads them, else text.
    """

    names: tuple[str, ...]
    keys: tuple[tuple[str, Any], ...]


class Parser(argparse.ArgumentParser):
    """A parser that raises what is wrong instead of printing it.

    Options and other words may stand in any order; what it does not know is left for `unknown`.
    """

    def __init__(self, command: str, *, usage: str, about: str, examples: str) -> None:
        """Begin the parser of a command.

        Args:
            command: Its name.
            usage: What follows the name in the usage line.
            about: What it does.
            examples: Lines for the end of its help.
        """
        super().__init__(
            prog=f"stretto {command}",
            usage=f"stretto {command} {usage}",
            description=about,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found.

        Raises:
            InputError: Always.
        """
        raise InputError(Problem(self.prog, message, f"see {self.prog} --help"))

    def read(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Give the options, and the words that are none and that nobody knows."""
        return self.parse_known_intermixed_args(list(arguments))

    def unknown(self, words: Iterable[str]) -> list[Problem]:
        """Give a problem for each option that this parser does not know."""
        options = [o for action in self._actions for o in action.option_strings if o[:2] == "--"]
        return [
            Problem(
                word.split("=")[0],
                "there is no such option",
                f"{self.suggest(word.split('=')[0], options)}see {self.prog} --help",
            )
            for word in words
            if word.startswith("-")
        ]

    @staticmethod
    def suggest(word: str, known: Iterable[str]) -> str:
        """Give the beginning of a remedy: the nearest word that is known, if one is near."""
        near = difflib.get_close_matches(word, list(known), n=1)
        return f"did you mean {near[0]}? " if near else ""


def words(named: Iterable[str]) -> Words:
    """Tell names from ``key=value``; a word with ``=`` that is a path that exists is a name."""
    names: list[str] = []
    keys: list[tuple[str, Any]] = []
    for word in named:
        match = _KEY.fullmatch(word)
        if match is None or os.path.exists(word):
            names.append(word)
        else:
            keys.append((match.group(1), value(match.group(2))))
    return Words(tuple(names), tuple(keys))


def value(text: str) -> Any:
    """Give what a text is as a TOML value; the text itself if it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def paths(found: Sequence[str] | None) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Give the paths after an option that takes several, and the ``key=value`` among them."""
    both = words(found or ())
    keys = tuple(w for w in found or () if w not in both.names)
    return tuple(Path(name) for name in both.names), keys
