"""A plan as TOML, in and out: each section through its own readers, all problems together."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

import tomli_w

from stretto.errors import InputError, PlanError, Problem
from stretto.mesh import Mesh
from stretto.plan.value import (
    Batch,
    Codec,
    Communication,
    Decisions,
    DType,
    Group,
    Hierarchy,
    Matrix,
    Memory,
    Numerics,
    Pipeline,
    Recompute,
    ScheduleName,
)
from stretto.rules import Rules, Table
from stretto.units import parse

MODEL = "model"
"""The key of the model that a plan was made for. It is the file's, not the plan's: another may be
trained by the same plan."""


def text_of(plan: Decisions, *, model: str = "") -> str:
    """Give a plan as TOML: every key that it has.

    Args:
        plan: The plan.
        model: For which it was made: a preset, or a path from the file; empty to leave that open.
    """
    named = {MODEL: model} if model else {}
    views = {"views": _lists(plan.mesh.views)} if plan.mesh.views else {}
    flat = {
        section: {key.name: key.write(getattr(getattr(plan, section), key.field)) for key in keys}
        for section, (_, keys) in _FLAT.items()
    }
    groups = {"groups": [_group_tree(group) for group in plan.groups]} if plan.groups else {}
    tree = {"mesh": dict(plan.mesh.axes) | views, "rules": _rules_tree(plan.rules)} | flat | groups
    return _LIST.sub(_in_a_line, tomli_w.dumps(named | tree))


_LIST = re.compile(r"\[\n((?:    [^\n]+,\n)+)\]")


def _in_a_line(found: re.Match[str]) -> str:
    """Give a list of TOML, written an item to a line, in one line."""
    return f"[{', '.join(line.strip(' ,') for line in found[1].splitlines())}]"


def tree_of(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        PlanError: It is none.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(Problem("plan", f"is not TOML: {error}", "mend that line")) from None


def parts_of(tree: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """Give the parts of a plan that a tree describes, and all that could not be read.

    Args:
        tree: Parsed TOML.
    """
    known = {f.name for f in fields(Decisions)}
    problems = unknown(tree, known | {MODEL}, "")
    if MODEL in tree and not (isinstance(model := tree[MODEL], str) and model):
        remedy = 'name a preset or a config.json: "llama-3-8b"'
        problems.append(Problem(MODEL, f"is {model!r}", remedy))
    parts: dict[str, Any] = {}
    for name in sorted(known & set(tree)):
        try:
            parts[name] = _SECTIONS[name](tree[name])
        except InputError as error:
            problems += error.problems
    return parts, tuple(problems)


def changed(tree: dict[str, Any], changes: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Give a plan's tree with dotted keys set.

    Raises:
        PlanError: All keys that lead nowhere.
    """
    problems = []
    for key, value in changes:
        *path, last = key.split(".")
        at: Any = tree
        for part in path:
            at = at.setdefault(part, {}) if isinstance(at, dict) else None
        if isinstance(at, dict):
            at[last] = value
        else:
            problems.append(Problem(key, "there is no such table", "see the plan's TOML"))
    if problems:
        raise PlanError(problems)
    return tree


def unknown(tree: Mapping[str, Any], known: set[str], prefix: str) -> list[Problem]:
    """Give a problem for each key of `tree` that is not in `known`, and the nearest one that is."""
    found = []
    for key in tree:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1)
            remedy = f"did you mean {prefix}{near[0]}?" if near else f"choose from {sorted(known)}"
            found.append(Problem(prefix + key, "there is no such key", remedy))
    return found


