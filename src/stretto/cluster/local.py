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
        devices: Ranks to run; None for one on each core that this process may use. They share its
            memory evenly, and its cores where those are fewer.
        threads: Cores of a rank; None for an even share.
    """
    cores = _cores()
    count = devices or cores
    file, tree = preset("cpu")
    usual = read(tree, where=file, devices=count)
    share = cores // count if count <= cores else cores / count
    device = _with_cores(usual.device, threads or share)
    device = replace(device, name=_cpu_name(), memory_bytes=_memory_bytes() / count)
    return replace(usual, name=platform.node() or "localhost", parts=(Part(device, count),))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _with_cores(core: Device, cores: float) -> Device:
    """Give several cores, or a share of one, as a device."""
    power = core.power_w
    watts = (power.idle, power.memory_bound, power.compute_bound)
    return replace(
        core,
        units=core.units * max(1, int(cores)),
        flops_per_s=tuple((name, rate * cores) for name, rate in core.flops_per_s),
        memory_bytes_per_s=core.memory_bytes_per_s * cores,
        launch_s=core.launch_s / min(1.0, cores),
        power_w=Power(*(cores * one for one in watts)),
        price_per_hour=core.price_per_hour * cores,
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
