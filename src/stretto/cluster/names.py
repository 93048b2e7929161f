"""Presets by name: one TOML file for each accelerator and for each whole system."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stretto.errors import ClusterError, Problem

_PRESETS = Path(__file__).parents[1] / "clusters"
_COUNTED = re.compile(r"(.+?)\s*[x×]\s*(\d+)")


def names() -> tuple[str, ...]:
    """Give the name of every preset, as its file writes it."""
    return tuple(str(tree["name"]) for _, tree in _trees())


def split(text: str) -> tuple[str, int | None]:
    """Give the preset's name and the number of devices that ``h100x64`` means.

    The number is None where `text` is a preset's name as a whole, as ``rtx4090`` is.

    Raises:
        ClusterError: No preset has this name.
    """
    if _preset(text) is None and (match := _COUNTED.fullmatch(text.strip())):
        preset(match.group(1))
        return match.group(1), int(match.group(2))
    preset(text)
    return text, None


def preset(name: str) -> tuple[str, Mapping[str, Any]]:
    """Give a preset's file name and its TOML tree.

    Args:
        name: Its name or one of its aliases; case, spaces and dashes do not matter.

    Raises:
        ClusterError: No preset has this name; the nearest ones, and all.
    """
    found = _preset(name)
    if found is not None:
        return found
    known = {_plain(word): str(tree["name"]) for _, tree in _trees() for word in _words(tree)}
    near = dict.fromkeys(
        known[word] for word in difflib.get_close_matches(_plain(name), known, n=3, cutoff=0.5)
    )
    remedy = f"did you mean {' or '.join(near)}? " if near else ""
    every = ", ".join(names())
    raise ClusterError(
        Problem(
            "cluster",
            f"there is none called {name!r}",
            f"{remedy or 'there is no near one; '}write NAMExDEVICES or a file, NAME of {every}",
        )
    )


def of_driver(name: str) -> str | None:
    """Give the accelerator whose driver calls it `name`; None for one that is not known."""
    for _, tree in _trees():
        if name in tree.get("drivers", ()):
            return str(tree["name"])
    return None


def _preset(name: str) -> tuple[str, Mapping[str, Any]] | None:
    wanted = _plain(name)
    for file, tree in _trees():
        if wanted in map(_plain, _words(tree)):
            return file, tree
    return None


def _words(tree: Mapping[str, Any]) -> tuple[str, ...]:
    return (tree["name"], *tree.get("aliases", ()))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


def _trees() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path in sorted(_PRESETS.glob("*.toml")):
        yield path.name, tomllib.loads(path.read_text(encoding="utf-8"))
