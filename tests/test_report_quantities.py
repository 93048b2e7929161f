"""Times, money and counts for people."""

from __future__ import annotations

import pytest

from stretto.report.quantities import change, counted, duration, energy, money, step


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2_290_000, "2.29 M USD"), (999.994, "999.99 USD"), (6.8, "6.80 USD"), (0.11, "0.11 USD"),
        (0.0042, "0.0042 USD"), (0, "price unknown"),
    ],
)  # fmt: skip
def test_money_keeps_two_digits_however_little(value: float, text: str) -> None:
    assert money(value) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 meshes"), (1, "1 mesh"), (2, "2 meshes"), (1234, "1,234 meshes")]
)
def test_one_is_not_many(number: int, text: str) -> None:
    assert counted(number, "mesh", "meshes") == text
    assert counted(number, "mesh") == text.replace("meshes", "meshs")


def test_times_have_three_digits() -> None:
    assert [step(s) for s in (0, 9e-4, 0.0175, 0.064, 0.9999, 1.26, 58.31, 1240.4)] == [
        "0 ms", "0.90 ms", "17.5 ms", "64.0 ms", "1.00 s", "1.26 s", "58.3 s", "1,240 s",
    ]  # fmt: skip
    assert [duration(s) for s in (90.0, 7200.0, 3.4 * 86400, 227 * 86400)] == [
        "1 min 30 s", "2 h 00 min", "3.4 days", "227 days",
    ]  # fmt: skip


def test_energy_is_in_watt_hours() -> None:
    assert [energy(j) for j in (3600.0, 3.6e6, 7.884e11)] == ["1 Wh", "1 kWh", "219 MWh"]


def test_a_ratio_is_told_as_a_difference() -> None:
    assert [change(r) for r in (1.072, 0.996, 1.0, 3.5)] == [
        "+7.2 %", "−0.4 %", "+0.0 %", "+250 %",
    ]  # fmt: skip
