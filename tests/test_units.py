"""One parser for quantities, one printer for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.errors import InputError
from stretto.units import Quantity, parse, show_bytes, show_count, show_seconds


@pytest.mark.parametrize(
    ("text", "quantity", "value"),
    [
        ("25MiB", "bytes", 26_214_400),
        ("25MB", "bytes", 25_000_000),
        ("8bit", "bytes", 1),
        ("0.5KiB", "bytes", 512),
        (".5kB", "bytes", 500),
        (" 3 B ", "bytes", 3),
        ("2e3B", "bytes", 2000),
        ("-1B", "bytes", -1),
        ("200Gbit/s", "bytes_per_s", 25e9),
        ("25GB/s", "bytes_per_s", 25e9),
        ("1.5TFLOP", "flops", 1.5e12),
        ("989TFLOP/s", "flops_per_s", 989e12),
        ("1.5us", "s", 1.5e-6),
        ("1.5µs", "s", 1.5e-6),
        ("3ms", "s", 3e-3),
        ("2min", "s", 120),
        ("1h", "s", 3600),
        ("700W", "w", 700),
        ("1.2kW", "w", 1200),
        ("4.3MJ", "j", 4.3e6),
        ("2kWh", "j", 7.2e6),
    ],
)
def test_a_number_with_a_unit_is_read_in_the_base_unit(
    text: str, quantity: Quantity, value: float
) -> None:
    assert parse(text, quantity) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        ("25", "bytes"),
        ("MiB", "bytes"),
        ("", "bytes"),
        ("25 parsecs", "bytes"),
        ("25MiB/s", "bytes"),
        ("25MiB", "bytes_per_s"),
        ("25TFLOP", "flops_per_s"),
        ("3s", "bytes"),
        ("3B", "s"),
        ("1e400B", "bytes"),
        ("1e308TB", "bytes"),
        ("nanB", "bytes"),
        ("infB", "bytes"),
        ("1 000B", "bytes"),
    ],
)
def test_anything_else_is_refused_with_an_example(text: str, quantity: Quantity) -> None:
    with pytest.raises(InputError) as error:
        parse(text, quantity, field="link.bandwidth")
    (problem,) = error.value.problems
    assert problem.field == "link.bandwidth"
    assert problem.rule == f"{text!r} is not a number with a unit of {quantity}"
    example = problem.remedy.removeprefix("write ").split(" or ")[0]
    assert parse(example, quantity) > 0


@given(st.integers(1, 10**15))
def test_shown_bytes_read_back_within_half_a_percent(value: int) -> None:
    assert parse(show_bytes(value), "bytes") == pytest.approx(value, rel=0.005)


def test_bytes_are_shown_in_binary_units() -> None:
    assert [show_bytes(v) for v in (0, 1023, 1024, 1.5 * 2**30, 2**41, -2048)] == [
        "0 B", "1023 B", "1.00 KiB", "1.50 GiB", "2.00 TiB", "-2.00 KiB",
    ]  # fmt: skip


def test_counts_are_shown_in_decimal_steps() -> None:
    shown = [show_count(v) for v in (7, 999, 1234, 999_400, 999_600, 10_500_000, 7e9, 2e12)]
    assert shown == ["7", "999", "1.23 k", "999 k", "1 M", "10.5 M", "7 G", "2 T"]


def test_durations_are_shown_as_people_say_them() -> None:
    shown = [show_seconds(v) for v in (0.017, 0.99999, 4.2, 59.99, 185, 3599.9, 3720)]
    assert shown == ["17 ms", "1.0 s", "4.2 s", "1 min 00 s", "3 min 05 s", "1 h 00 min",
                     "1 h 02 min"]  # fmt: skip
