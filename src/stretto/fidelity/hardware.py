"""The cluster that a measurement was made on, by what its row states of its hardware."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from stretto.cluster import Cluster, Device, Level, Power, accelerator, find, names
from stretto.cluster.names import preset
from stretto.errors import ClusterError, InputError, Problem

_MANY = 100_000
"""Devices with which every level of an accelerator's tree of links is there."""

_LARGEST_NODE = 16
"""Devices of a node that a row's `gpus_per_node` speaks of; what is larger is a rack or a torus."""

_USABLE = 0.985
"""Share of a nominal GiB that drivers offer, as in the presets of A100, H100 and V100."""

_UNKNOWN = "A100-80GB"
"""What an accelerator without a preset is scaled from, by the peak that its row states."""


def cluster_of(tree: Mapping[str, Any]) -> tuple[Cluster, tuple[str, ...]]:
    """Give a row's cluster, and what was assumed of it.

    Args:
        tree: The row, cleaned: see `fields.cleaned`.

    Raises:
        InputError: Nobody knows its accelerator, nor the peak of it.
    """
    stated, count = str(tree["hardware"]), int(tree["n_gpus"])
    wires = str(tree.get("intra_node_interconnect") or "")
    memory = tree.get("accel_mem_gb") or _size(stated)
    name, exact = _named(stated, memory, wires)
    peak = None if name else tree.get("peak_tflops_assumed")
    if name is None and peak is None:
        raise InputError(
            Problem(
                "hardware",
                f"{stated!r} is no accelerator that there is a preset of",
                f"state peak_tflops_assumed, or write one of {', '.join(names())}",
            )
        )
    rack = re.search(r"NVL(\d+)", f"{stated} {wires}")
    cluster = _cluster(
        name or _UNKNOWN,
        count,
        memory=memory,
        node=int(rack[1]) if rack else tree.get("gpus_per_node"),
        nic=tree.get("inter_node_gbps_per_gpu"),
        peak=peak,
    )
    return cluster, tuple(_assumed(tree, cluster, name=name, exact=exact))


def _assumed(
    tree: Mapping[str, Any], cluster: Cluster, *, name: str | None, exact: bool
) -> Iterator[str]:
    if name is None:
        yield f"hardware = {_UNKNOWN}, scaled to {tree['peak_tflops_assumed']:g} TFLOP/s"
    elif not exact:
        yield f"hardware = {name}"
    if tree.get("accel_mem_gb") is None and _size(str(tree["hardware"])) is None:
        yield f"accel_mem_gb = {cluster.memory_bytes / _USABLE / 2**30:.0f}"
    if tree.get("gpus_per_node") is None and cluster.devices > 1:
        yield f"gpus_per_node = {cluster.per_node}"
    outer = [level for level in cluster.levels if _is_network(level, cluster)]
    if outer and tree.get("inter_node_gbps_per_gpu") is None:
        speed = outer[0].bytes_per_s / outer[0].sharers * 8e-9
        yield f"inter_node_gbps_per_gpu = {speed:g}"


# ── which accelerator ────────────────────────────────────────────────────────────────────────────


@cache
def _named(text: str, memory: float | None, wires: str) -> tuple[str | None, bool]:
    """Give the preset that a row means, and whether it names it; None if there is none near."""
    words = _words()
    whole = _plain(text)
    tokens = {*re.findall(r"[a-z0-9]+", text.lower())}
    found = [whole] if whole in words else []
    found += sorted(
        (w for w in words if (w in whole if _telling(w) else w in tokens)), key=len, reverse=True
    )
    if not found:
        return None, False
    name = words[found[0]]
    if _counted(name):
        return name, True
    family = [n for n in dict.fromkeys(words.values()) if _family(n) == _family(name)]
    card = re.search(r"pcie|nvl(?!ink|\d)", _plain(f"{text} {wires}")) is not None
    best = max(
        (n for n in family if not _counted(n)),
        key=lambda n: (memory is None or _alike(memory, n), _is_card(n) == card, n == name),
    )
    return best, found[0] == whole or _family(best) == re.sub(r"(sxm\d?|pcie|\d+gb)", "", whole)


@cache
def _words() -> Mapping[str, str]:
    """Give the presets of accelerators and systems by every plain name that they have."""
    return {
        _plain(word): name
        for name in names()
        for word in (name, *preset(name)[1].get("aliases", ()))
        if name != "CPU"
    }


