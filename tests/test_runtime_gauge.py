"""What a rank reads off its machine."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from stretto.runtime.gauge import Counts, DeviceGauge, HostGauge, gauge, machine


def test_a_process_knows_its_memory_and_its_faults() -> None:
    here = gauge(torch.device("cpu"))
    assert isinstance(here, HostGauge)
    before, counted = here.held_bytes(), here.counts()
    block = bytearray(os.urandom(1)) * (64 << 20)
    assert here.held_bytes() - before > 60 << 20
    assert here.counts().since(counted)["minor_faults"] > 0
    del block


def test_seconds_lie_between_two_looks() -> None:
    here = HostGauge()
    zero = here.now()
    assert here.seconds(zero, zero + 1.5) == pytest.approx(1.5)
    assert math.isnan(here.seconds(zero, None))


def test_counts_are_told_since_the_last_ones() -> None:
    before, after = Counts(1, 10, 0), Counts(3, 14, 2)
    assert after.since(before) == {"major_faults": 2, "minor_faults": 4, "alloc_retries": 2}


@dataclass
class Event:
    """An event of a stream on which nothing else is."""

    enable_timing: bool
    at_ms: float = 0.0
    reached: bool = False

    def record(self) -> None:
        self.reached = True

    def query(self) -> bool:
        return self.reached

    def elapsed_time(self, other: Event) -> float:
        return other.at_ms - self.at_ms


def test_on_an_accelerator_what_the_stream_has_not_come_to_has_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    there = DeviceGauge(torch.device("cuda"))
    zero, later = there.now(), there.now()
    later.at_ms = 250.0
    assert there.seconds(zero, later) == 0.25
    assert math.isnan(there.seconds(zero, Event(enable_timing=True)))
    assert math.isnan(there.seconds(zero, None))


def test_ranks_of_a_machine_have_one_clock() -> None:
    assert machine() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
