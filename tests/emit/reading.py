"""Reads what other trainers accept, and what is written for them, the strict way."""

from __future__ import annotations

import argparse
import ast
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

OPTIONS = Path(__file__).parent / "options"
_TYPES = {"int": int, "float": float, "str": str}


@dataclass(frozen=True, slots=True)
class Option:
    """An option of another project: what may be given for it."""

    kinds: tuple[str, ...]
    choices: tuple[str, ...]

    def takes(self, value: Any) -> bool:
        match value:
            case None:
                kind = "null"
            case bool():
                kind = "flag"
            case int():
                kind = "int"
            case float():
                kind = "float"
            case str():
                kind = "str"
            case list():
                kind = "list"
            case _:
                return False
        listed = not self.choices or value is None or str(value) in self.choices
        return listed and (kind in self.kinds or (kind == "int" and "float" in self.kinds))


def options(name: str) -> dict[str, Option]:
    """Give the options listed in a file, by name."""
    found = {}
    for line in (OPTIONS / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            option, kinds, *choices = line.split(" ")
            listed = tuple(choices[0].split("|")) if choices else ()
            found[option] = Option(tuple(kinds.split("|")), listed)
    return found


class Strict(argparse.ArgumentParser):
    """A parser that raises what is wrong instead of leaving."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def parser(name: str) -> Strict:
    """Give a parser of exactly the arguments listed in a file: an unknown one is an error."""
    strict = Strict(allow_abbrev=False, add_help=False)
    for option, given in options(name).items():
        (kind,) = given.kinds
        dest = option.removeprefix("--").replace("-", "_")
        if kind == "flag":
            strict.add_argument(option, dest=dest, action="store_true")
        else:
            several = {"nargs": "+"} if kind.endswith("+") else {}
            strict.add_argument(
                option, dest=dest, type=_TYPES[kind.removesuffix("+")],
                choices=given.choices or None, **several,
            )  # fmt: skip
    return strict


@dataclass(frozen=True, slots=True)
class Command:
    """What a script starts: how many processes, of what, and what that is told."""

    world: int
    environment: Mapping[str, str]
    script: str
    arguments: tuple[str, ...]


def command(text: str) -> Command:
    """Give what a shell script starts."""
    lines = text.replace("\\\n", " ").splitlines()
    exports = [shlex.split(line)[1].split("=", 1) for line in lines if line.startswith("export ")]
    (started,) = (line for line in lines if line.startswith("torchrun "))
    launcher = Strict(allow_abbrev=False, add_help=False)
    for number in ("--nnodes", "--nproc-per-node"):
        launcher.add_argument(number, type=int, required=True)
    launcher.add_argument("--standalone", action="store_true")
    for text in ("--node-rank", "--master-addr"):
        launcher.add_argument(text)
    words = shlex.split(started)[1:]
    at = next(i for i, word in enumerate(words) if word.endswith(".py") or word == "-m")
    given = launcher.parse_args(words[:at])
    assert given.standalone == (given.nnodes == 1)
    assert (given.node_rank is None) == given.standalone
    rest = words[at + (words[at] == "-m") :]
    world = given.nnodes * given.nproc_per_node
    return Command(world, dict(exports), rest[0], tuple(rest[1:]))


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give the dotted name and the value of all that a tree holds; ``[]`` for any item."""
    for key, value in tree.items():
        match value:
            case Mapping():
                yield from leaves(value, f"{prefix}{key}.")
            case [Mapping(), *_]:
                for item in value:
                    yield from leaves(item, f"{prefix}{key}[].")
            case _:
                yield f"{prefix}{key}", value


def strangers(tree: Mapping[str, Any], name: str) -> list[str]:
    """List what a tree holds that the options in a file do not allow."""
    known = options(name)
    return [
        f"{key} = {value!r}"
        for key, value in leaves(tree)
        if key not in known or not known[key].takes(value)
    ]


def assigned(source: str) -> dict[str, Any]:
    """Give what a configuration in Python imports and sets; an expression as its source."""
    module = ast.parse(source)
    found: dict[str, Any] = {}
    for node in module.body:
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}": "import" for alias in node.names}
    (function,) = (node for node in module.body if isinstance(node, ast.FunctionDef))
    for node in function.body[2:-1]:
        assert isinstance(node, ast.Assign)
        name = ast.unparse(node.targets[0]).removeprefix("config.")
        try:
            found[name] = ast.literal_eval(node.value)
        except ValueError:
            found[name] = ast.unparse(node.value)
    return found
