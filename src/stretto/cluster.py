"""The cluster: what devices there are. Data, each constant with its source."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Device:
    """A kind of device.

    Attributes:
        name: What it is called.
        memory_bytes: Memory that a rank may fill.
        flops_per_s: Peak matrix rate by precision; empty where it has to be measured.
        source: Where the numbers are from.
    """

    name: str
    memory_bytes: float
    flops_per_s: tuple[tuple[str, float], ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Devices that train together.

    Attributes:
        name: What it is called.
        device: Their kind.
        devices: How many.
    """

    name: str
    device: Device
    devices: int


_DENSE = "NVIDIA data sheet, dense tensor-core rate"
ACCELERATORS: Mapping[str, Device] = {
    "A100": Device("A100", 80e9, (("bfloat16", 312e12), ("float32", 19.5e12)), _DENSE),
    "H100": Device("H100", 80e9, (("bfloat16", 989e12), ("float32", 67e12)), _DENSE),
    "H200": Device("H200", 141e9, (("bfloat16", 989e12), ("float32", 67e12)), _DENSE),
    "B200": Device("B200", 180e9, (("bfloat16", 2250e12), ("float32", 75e12)), _DENSE),
}
"""Accelerators by a word of the name that their driver gives."""


def local(*, devices: int | None = None) -> Cluster:
    """Give this machine as a cluster of its CPU cores.

    Args:
        devices: Ranks to run; None for one on each core that this process may use. Memory is
            shared evenly among them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = devices or cores or 1
    device = Device(_cpu_name(), _memory_bytes() / count, source="this machine")
    return Cluster(platform.node() or "localhost", device, count)


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> float:
    """What is free for use, within the control group's limit."""
    limits = [float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(float(Path(name).read_text()))
        except (OSError, ValueError):
            continue
    return min(limits)
