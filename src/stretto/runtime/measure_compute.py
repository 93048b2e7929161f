"""What a device does by itself: matrix products by shape and precision, memory, kernel launches.

Every rank measures at once, on CPUs with the threads that it trains with, so that the rates of the
ranks of a machine add up to what the machine has. Shapes: M rows, N columns, K depth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from stretto.cluster import Sample
from stretto.runtime.measure import Action, Measured, Meter, Rung

Shape = tuple[int, int, int]

SHAPES: tuple[Shape, ...] = (
    (256, 256, 256), (64, 1024, 1024), (512, 512, 512), (1024, 1024, 1024), (256, 4096, 4096),
    (2048, 2048, 2048), (4096, 4096, 1024), (4096, 4096, 4096), (8192, 8192, 8192),
)  # fmt: skip
"""Rows, columns and depth of the products that are timed, from little work to much."""

PRECISIONS = {
    "cpu": ("float32", "bfloat16", "float16", "float64"),
    "cuda": ("bfloat16", "float32", "tensorfloat32", "float16", "float8"),
}
"""What is tried on a type of device."""

_COPIED_BYTES = {"cpu": (1 << 26, 1 << 27), "cuda": (1 << 28, 1 << 30)}
"""Beyond any cache."""

_NEXT_TO_NOTHING = 8
"""Bytes of a copy that takes no longer than its launch."""

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "tensorfloat32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8": torch.float8_e4m3fn,
}


def matrices(meter: Meter, tried: Sequence[str], *, until_s: float) -> Iterator[Measured]:
    """Give how long matrix products take, for each precision of `tried` that the device has."""
    has = tuple(p for p in tried if min(meter.gather(_works(p, meter.device))))
    for precision, end_s in meter.shared(has, until_s=until_s):
        rungs = [_product(shape, precision, meter.device) for shape in SHAPES]
        yield from meter.climb(rungs, until_s=end_s, ranks="apart")


def copies(meter: Meter, *, until_s: float) -> Iterator[Measured]:
    """Give how long copies within the memory take; of a few bytes, what a launch does."""
    launch = _copy(_NEXT_TO_NOTHING, meter.device)
    yield from meter.climb([launch], until_s=meter.now_s, ranks="apart")
    rungs = [_copy(size, meter.device) for size in _COPIED_BYTES[meter.device.type]]
    yield from meter.climb(rungs, until_s=until_s, ranks="apart")


def _product(shape: Shape, precision: str, device: torch.device) -> Rung:
    sample = Sample("matrix", math.nan, precision, shape)
    return Rung(sample, math.prod(shape), lambda: _multiply(shape, precision, device))


def _multiply(shape: Shape, precision: str, device: torch.device) -> Action:
    """Give the action that multiplies two matrices."""
    rows, columns, depth = shape
    dtype = _DTYPES[precision]
    a_MK = torch.randn(rows, depth, device=device).to(dtype)
    b_NK = torch.randn(columns, depth, device=device).to(dtype)
    if precision == "float8":
        one = torch.ones((), device=device)

        def scaled() -> None:
            torch._scaled_mm(a_MK, b_NK.T, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

        return scaled
    out_MN = torch.empty(rows, columns, device=device, dtype=dtype)

    def plain() -> None:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tensorfloat32"
        torch.mm(a_MK, b_NK.T, out=out_MN)

    return plain


def _works(precision: str, device: torch.device) -> bool:
    """Tell whether a device multiplies in a precision."""
    if precision == "tensorfloat32" and not _has_tensorfloat32(device):
        return False  # it would be float32 by another name
    try:
        _multiply((32, 32, 32), precision, device)()
    except RuntimeError:  # what PyTorch says where a device has no kernel for it
        return False
    return True


def _has_tensorfloat32(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def _copy(size_bytes: int, device: torch.device) -> Rung:
    def prepare() -> Action:
        source = torch.zeros(size_bytes, dtype=torch.uint8, device=device)
        target = torch.zeros_like(source)

        def copy() -> None:
            target.copy_(source)

        return copy

    return Rung(Sample("memory", math.nan, size_bytes=2.0 * size_bytes), size_bytes, prepare)
