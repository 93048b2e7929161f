"""This machine as a cluster: a device is what a rank has of its CPU cores."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path

from stretto.cluster.device import Device, Power
from stretto.cluster.names import preset
from stretto.cluster.toml import read
from stretto.cluster.value import Cluster, Part


def local(*, devices: int | None = None, threads: int | None = None) -> Cluster:
    """Give this machine as a cluster of its CPU cores.

    Its rates are a usual core's, since nobody has measured them; its memory is this machine's.

    Args:
        devices: Ranks to run; None for one on each core that this process may use. Memory is
            shared evenly among them.
        threads: Cores of a rank; None for an even share.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = devices or cores or 1
    file, tree = preset("cpu")
    usual = read(tree, where=file, devices=count)
    device = _threaded(usual.device, threads or max(1, (cores or 1) // count))
    device = replace(device, name=_cpu_name(), memory_bytes=_memory_bytes() / count)
    return replace(usual, name=platform.node() or "localhost", parts=(Part(device, count),))


def _threaded(core: Device, threads: int) -> Device:
    """Give several cores as one device."""
    power = core.power_w
    watts = (power.idle, power.memory_bound, power.compute_bound)
    return replace(
        core,
        units=core.units * threads,
        flops_per_s=tuple((name, rate * threads) for name, rate in core.flops_per_s),
        memory_bytes_per_s=core.memory_bytes_per_s * threads,
        power_w=Power(*(threads * one for one in watts)),
        price_per_hour=core.price_per_hour * threads,
    )


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
