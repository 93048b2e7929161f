"""How often to save."""

from __future__ import annotations

import math

import pytest
from tests.forecast.cases import DAY, HOUR, crashes, training

from stretto.forecast import Checkpoint, Failures, Recovery
from stretto.forecast.interval import daly_s, expected_s, intervals, young_s

MINUTE = 60.0


@pytest.mark.parametrize(
    ("mtbf_s", "minutes"), [(24 * HOUR, 117), (6 * HOUR, 57), (0.25 * HOUR, 9.1)]
)
def test_dalys_best_intervals_are_those_of_his_figures(mtbf_s: float, minutes: float) -> None:
    # Daly, 2006, figures 3 to 5: checkpoints of 5 min.
    found = daly_s(blocking_s=5 * MINUTE, mtbf_s=mtbf_s) / MINUTE
    assert found == pytest.approx(minutes, abs=0.5 if minutes > 10 else 0.05)


def test_youngs_best_interval_is_the_root_of_twice_cost_and_time_between_failures() -> None:
    # √(2 · 5 min · 1,440 min) = 120 min
    assert young_s(blocking_s=5 * MINUTE, mtbf_s=24 * HOUR) == pytest.approx(120 * MINUTE)


def test_where_saving_takes_longer_than_two_failures_daly_saves_once_between_them() -> None:
    assert daly_s(blocking_s=30.0, mtbf_s=15.0) == 15.0


@pytest.mark.parametrize("mtbf_s", [24 * HOUR, 6 * HOUR, 0.25 * HOUR])
def test_no_interval_is_expected_to_be_better_than_dalys_by_a_thousandth(mtbf_s: float) -> None:
    def expected(every_s: float) -> float:
        return expected_s(
            500 * HOUR, every_s=every_s, blocking_s=300.0, restart_s=600.0, mtbf_s=mtbf_s
        )

    best = daly_s(blocking_s=300.0, mtbf_s=mtbf_s)
    tried = [best * 1.02**i for i in range(-100, 101)]
    assert expected(best) <= min(map(expected, tried)) * 1.001


@pytest.mark.parametrize("blocking_s", [10.0, 120.0])
def test_the_interval_that_is_found_by_playing_is_as_good_as_dalys(blocking_s: float) -> None:
    setup = training(100 * DAY, Checkpoint(1.0, blocking_s=blocking_s), Recovery(schedule_s=300.0))
    found = intervals(setup, crashes(6 * HOUR), runs=100)
    assert found.daly_s == pytest.approx(daly_s(blocking_s=blocking_s, mtbf_s=6 * HOUR))
    assert found.flat_s[0] <= found.daly_s <= found.flat_s[1]
    assert max(found.goodput) - found.at(found.daly_s) < 0.0005
    assert found.goodput[0] < max(found.goodput) > found.goodput[-1]


def test_intervals_are_whole_steps_and_no_shorter_than_storing_takes() -> None:
    setup = training(10 * DAY, Checkpoint(500.0, blocking_s=0.1, background_s=437.5))
    found = intervals(setup, crashes(6 * HOUR), runs=5)
    assert min(found.every_s) == 438
    assert all(every == int(every) for every in found.every_s)


def test_what_is_planned_says_nothing_about_how_often_to_save() -> None:
    from tests.forecast.cases import component

    from stretto.forecast import Shows

    both = Failures(
        "both",
        components=(component(DAY), component(HOUR, name="planned", shows=Shows.PLANNED)),
    )
    found = intervals(training(DAY, Checkpoint(1.0, blocking_s=1.0)), both, runs=3)
    assert found.mtbf_s == pytest.approx(DAY)


def test_where_nothing_fails_one_checkpoint_is_best() -> None:
    setup = training(DAY, Checkpoint(1.0, blocking_s=10.0))
    found = intervals(setup, Failures("none"), runs=2)
    assert found.best_s == DAY and math.isinf(found.young_s) and math.isinf(found.daly_s)
