"""A cluster as the TOML that it is read from, with a word on each table for who edits it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stretto.cluster.device import Device
from stretto.cluster.link import Level, common
from stretto.cluster.value import Cluster
from stretto.units import Quantity, parse

_UNITS: Mapping[Quantity, tuple[str, ...]] = {
    "bytes": ("GiB", "GB", "MiB", "B"),
    "bytes_per_s": ("TB/s", "GB/s", "Gbit/s", "MB/s", "B/s"),
    "flops_per_s": ("TFLOP/s", "GFLOP/s", "FLOP/s"),
    "s": ("us", "ms", "s"),
    "w": ("W",),
    "j": ("J",),
}


def dumps(cluster: Cluster) -> str:
    """Give the cluster as TOML that gives it back, to the last bit."""
    lines = [
        "# Every constant has its unit. A bandwidth is of one link in one direction, and `per`",
        "# says what shares the link.",
        "",
        _line("name", cluster.name),
    ]
    if len(cluster.parts) == 1:
        lines += [_line("devices", cluster.devices)]
        lines += [*_device(cluster.device, ""), *_levels(cluster.levels, ())]
    else:
        for part in cluster.parts:
            lines += ["", "[[part]]", _line("devices", part.devices)]
            lines += [*_device(part.device, "part."), *_levels(part.levels, (), "part.")]
        inner = common([part.levels for part in cluster.parts])
        lines += _levels(cluster.levels[len(inner) :], inner)
    lines += _links(cluster.links)
    if cluster.software:
        lines += ["", "[software]  # our own runtime, as measured here"]
        lines += [_line(name, value) for name, value in cluster.software]
    if cluster.prior:
        lines += ["", "[prior]  # what was calibrated, as it was before; in SI units"]
        lines += [_line(json.dumps(name), value) for name, value in cluster.prior]
    return "\n".join(lines) + "\n"


def spelt(value: float, quantity: Quantity) -> str:
    """Give a quantity in the unit that spells it shortest, to the last bit; from 1 on if it can."""
    exact: dict[str, bool] = {}
    for unit in _UNITS[quantity]:
        number = value / parse(f"1{unit}", quantity)
        for text in (f"{number:.12g}{unit}", f"{number:.17g}{unit}"):
            if parse(text, quantity) == value:
                exact[text] = number < 1
    return min(exact, key=lambda text: (exact[text], len(text)))


def _device(device: Device, within: str) -> Iterator[str]:
    yield from ("", f"[{within}device]", _line("name", device.name))
    yield _line("memory", spelt(device.memory_bytes, "bytes"))
    yield _line("memory_bandwidth", spelt(device.memory_bytes_per_s, "bytes_per_s"))
    yield _line("units", device.units)
    yield _line("tile", list(device.tile))
    yield _line("launch", spelt(device.launch_s, "s"))
    if device.host:
        yield _line("host", True)
    yield _line("price_usd_per_hour", device.price_per_hour)
    if device.source:
        yield _line("source", device.source)
    yield from ("", f"[{within}device.peak]  # dense, never with sparsity")
    yield from (_line(name, spelt(value, "flops_per_s")) for name, value in device.flops_per_s)
    yield from ("", f"[{within}device.efficiency]  # of the peak, in a very large product")
    yield from (_line(name, value) for name, value in device.efficiency)
    yield from ("", f"[{within}device.power]")
    for name in ("idle", "memory_bound", "compute_bound"):
        yield _line(name, spelt(getattr(device.power_w, name), "w"))
    if device.sources:
        yield from ("", f"[{within}device.sources]  # where single constants are from")
        yield from (_line(name, source) for name, source in device.sources)


def _levels(levels: Sequence[Level], inner: Sequence[Level], within: str = "") -> Iterator[str]:
    names = {level.devices: level.name for level in (*inner, *levels)} | {1: "device"}
    for level in levels:
        yield from ("", f"[[{within}level]]", _line("name", level.name))
        yield _line("devices", level.devices)
        yield _line("one_way_bandwidth", spelt(level.bytes_per_s, "bytes_per_s"))
        inside = level.sharers <= level.devices and level.sharers in names
        yield _line("per", names[level.sharers] if inside else level.sharers)
        yield _line("latency", spelt(level.latency_s, "s"))
        yield _line("oversubscription", level.oversubscription)
        yield _line("rail", level.rail)
        yield _line("efficiency", level.efficiency)
        if level.source:
            yield _line("source", level.source)


def _links(links: Sequence[Sequence[float]]) -> Iterator[str]:
    if not links:
        return
    exact = all(one / 1e9 * 1e9 == one for row in links for one in row)
    unit, factor = ("GB/s", 1e9) if exact else ("B/s", 1.0)
    yield from ("", "[links]  # measured: row to column, one way", _line("unit", unit), "rows = [")
    yield from (f"    {json.dumps([one / factor for one in row])}," for row in links)
    yield "]"


def _line(key: str, value: Any) -> str:
    # A JSON value is a TOML value, but for the one control character that JSON lets stand.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
