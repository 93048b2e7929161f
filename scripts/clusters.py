"""Renews the tables of presets in docs/clusters.md: ``python -m scripts.clusters``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stretto.cluster import Cluster, Level, find, names
from stretto.cluster.names import preset
from stretto.units import parse, show_count

PAGE = Path(__file__).parents[1] / "docs" / "clusters.md"
BEGIN, END = "<!-- begin: python -m scripts.clusters -->\n", "<!-- end -->\n"
_MANY = 2**14  # devices with which every level is there


def page(text: str) -> str:
    """Give the page with its tables renewed."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return head + BEGIN + "\n" + "\n".join(_tables()) + "\n" + END + tail


def _tables() -> Iterator[str]:
    systems = [name for name in names() if {"devices", "part"} & preset(name)[1].keys()]
    kinds = [name for name in names() if name not in systems]
    yield from _rows(
        ("accelerator", "also", "memory GiB", "TB/s", "16-bit TFLOP/s", "units", "limit W",
         "USD/h", "links, one way"),
        (_kind(name) for name in kinds),
    )  # fmt: skip
    yield ""
    yield from _rows(("system", "devices", "links, one way"), (_system(n) for n in systems))


def _kind(name: str) -> tuple[str, ...]:
    cluster, aliases = find(name, devices=_MANY), preset(name)[1].get("aliases", ())
    device, rates = cluster.device, dict(cluster.device.flops_per_s)
    half = rates.get("bfloat16", rates.get("float16", 0)) / 1e12
    return (
        f"`{name}`", ", ".join(f"`{alias}`" for alias in aliases),
        f"{device.memory_bytes / parse('1GiB', 'bytes'):.2f}",
        f"{device.memory_bytes_per_s / 1e12:.3g}", f"{half:g}", str(device.units),
        f"{device.power_w.compute_bound:g}", f"{device.price_per_hour:.2f}", _links(cluster),
    )  # fmt: skip


def _system(name: str) -> tuple[str, ...]:
    cluster = find(name)
    parts = " + ".join(f"{part.devices} {part.device.name}" for part in cluster.parts)
    return f"`{name}`", parts, _links(cluster)


def _links(cluster: Cluster) -> str:
    return "; ".join(_link(level, last=level is cluster.levels[-1]) for level in cluster.levels)


def _link(level: Level, *, last: bool) -> str:
    many = "" if last else f" of {level.devices}"
    shared = f" for {level.sharers}" if level.sharers > 1 else ""
    over = f", {level.oversubscription:g}:1" if level.oversubscription > 1 else ""
    return f"{level.name}{many}: {show_count(level.bytes_per_s)}B/s{shared}{over}"


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
