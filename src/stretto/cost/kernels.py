"""Seconds of what runs on one device."""

from __future__ import annotations

import numpy as np

from stretto.cost.machine import Machine
from stretto.cost.numbers import Number, ceil_div

WAVE = 0.35
"""Share of a last, partly filled wave of tiles that is lost: libraries pick other tiles or split
the depth where whole waves would waste much (Osama et al., 2023)."""


def matmul_s(
    rows: Number, columns: Number, *, depth: Number, machine: Machine, precision: Number
) -> Number:
    """Give the seconds of a (rows × depth)·(depth × columns) product.

    A roofline (Williams et al., 2009) whose compute side knows that the output is made in tiles,
    that tiles run in waves over the units, and that each tile spends the time of `ramp` more steps
    of depth on its start and end. The ramp takes as long in every precision, so that a faster one
    has a longer ramp.
    """
    rate = machine.matrix(precision)
    tiles = ceil_div(rows, machine.tile_m) * ceil_div(columns, machine.tile_n)
    waves = tiles / machine.units
    filled = waves + WAVE * (np.ceil(waves) - waves)
    padded = filled * machine.units * machine.tile_m * machine.tile_n
    exact = rows * columns
    # Half of what a ragged edge pads is won back by smaller tiles.
    area = np.maximum(exact, (exact + padded) / 2)
    ramp = machine.ramp * rate / machine.matrix_flops_per_s[1]
    compute = 2 * area * (depth + ramp) / rate
    width = np.where(precision >= 2, 1.0, np.where(precision == 0, 4.0, 2.0))
    moved = width * (rows * depth + depth * columns) + 2 * exact
    return np.maximum(compute, moved / machine.memory_bytes_per_s)


def attention_s(
    tokens: Number,
    attended: Number,
    *,
    heads: Number,
    width: Number,
    rate: Number,
    ramp: Number,
) -> Number:
    """Give the seconds of fused attention's forward pass (Dao, 2023).

    Args:
        tokens: Queries.
        attended: Positions that each attends to, in the mean.
        heads: Query heads here.
        width: Width of a key plus that of a value.
        rate: FLOPs per second that it reaches with long rows and heads of 128.
        ramp: Positions that the start and end of a row of blocks cost.
    """
    # Narrow heads leave the softmax, which does not shrink with them, to be waited for.
    narrow = (width + 96.0) / width / ((256.0 + 96.0) / 256.0)
    return 2 * tokens * heads * width * (attended + ramp) * narrow / rate


def memory_s(size_bytes: Number, machine: Machine) -> Number:
    """Give the seconds in which memory moves `size_bytes`."""
    return size_bytes / machine.memory_bytes_per_s
