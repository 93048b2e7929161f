"""A cluster from TOML: all that is wrong with a file, at once."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stretto.cluster.device import Device, Power
from stretto.cluster.keys import (
    DEVICE,
    FILE,
    LEVEL,
    LINKS,
    MATRIX_EFFICIENCY,
    SPELLING,
    WITHIN_DEVICE,
)
from stretto.cluster.link import Level, common, resized, tree_problems
from stretto.cluster.names import preset
from stretto.cluster.table import Findings, take
from stretto.cluster.value import Cluster, Part
from stretto.errors import ClusterError, Problem

# In place of what cannot be read, so that what is wrong with the rest is found at once.
_ANY = "H100-SXM"
_LEVEL: Mapping[str, Any] = {
    "name": "node", "devices": 2**30, "bytes_per_s": 1.0, "latency_s": 0.0,
}  # fmt: skip
_RATES: Mapping[str, float] = {"bfloat16": 1.0}
_DEVICE: Mapping[str, Any] = {
    "name": "any", "memory_bytes": 1.0, "memory_bytes_per_s": 1.0, "units": 1, "tile": (1, 1, 1),
    "launch_s": 0.0, "price_per_hour": 0.0, "source": "any", "sources": {},
    "power_w": {"idle": 1.0, "memory_bound": 1.0, "compute_bound": 1.0},
}  # fmt: skip


def load(path: Path, *, devices: int | None = None) -> Cluster:
    """Give the cluster in a file.

    Args:
        path: A TOML file.
        devices: How many devices; None for all that it states.

    Raises:
        ClusterError: All that is wrong with it.
    """
    remedy = "name a cluster's TOML file"
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise ClusterError(Problem(str(path), f"cannot be read: {reason}", remedy)) from None
    except tomllib.TOMLDecodeError as error:
        raise ClusterError(Problem(path.name, f"is not TOML: {error}", "mend that line")) from None
    return read(tree, where=path.name, devices=devices)


def read(tree: Mapping[str, Any], *, where: str, devices: int | None = None) -> Cluster:
    """Give the cluster that a parsed TOML tree describes.

    Args:
        tree: The tree.
        where: What to call it in an error: its file's name.
        devices: How many devices; None for all that it states.

    Raises:
        ClusterError: All that is wrong with it.
    """
    findings = Findings(f"{where}: ")
    cluster = _cluster(tree, devices, findings)
    if cluster is None:
        raise ClusterError(findings.problems)
    return cluster


def accelerator(name: str) -> Device:
    """Give the device of a preset.

    Raises:
        ClusterError: No preset has this name.
    """
    file, tree = preset(name)
    return read(tree, where=file, devices=1).device


def _cluster(tree: Mapping[str, Any], devices: int | None, findings: Findings) -> Cluster | None:
    """Give what a tree describes; None if anything is wrong."""
    before = len(findings.problems)
    head = take(_expanded(tree, findings), FILE, findings=findings)
    parts = _parts(head, devices, findings)
    levels = _levels(head.get("levels", ()), parts, findings)
    links = _links(head.get("links"), findings)
    if len(findings.problems) > before:
        return None
    total = sum(part.devices for part in parts)
    try:
        told = (tuple(head[name].items()) for name in ("software", "prior"))
        cluster = Cluster(head["name"] or parts[0].device.name, parts, levels, links, *told)
        return cluster.at(devices or total)
    except ClusterError as error:
        _respell(error.problems, findings)
        return None


def _expanded(tree: Mapping[str, Any], findings: Findings) -> Mapping[str, Any]:
    """Give a tree with what its accelerator's file states, where it says nothing else."""
    name, own = tree.get("accelerator"), tree.get("device", {})
    if not isinstance(name, str) or not isinstance(own, Mapping):
        return tree
    try:
        _, inner = preset(name)
    except ClusterError as error:
        for problem in error.problems:
            findings.add("accelerator", problem.rule, problem.remedy)
        _, inner = preset(_ANY)
    if "part" in inner:
        kinds = " and ".join(str(part["accelerator"]) for part in inner["part"])
        findings.add("accelerator", f"{name!r} has several kinds of device", f"name {kinds} apart")
        _, inner = preset(_ANY)
    base = _expanded(inner, findings)
    device = {"name": base["name"], **base["device"]}
    # A constant that is stated anew does not keep the source of the old one.
    kept = {key: text for key, text in device.get("sources", {}).items() if key not in own}
    device = dict(_merged({**device, "sources": kept}, own))
    return {"level": base.get("level", []), **tree, "device": device}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give `base` with the values of `over`, tables within each other too."""
    nested = {
        key: _merged(base[key], value)
        for key, value in over.items()
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
    }
    return {**base, **over, **nested}


def _parts(head: Mapping[str, Any], devices: int | None, findings: Findings) -> tuple[Part, ...]:
    """Give the kinds of device; incomplete if anything is wrong."""
    if head.get("parts"):
        return _uneven(head, findings)
    device = _device(head.get("device"), head.get("name", ""), findings)
    count = head.get("devices")
    if "devices" in head and count is None and devices is None:
        findings.add("devices", "is missing", "state how many there are")
    elif count is not None and count < 1:
        findings.add("devices", f"is {count}", "use 1 or more")
    elif count is not None and devices is not None and devices > count:
        rule, remedy = f"is {count}, but {devices} are asked for", f"ask for {count} or fewer"
        findings.add("devices", rule, remedy)
    size = count or devices or 0
    return (Part(device, size),) if device and size > 0 else ()


def _uneven(head: Mapping[str, Any], findings: Findings) -> tuple[Part, ...]:
    """Give the parts that are stated; incomplete if anything is wrong."""
    for key in ("accelerator", "device", "devices"):
        if head.get(key):
            findings.add(key, "is stated beside parts", "state it in each [[part]]")
    parts = []
    for i, tree in enumerate(head["parts"]):
        below = findings.below(f"part[{i}]")
        if "part" in tree:
            below.add("part", "stands within a part", "list all parts side by side")
        elif made := _cluster(tree, None, below):
            parts.append(Part(made.device, made.devices, made.levels))
    return tuple(parts)


def _device(tree: Mapping[str, Any] | None, name: str, findings: Findings) -> Device | None:
    """Give the device of a table; None if anything is wrong."""
    if tree is None:
        remedy = 'write accelerator = "H100-SXM", say, or a table [device]'
        findings.add("device", "is missing", remedy)
        return None
    before = len(findings.problems)
    below = findings.below("device")
    made = take({"name": name, **tree}, DEVICE, findings=below)
    for key, keys in WITHIN_DEVICE.items():
        attribute, so_far = DEVICE[key].attribute, len(findings.problems)
        if isinstance(inner := made.pop(attribute, None), Mapping):
            values = take(inner, keys, findings=below.below(key))
            if len(findings.problems) == so_far:
                made[attribute] = {k: v for k, v in values.items() if v is not None}
    if not {"flops_per_s", "efficiency"} <= set(made):  # each is read by the other
        made |= {"flops_per_s": _RATES, "efficiency": _RATES}
    stated: dict[str, Any] = {**_DEVICE, **made}
    usual = dict.fromkeys(stated["flops_per_s"], MATRIX_EFFICIENCY)
    stated["efficiency"] = usual | stated["efficiency"]
    for name in ("flops_per_s", "efficiency", "sources"):
        stated[name] = tuple(stated[name].items())
    device = None
    try:
        device = Device(**{**stated, "power_w": Power(**stated["power_w"])})
    except ClusterError as error:
        _respell(error.problems, below)
    return device if len(findings.problems) == before else None


def _levels(
    trees: Sequence[Mapping[str, Any]], parts: Sequence[Part], findings: Findings
) -> tuple[Level, ...]:
    """Give the tree of links, those of the parts innermost; empty if anything is wrong."""
    before = len(findings.problems)
    total = sum(part.devices for part in parts)
    levels = [*common([part.levels for part in parts])] if len(parts) > 1 else []
    sizes = {"device": 1, "part": max((part.devices for part in parts), default=1)}
    sizes |= {level.name: level.devices for part in parts for level in part.levels}
    for i, tree in enumerate(trees):
        # The outermost may leave open how many it holds.
        enough = max(total, 2 * max(sizes.values()))
        open_ = {"devices": enough} if i == len(trees) - 1 else {}
        level = _level({**open_, **tree}, sizes, findings.below(f"level[{i}]"))
        levels += [level] if level else []
    if len(findings.problems) == before and levels:
        _respell(tree_problems(levels, max(total, levels[-1].devices)), findings)
    return resized(levels, total) if len(findings.problems) == before else ()


def _level(tree: Mapping[str, Any], sizes: dict[str, int], findings: Findings) -> Level | None:
    """Give the level of a table; None if anything is wrong.

    Args:
        tree: The table.
        sizes: Devices of each level inside it; its own are added.
        findings: Is added to.
    """
    before = len(findings.problems)
    made = take(tree, LEVEL, findings=findings)
    sizes[made.get("name", "")] = made.get("devices", 1)
    link = made.pop("sharers", "device")
    sharers = link if isinstance(link, int) else sizes.get(link)
    if sharers is None:
        remedy = f"name what one link serves: {', '.join(sizes)}"
        findings.add("per", f"{link!r} is no level up to this one", remedy)
    level = None
    try:
        level = Level(**{**_LEVEL, **made}, sharers=sharers or 1)
    except ClusterError as error:
        _respell(error.problems, findings)
    return level if len(findings.problems) == before else None


def _links(tree: Mapping[str, Any] | None, findings: Findings) -> tuple[tuple[float, ...], ...]:
    """Give the matrix of measured bandwidths; empty if there is none."""
    if tree is None:
        return ()
    made = take(tree, LINKS, findings=findings.below("links"))
    rows, unit = made.get("rows", ()), made.get("unit", 1.0)
    return tuple(tuple(one * unit for one in row) for row in rows)


def _respell(problems: Iterable[Problem], findings: Findings) -> None:
    """Add problems of a value, with the keys that a file has for its attributes."""
    for problem in problems:
        head, dot, rest = problem.field.partition(".")
        findings.add(SPELLING.get(head, head) + dot + rest, problem.rule, problem.remedy)