def _telling(word: str) -> bool:
    """Tell whether a name is long enough to be found inside another; ``wan`` and ``p5`` are not."""
    return len(word) > 3 and any(c.isdigit() for c in word)


@cache
def _counted(name: str) -> bool:
    tree = preset(name)[1]
    return "devices" in tree or "part" in tree


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "", text.lower())


def _family(name: str) -> str:
    """Give what an accelerator's variants share: ``a100``, ``mi250x``, ``tpuv4``."""
    match = re.match(r"(tpu|rtx|gaudi)?-?([a-z0-9]+)", name.lower())
    return "".join(filter(None, match.groups())) if match else name


def _is_card(name: str) -> bool:
    return any(level.name == "package" for level in _base(name).levels) and "MI" not in name


def _size(text: str) -> float | None:
    match = re.search(r"(\d+) ?G[iB]", text)
    return float(match[1]) if match else None


def _alike(gb: float, name: str) -> bool:
    return 0.9 < gb * 2**30 / _base(name).memory_bytes < 1.1


# ── how it is put together ───────────────────────────────────────────────────────────────────────


@cache
def _base(name: str) -> Cluster:
    return find(name) if _counted(name) else find(name, devices=_MANY)


@cache
def _cluster(
    name: str,
    devices: int,
    *,
    memory: float | None,
    node: int | None,
    nic: float | None,
    peak: float | None,
) -> Cluster:
    base = _base(name)
    if peak is not None:
        device = accelerator(name)
        base = _with(base, _scaled(device, peak * 1e12 / device.peak_flops_per_s("bfloat16")))
    if name == "MI250X" and (memory > 100 if memory else node == 4):  # packages, not dies
        base = _packaged(base)
    if memory is not None and not 0.9 < memory * 2**30 / base.memory_bytes < 1.1:
        held = memory * _USABLE * 2**30
        base = _with(base, replace(base.device, memory_bytes=held))
    levels = list(base.levels)
    if node is not None and base.per_node <= _LARGEST_NODE:
        levels = _nodes_of(node, levels, base.per_node)
    for i, level in enumerate(levels):
        if nic and _is_network(level, base):
            levels[i] = replace(level, bytes_per_s=nic * 1e9 / 8, sharers=1)
    try:
        return Cluster(name, base.parts, tuple(levels)).at(devices)
    except ClusterError:  # a system whose rails do not fit other nodes
        return base.at(devices)


def _is_network(level: Level, cluster: Cluster) -> bool:
    """Tell whether a level is what a row's network card joins; of TPUs, not the torus."""
    inner = ("package", "node", "spine") if "TPU" in cluster.name else ("package", "node")
    return level.name not in inner


def _with(cluster: Cluster, device: Device) -> Cluster:
    return replace(cluster, parts=tuple(replace(p, device=device) for p in cluster.parts))


def _scaled(device: Device, factor: float) -> Device:
    """Give a device `factor` times as fast, of memory too."""
    power = device.power_w
    return replace(
        device,
        flops_per_s=tuple((n, rate * factor) for n, rate in device.flops_per_s),
        memory_bytes_per_s=device.memory_bytes_per_s * factor,
        power_w=Power(*(w * factor for w in (power.idle, power.memory_bound, power.compute_bound))),
        price_per_hour=device.price_per_hour * factor,
    )


def _packaged(cluster: Cluster) -> Cluster:
    """Give a cluster whose devices are the pairs of another's."""
    device = _scaled(cluster.device, 2)
    device = replace(device, units=2 * device.units, memory_bytes=2 * device.memory_bytes)
    levels = tuple(
        replace(
            level,
            devices=level.devices // 2,
            sharers=max(1, level.sharers // 2),
            bytes_per_s=level.bytes_per_s * (2 if level.sharers == 1 else 1),
        )
        for level in cluster.levels
        if level.name != "package"
    )
    parts = tuple(replace(p, device=device, devices=p.devices // 2) for p in cluster.parts)
    return Cluster(cluster.name, parts, levels)


def _nodes_of(size: int, levels: list[Level], usual: int) -> list[Level]:
    """Give a tree of links whose nodes have another size."""
    inner = [level for level in levels if level.name == "package" and level.devices < size]
    made = [
        replace(
            level,
            devices=size if level.name == "node" else level.devices,
            sharers=min(size, level.sharers) if level.sharers == usual else level.sharers,
        )
        for level in levels
        if level.name != "package" and (level.name != "node" or size > 1)
    ]
    return inner + made
