"""Software by name: constants of its generations, from stacks.toml, and of our own runtime."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from stretto.cluster import Cluster
from stretto.cost.numbers import record
from stretto.cost.stack import Stack
from stretto.errors import InputError, Problem

DEFAULT = "modern"
"""What a plan is priced for unless one says otherwise: fused kernels, flash attention, overlap."""


OWN, OWN_ON_HOSTS = "stretto", "stretto-cpu"
"""Our own runtime: on accelerators, and on devices that are their own hosts."""


@cache
def table() -> Mapping[str, Any]:
    """Give all that is known: ``stack`` and ``kernel``, each name → constants."""
    fitted, own = published(), _file("runtime.toml")
    return {**fitted, **{key: {**fitted[key], **own[key]} for key in own}}


@cache
def published() -> Mapping[str, Any]:
    """Give what is fitted to published measurements."""
    return _file("stacks.toml")


def _file(name: str) -> dict[str, Any]:
    return tomllib.loads(files("stretto.cost").joinpath(name).read_text("utf-8"))


def machine_constants() -> Mapping[str, float]:
    """Give what holds on every machine.

    ``memory`` is what copies reach of a memory's peak; ``ramp`` the depth of a product, in
    elements, that its start and end cost on a unit of 1 TFLOP/s: it grows with the root of the
    unit's rate.
    """
    constants: Mapping[str, float] = table()["machine"]
    return constants


def names() -> tuple[str, ...]:
    """Give the names of all generations of software."""
    return tuple(table()["stack"])


def about(name: str) -> str:
    """Give what a generation of software is."""
    return str(table()["stack"][name]["about"])


def inherited(name: str) -> dict[str, Any]:
    """Give the constants of a generation; what it does not state is its base's."""
    own: dict[str, Any] = table()["stack"][name]
    return (inherited(own["base"]) if "base" in own else {}) | own


def stack(name: str = DEFAULT, *, kernel: str | None = None) -> Stack:
    """Give a generation of software.

    Args:
        name: Its name in stacks.toml.
        kernel: The attention kernel, where it is not the generation's own.

    Raises:
        InputError: There is none of that name.
    """
    problems = [
        _unknown(field, word, tuple(table()[field]))
        for field, word in (("stack", name), ("kernel", kernel))
        if word is not None and word not in table()[field]
    ]
    if problems:
        raise InputError(problems)
    constants = inherited(name)
    constants |= table()["kernel"][kernel or constants["kernel"]]
    return record(Stack, **{f.name: constants[f.name] for f in fields(Stack)})


def own_name(cluster: Cluster) -> str:
    """Give the name of our own runtime's generation, as it is on a cluster."""
    return OWN_ON_HOSTS if cluster.device.host else OWN


def own(cluster: Cluster) -> Stack:
    """Give our own runtime, as it is on a cluster: what was measured there, else as everywhere.

    Raises:
        InputError: The cluster states constants that no software has.
    """
    base = stack(own_name(cluster))
    known = tuple(f.name for f in fields(Stack))
    problems = [
        _unknown(f"{cluster.name}: software", name, known)
        for name, _ in cluster.software
        if name not in known
    ]
    if problems:
        raise InputError(problems)
    return replace(base, **{n: np.asarray(v, dtype=np.float64) for n, v in cluster.software})


def _unknown(field: str, word: str, known: tuple[str, ...]) -> Problem:
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return Problem(field, f"there is none called {word!r}", f"{hint}choose from {', '.join(known)}")