# ── sections of single values ────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of a section.

    Attributes:
        name: As TOML has it.
        read: Gives the value; raises `ValueError` with what would do.
        write: Gives what stands in TOML.
        field: As the section's class has it, where that is another name.
    """

    name: str
    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = lambda value: value
    renamed: str = ""

    @property
    def field(self) -> str:
        return self.renamed or self.name


def _one_of(kind: Any) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in get_args(kind):
            raise ValueError(f"choose from {', '.join(get_args(kind))}")
        return str(value)

    return check


def _positive(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("write a whole number of 1 or more")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("write true or false")
    return value


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError("write a share from 0 to 1")
    return float(value)


def _all_or_count(value: Any) -> int | None:
    if value == "all":
        return None
    if type(value) is not int or value < 1:
        raise ValueError('write "all", or a whole number of 1 or more')
    return value


def _cut(value: Any) -> tuple[int, ...]:
    if value == "balanced":
        return ()
    if not isinstance(value, list) or not all(type(v) is int for v in value):
        raise ValueError('write "balanced", or the first block of each stage: [0, 9]')
    return tuple(value)


def _bucket(value: Any) -> int:
    try:
        return int(parse(f"{value}", "bytes"))
    except InputError as error:
        raise PlanError(
            Problem("communication.bucket", p.rule, p.remedy) for p in error.problems
        ) from None


_FLAT: Mapping[str, tuple[type, tuple[_Key, ...]]] = {
    "pipeline": (
        Pipeline,
        (_Key("schedule", _one_of(ScheduleName)), _Key("cut", _cut, list),
         _Key("interleave", _positive)),
    ),
    "memory": (
        Memory,
        (_Key("recompute", _one_of(Recompute)),
         _Key("recompute_layers", _all_or_count, lambda n: "all" if n is None else n),
         _Key("offload", _share), _Key("optimizer_offload", _share), _Key("regather", _flag)),
    ),
    "communication": (
        Communication,
        (_Key("bucket", _bucket, lambda size: f"{size}B", "bucket_bytes"),
         _Key("codec", _one_of(Codec)), _Key("hierarchy", _one_of(Hierarchy)),
         _Key("tensor_overlap", _flag)),
    ),
    "numerics": (
        Numerics,
        (_Key("dtype", _one_of(DType)), _Key("matrix", _one_of(Matrix)), _Key("compile", _flag)),
    ),
    "batch": (Batch, tuple(_Key(f.name, _positive) for f in fields(Batch))),
}  # fmt: skip


KEYS = {section: tuple(key.name for key in keys) for section, (_, keys) in _FLAT.items()}
"""The keys of each section that has no others."""


def _values(section: str, cls: type, keys: Sequence[_Key]) -> Callable[[Any], Any]:
    def read_section(tree: Any) -> Any:
        tree = _as_table(tree, section)
        problems = unknown(tree, {key.name for key in keys}, f"{section}.")
        values: dict[str, Any] = {}
        for key in [k for k in keys if k.name in tree]:
            try:
                values[key.field] = key.read(tree[key.name])
            except InputError as error:
                problems += error.problems
            except ValueError as error:
                rule = f"is {tree[key.name]!r}"
                problems.append(Problem(f"{section}.{key.name}", rule, str(error)))
        if problems:
            raise PlanError(problems)
        return cls(**values)

    return read_section


# ── mesh, rules, groups ──────────────────────────────────────────────────────────────────────────


def _as_table(tree: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(tree, Mapping):
        head = "[[groups]]" if where.startswith("groups.") else f"[{where}]"
        raise PlanError(Problem(where, f"is {tree!r}, not a table", f"write {head}"))
    return tree


def _lists(table: Table) -> dict[str, str | list[str]]:
    return {name: axes[0] if len(axes) == 1 else list(axes) for name, axes in table}


def _rules_tree(rules: Rules) -> dict[str, Any]:
    tables = {f.name: _lists(getattr(rules, f.name)) for f in fields(Rules)}
    return {name: table for name, table in tables.items() if table}


def _mesh(tree: Any) -> Mesh:
    tree = _as_table(tree, "mesh")
    axes = {k: v for k, v in tree.items() if k != "views"}
    problems = [
        Problem(f"mesh.{k}", f"is {v!r}, not a whole number", "write its extent")
        for k, v in axes.items()
        if type(v) is not int
    ]
    views: Table = ()
    try:
        views = _table(tree.get("views", {}), "mesh.views")
    except PlanError as error:
        problems += error.problems
    if problems:
        raise PlanError(problems)
    return Mesh(tuple(axes.items()), views)


def _table(tree: Any, where: str) -> Table:
    table: list[tuple[str, tuple[str, ...]]] = []
    problems = []
    for key, value in _as_table(tree, where).items():
        axes = [value] if isinstance(value, str) else value
        if isinstance(axes, list) and all(isinstance(a, str) for a in axes):
            table.append((key, tuple(axes)))
        else:
            problems.append(
                Problem(f"{where}.{key}", f"is {value!r}", 'write axes: "dp" or ["dp", "tp"]')
            )
    if problems:
        raise PlanError(problems)
    return tuple(table)


def _rules(tree: Any, where: str = "rules") -> Rules:
    names = {f.name for f in fields(Rules)}
    problems = unknown(_as_table(tree, where), names, f"{where}.")
    tables: dict[str, Table] = {}
    for name in names & set(tree):
        try:
            tables[name] = _table(tree[name], f"{where}.{name}")
        except PlanError as error:
            problems += error.problems
    if problems:
        raise PlanError(problems)
    return Rules(**tables)


def _group_tree(group: Group) -> dict[str, Any]:
    tree: dict[str, Any] = {"layers": list(group.layers)}
    if group.recompute is not None:
        tree["recompute"] = group.recompute
    if group.rules is not None:
        tree["rules"] = _rules_tree(group.rules)
    return tree


def _span(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or [type(v) for v in value] != [int, int]:
        raise ValueError("write the first layer and the one after the last: [0, 8]")
    return value[0], value[1]


def _groups(trees: Any) -> tuple[Group, ...]:
    if not isinstance(trees, list):
        raise PlanError(Problem("groups", f"is {trees!r}, not a list", "write [[groups]]"))
    problems: list[Problem] = []
    groups = []
    for i, tree in enumerate(trees):
        try:
            groups.append(_group(tree, f"groups.{i}"))
        except PlanError as error:
            problems += error.problems
    if problems:
        raise PlanError(problems)
    return tuple(groups)


def _group(tree: Any, where: str) -> Any:
    def rules(value: Any) -> Rules:
        return _rules(value, f"{where}.rules")

    keys = (_Key("layers", _span), _Key("recompute", _one_of(Recompute)), _Key("rules", rules))
    return _values(where, Group, keys)({"layers": None} | dict(_as_table(tree, where)))


_SECTIONS: Mapping[str, Callable[[Any], Any]] = {
    "mesh": _mesh,
    "rules": _rules,
    "groups": _groups,
    **{section: _values(section, cls, keys) for section, (cls, keys) in _FLAT.items()},
}
