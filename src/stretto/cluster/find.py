"""Which cluster is meant: a preset and a number of devices, or a file."""

from __future__ import annotations

from pathlib import Path

from stretto.cluster.names import preset, split
from stretto.cluster.toml import load, read
from stretto.cluster.value import Cluster
from stretto.errors import ClusterError, Problem


def find(text: str, *, devices: int | None = None) -> Cluster:
    """Give the cluster that `text` means.

    Args:
        text: ``h100x64``, ``frontier``, ``frontierx1024``, or a TOML file.
        devices: How many devices, where `text` does not say.

    Raises:
        ClusterError: There is none; the nearest names. Or all that is wrong with its file.
    """
    if text.endswith(".toml"):
        return load(Path(text), devices=devices)
    if "/" in text:
        remedy = "name a file that ends in .toml, or a preset"
        raise ClusterError(Problem("cluster", f"{text} is no cluster's file", remedy))
    name, stated = split(text)
    if stated is not None and devices not in (None, stated):
        raise ClusterError(
            Problem("cluster", f"{text} has {stated} devices, not {devices}", "state one number")
        )
    count = devices if stated is None else stated
    file, tree = preset(name)
    if count is not None and count < 1:
        raise ClusterError(Problem("cluster", f"{text} has {count} devices", "use 1 or more"))
    if count is None and "devices" not in tree and "part" not in tree:
        rule = f"{tree['name']} is an accelerator, of which there can be any number"
        raise ClusterError(Problem("cluster", rule, f"say how many: {text}x8"))
    return read(tree, where=file, devices=count)
