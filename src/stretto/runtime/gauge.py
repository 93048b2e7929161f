"""What a rank reads off its machine: time, memory held, and counts of what went wrong.

On an accelerator a look at the clock is an event on the stream, for which nobody waits.
"""

from __future__ import annotations

import math
import os
import resource
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch

Mark = Any
"""A look at the clock: seconds, or an event on the device's stream."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a process has counted since it began; see `stretto.timeline.recorded.Counters`."""

    major_faults: int
    minor_faults: int
    alloc_retries: int

    def since(self, before: Counts) -> dict[str, int]:
        """Give what was counted since, by name."""
        return {f.name: getattr(self, f.name) - getattr(before, f.name) for f in fields(self)}


class Gauge(Protocol):
    """Clock, memory and counters of a rank."""

    @property
    def now(self) -> Callable[[], Mark]:
        """What looks at the clock."""

    def held_bytes(self) -> int:
        """Give what is held."""

    def counts(self) -> Counts:
        """Give what has been counted."""

    def seconds(self, zero: Mark, mark: Mark) -> float:
        """Give the seconds from one look to another; NaN for none, or one that has not come."""


def machine() -> str:
    """Give what ranks with the same clock have in common: this start of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def gauge(device: torch.device) -> Gauge:
    """Give the gauge of a device."""
    return DeviceGauge(device) if device.type == "cuda" else HostGauge()


class HostGauge:
    """A process: its resident set."""

    now = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        """Open what the kernel tells; it stays open as long as the process."""
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)

    def held_bytes(self) -> int:
        """Give the resident set."""
        return int(os.pread(self._statm, 64, 0).split()[1]) * self._page

    def counts(self) -> Counts:
        """Give the faults of the process."""
        use = resource.getrusage(resource.RUSAGE_SELF)
        return Counts(use.ru_majflt, use.ru_minflt, 0)

    def seconds(self, zero: Mark, mark: Mark) -> float:
        """Give the seconds between two looks."""
        return math.nan if mark is None else float(mark - zero)


class DeviceGauge:
    """An accelerator: what tensors hold there."""

    def __init__(self, device: torch.device) -> None:
        """Name the device."""
        self._device = device

    def now(self) -> Mark:
        """Have the stream look at the clock when it comes here."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def held_bytes(self) -> int:
        """Give what tensors hold."""
        return torch.cuda.memory_allocated(self._device)

    def counts(self) -> Counts:
        """Give the faults of the process, and the retries of the allocator."""
        use = resource.getrusage(resource.RUSAGE_SELF)
        retries = torch.cuda.memory_stats(self._device)["num_alloc_retries"]
        return Counts(use.ru_majflt, use.ru_minflt, int(retries))

    def seconds(self, zero: Mark, mark: Mark) -> float:
        """Give the seconds on the stream; NaN if it has not come to the second look."""
        if mark is None or not mark.query():
            return math.nan
        return float(zero.elapsed_time(mark)) / 1e3
