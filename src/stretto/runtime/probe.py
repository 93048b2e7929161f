"""What this rank's device can do, measured where no data sheet says."""

from __future__ import annotations

import resource
import time

import torch

from stretto.cluster import accelerator, of_driver

_SIDE = 1024


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Give the peak rate of matrix products in FLOP/s: the data sheet's, else the best of some.

    On CPUs every rank measures at once, with the threads that it trains with, so that the rates of
    the ranks of a machine add up to what the machine has.
    """
    if device.type == "cuda":
        known = of_driver(torch.cuda.get_device_name(device))
        rates = dict(accelerator(known).flops_per_s) if known else {}
        key = str(dtype).removeprefix("torch.")
        if key in rates:
            return rates[key]
    a = torch.randn(_SIDE, _SIDE, device=device).to(dtype)
    best = float("inf")
    for _ in range(6):
        _settle(device)
        began = time.perf_counter()
        a @ a
        _settle(device)
        best = min(best, time.perf_counter() - began)
    return 2.0 * _SIDE**3 / best


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int:
    """Give the most memory that this rank has held: of the device, or of the process on CPUs."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
