"""The command line: options, names, and ``key=value``, in any order."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from stretto.errors import InputError, Problem

_OPTION = re.compile(r"--?[A-Za-z]")
_ARGUMENT = re.compile(r"argument (--[\w-]+)\S*: (.*)", re.DOTALL)  # as argparse writes it
_KEY = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)


Pairs = tuple[tuple[str, Any], ...]
"""(key, value) of each ``key=value``, in order; values as TOML reads them, else text."""


class _Wide(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=24, width=100)


class Parser(argparse.ArgumentParser):
    """A parser that raises what is wrong instead of printing it.

    Options and other words may stand in any order; options that it does not know are given apart.
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
            formatter_class=_Wide,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found.

        Raises:
            InputError: Always.
        """
        match = _ARGUMENT.fullmatch(message)
        field, rule = match.groups() if match else (self.prog, message)
        raise InputError(Problem(field, rule, f"see {self.prog} --help"))

    def read(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, Pairs, list[Problem]]:
        """Give the options, the keys, and a problem for each option that there is not.

        A word with ``=`` is a key wherever it stands, unless it is a path that exists, or the value
        of the option before it.

        Raises:
            InputError: An option without a value, or with one that it cannot have.
        """
        known = {name: action for action in self._actions for name in action.option_strings}
        rest: list[str] = []
        keys: list[tuple[str, Any]] = []
        problems: list[Problem] = []
        for word in arguments:
            before = known.get(rest[-1]) if rest else None
            match = _KEY.fullmatch(word)
            if before is not None and before.nargs is None:
                rest.append(word)
            elif _OPTION.match(word) and word.split("=")[0] not in known:
                name = word.split("=")[0]
                remedy = f"{self.suggest(name, known)}see {self.prog} --help"
                problems.append(Problem(name, "there is no such option", remedy))
            elif match is not None and not os.path.exists(word):
                keys.append((match.group(1), value(match.group(2))))
            else:
                rest.append(word)
        return self.parse_intermixed_args(rest), tuple(keys), problems

    @staticmethod
    def suggest(word: str, known: Iterable[str]) -> str:
        """Give the beginning of a remedy: the nearest word that is known, if one is near."""
        near = difflib.get_close_matches(word, list(known), n=1)
        return f"did you mean {near[0]}? " if near else ""


def value(text: str) -> Any:
    """Give what a text is as a TOML value; the text itself if it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
