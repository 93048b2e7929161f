"""Kernels: rooflines, tiles and waves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cost.cases import CLUSTERS, IDEAL, machine, n

from stretto.cost import Machine
from stretto.cost.kernels import attention_s, matmul_s, memory_s

H100 = machine("h100", 8)
SIZE = st.integers(1, 20_000).map(float)
PRECISION = st.integers(0, 3).map(float)


def seconds(
    rows: float, columns: float, depth: float, *, on: Machine = H100, precision: float = 1
) -> float:
    wanted = {"depth": n(depth), "machine": on, "precision": n(precision)}
    return float(matmul_s(n(rows), n(columns), **wanted))


@pytest.mark.parametrize("name", CLUSTERS)
@pytest.mark.parametrize("precision", [0, 1, 2])
def test_a_huge_product_reaches_the_rate_of_its_precision(name: str, precision: float) -> None:
    device, size = machine(name, 8), 2.0**18
    rate = 2 * size**3 / seconds(size, size, size, on=device, precision=precision)
    assert 0.99 < rate / device.matrix(n(precision)) <= 1


def test_one_tile_more_than_a_full_wave_costs_more_than_its_flops() -> None:
    """Of 132 units, 131 wait for one; a deep product between fast memories shows nothing else."""
    bare = replace(H100, memory_bytes_per_s=n(np.inf))
    rows, columns, depth = float(H100.tile_m), float(H100.tile_n * H100.units), 2.0**20
    wave = seconds(rows, columns, depth, on=bare)
    assert wave == pytest.approx(2 * rows * columns * depth / float(H100.matrix(n(1))), rel=1e-3)
    assert 1.1 < seconds(rows, columns + 1, depth, on=bare) / wave < 2


@given(SIZE, SIZE, SIZE, PRECISION)
def test_no_product_is_faster_than_its_flops_or_its_bytes(
    rows: float, columns: float, depth: float, precision: float
) -> None:
    took = seconds(rows, columns, depth, precision=precision)
    least = 1 if precision > 1 else 2
    moved = least * (rows * depth + depth * columns) + 2 * rows * columns
    assert took >= 2 * rows * columns * depth / H100.matrix(n(precision)) * (1 - 1e-12)
    assert took >= moved / H100.memory_bytes_per_s * (1 - 1e-12)


@given(SIZE, SIZE, SIZE, SIZE)
def test_more_rows_or_more_depth_are_never_faster(
    rows: float, columns: float, depth: float, more: float
) -> None:
    one = seconds(rows, columns, depth)
    assert one <= seconds(rows + more, columns, depth) * (1 + 1e-12)
    assert one <= seconds(rows, columns, depth + more) * (1 + 1e-12)


@given(SIZE, SIZE, SIZE)
def test_without_tiles_and_bytes_a_product_takes_what_its_flops_take(
    rows: float, columns: float, depth: float
) -> None:
    flops = 2 * rows * columns * depth
    assert seconds(rows, columns, depth, on=IDEAL) == pytest.approx(flops / IDEAL.matrix(n(1)))


def test_a_product_with_one_row_takes_the_time_of_reading_its_matrix() -> None:
    moved = 2 * (8192 + 8192 * 8192) + 2 * 8192
    assert seconds(1, 8192, 8192) == pytest.approx(moved / float(H100.memory_bytes_per_s))


def test_eight_bits_gain_less_on_shallow_products() -> None:
    """The start and end of a tile take as long in every precision."""

    def gain(depth: float) -> float:
        return seconds(8192, 8192, depth) / seconds(8192, 8192, depth, precision=2)

    assert gain(1024) < gain(4096) < gain(65_536)


def attention(tokens: float, attended: float, *, heads: float = 8, width: float = 256) -> float:
    wanted = {"heads": n(heads), "width": n(width), "rate": n(1e14), "ramp": n(100)}
    return float(attention_s(n(tokens), n(attended), **wanted))


def test_attention_over_long_rows_takes_what_its_flops_take() -> None:
    """2·tokens·heads·(key + value width) for each position attended to: half of causal ones."""
    seq, heads = 2.0**20, 8
    flops = 4 * heads * 128 * seq * (seq + 1) / 2
    assert attention(seq, (seq + 1) / 2) == pytest.approx(flops / 1e14, rel=1e-3)


@given(st.floats(1, 1e5), st.floats(1, 1e5), st.sampled_from((64.0, 96.0, 192.0)))
def test_short_rows_and_narrow_heads_attend_at_a_lower_rate(
    attended: float, more: float, width: float
) -> None:
    short, long = attention(1, attended) / attended, attention(1, attended + more)
    assert short >= long / (attended + more) * (1 - 1e-12)
    assert attention(1, attended, width=width) / width > attention(1, attended) / 256


def test_memory_moves_bytes_at_the_rate_of_large_copies() -> None:
    slow = replace(H100, memory_bytes_per_s=n(2e12))
    assert memory_s(np.asarray([1e12, 3e12]), slow).tolist() == [0.5, 1.5]
