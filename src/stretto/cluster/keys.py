"""The keys of a cluster's file: what each states, with which unit, and what may be left out."""

from __future__ import annotations

from collections.abc import Mapping

from stretto.cluster.device import PRECISIONS
from stretto.cluster.table import (
    Key,
    Keys,
    flag,
    level_or_count,
    matrix,
    number,
    numbers,
    quantity,
    table,
    tables,
    text,
    texts,
    tile,
    whole,
)

MATRIX_EFFICIENCY = 0.75
"""The fraction of a peak matrix rate that is sustained, where a file does not say."""

LINK_EFFICIENCY = 0.8
"""The fraction of a link's bandwidth that large messages reach, where a file does not say."""

FILE: Keys = {
    "name": Key("name", text, ""),
    "aliases": Key("aliases", texts, ()),
    "drivers": Key("drivers", texts, ()),
    "accelerator": Key("accelerator", text, ""),
    "devices": Key("devices", whole, None),
    "device": Key("device", table, None),
    "level": Key("levels", tables, ()),
    "part": Key("parts", tables, ()),
    "links": Key("links", table, None),
    "software": Key("software", numbers, {}),
    "prior": Key("prior", numbers, {}),
}

DEVICE: Keys = {
    "name": Key("name", text),
    "memory": Key("memory_bytes", quantity("bytes")),
    "memory_bandwidth": Key("memory_bytes_per_s", quantity("bytes_per_s")),
    "units": Key("units", whole),
    "tile": Key("tile", tile, (128, 128, 64)),
    "launch": Key("launch_s", quantity("s"), 5e-6),
    "host": Key("host", flag, False),
    "price_usd_per_hour": Key("price_per_hour", number),
    "peak": Key("flops_per_s", table),
    "efficiency": Key("efficiency", table, {}),
    "power": Key("power_w", table),
    "source": Key("source", text),
    "sources": Key("sources", table, {}),
}

WITHIN_DEVICE: Mapping[str, Keys] = {
    "peak": {name: Key(name, quantity("flops_per_s"), None) for name in PRECISIONS},
    "efficiency": {name: Key(name, number, None) for name in PRECISIONS},
    "power": {name: Key(name, quantity("w")) for name in ("idle", "memory_bound", "compute_bound")},
    "sources": {name: Key(name, text, None) for name in DEVICE if name not in ("name", "source")},
}
"""The keys of the tables within a device's."""

LEVEL: Keys = {
    "name": Key("name", text),
    "devices": Key("devices", whole),
    "one_way_bandwidth": Key("bytes_per_s", quantity("bytes_per_s")),
    "per": Key("sharers", level_or_count),
    "latency": Key("latency_s", quantity("s")),
    "oversubscription": Key("oversubscription", number, 1.0),
    "rail": Key("rail", flag, False),
    "efficiency": Key("efficiency", number, LINK_EFFICIENCY),
    "source": Key("source", text, ""),
}

LINKS: Keys = {
    "unit": Key("unit", lambda value: quantity("bytes_per_s")(f"1{text(value)}")),
    "rows": Key("rows", matrix),
}

SPELLING: Mapping[str, str] = {
    key.attribute: name for keys in (FILE, DEVICE, LEVEL) for name, key in keys.items()
}
"""How a file spells an attribute."""
