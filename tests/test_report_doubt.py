"""What is said where steps do not take what was predicted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.test_report import RECORD

from stretto.report.doubt import OFF, WHILE, Doubt
from stretto.report.words import cells


def said(times_s: Iterable[float], predicted_s: float | None) -> list[str | None]:
    doubt = Doubt(Path("runs/a"))
    record = replace(RECORD, predicted_s=predicted_s)
    return [doubt(replace(record, step_s=seconds)) for seconds in times_s]


@pytest.mark.parametrize("ratio", [0.5, 0.79, 1.26, 3.0])
def test_steps_that_are_far_from_predicted_for_a_while_are_told_of_once(ratio: float) -> None:
    found = said([0.4 * ratio] * 3 * WHILE, 0.4)
    assert [i for i, hint in enumerate(found) if hint] == [WHILE - 1]


def test_the_hint_says_both_times_and_what_to_do() -> None:
    *_, hint = said([0.412] * WHILE, 0.2)
    assert hint == (
        "note: steps take 412 ms, predicted 200 ms; `stretto calibrate runs/a` learns from it"
    )


@pytest.mark.parametrize("ratio", [1 / OFF + 0.001, 1.0, OFF - 0.001])
def test_steps_that_are_near_are_not(ratio: float) -> None:
    assert not any(said([0.4 * ratio] * 3 * WHILE, 0.4))


def test_a_few_long_steps_are_not() -> None:
    assert not any(said(([0.4] * 7 + [40.0]) * WHILE, 0.4))


def test_a_run_of_which_nothing_is_predicted_has_no_doubts() -> None:
    assert not any(said([0.4] * 3 * WHILE, None))


def test_a_line_has_what_was_predicted_beside_what_was_measured() -> None:
    assert "412 ms, predicted 400 ms" in cells(replace(RECORD, step_s=0.412, predicted_s=0.4), None)
    assert not any("predicted" in cell for cell in cells(RECORD, None))
