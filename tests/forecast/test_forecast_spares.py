"""What spare nodes are worth, and what a training costs."""

from __future__ import annotations

import numpy as np
import pytest
from tests.forecast.cases import DAY, HOUR, Script, crashes, scripted, training

from stretto.forecast import Checkpoint, Failures, Needs, Recovery, Spares
from stretto.forecast.spares import Price, counts, enough, nodes_away, with_spares
from stretto.forecast.toml import find

SLOW = Recovery(schedule_s=100.0, reset_s=900.0, repair_s=DAY)


def test_nodes_are_away_as_often_as_they_fail_for_as_long_as_they_are_repaired() -> None:
    setup = training(30 * DAY, Checkpoint(600.0), SLOW)
    assert nodes_away(setup, crashes(6 * HOUR, Needs.REPAIR)) == pytest.approx(4)
    assert nodes_away(setup, crashes(HOUR, Needs.RESET)) == pytest.approx(0.25)
    assert nodes_away(setup, crashes(HOUR, Needs.RESTART)) == 0


def test_enough_are_as_many_as_are_away_but_for_one_hour_in_a_hundred() -> None:
    # Poisson's distribution of mean 4: 97.9 % of the time 8 are away or fewer, 99.2 % 9 or fewer.
    setup = training(30 * DAY, Checkpoint(600.0), SLOW)
    assert enough(setup, crashes(6 * HOUR, Needs.REPAIR)) == 9
    assert enough(setup, crashes(HOUR, Needs.RESET)) == 2  # of mean 0.25: 97.4 % and 99.8 %
    assert enough(setup, crashes(HOUR, Needs.RESTART)) == 0
    assert enough(setup, Failures("nothing")) == 0


def test_numbers_worth_comparing_go_well_beyond_the_nodes_that_are_away() -> None:
    setup = training(30 * DAY, Checkpoint(600.0), SLOW)
    assert counts(setup, crashes(6 * HOUR, Needs.REPAIR)) == (0, 1, 2, 4, 8, 16)
    assert counts(setup, crashes(HOUR)) == (0, 1, 2, 4)


def test_more_spares_help_until_there_are_enough() -> None:
    setup = training(30 * DAY, Checkpoint(600.0), SLOW)
    failures = crashes(6 * HOUR, Needs.REPAIR)
    found = with_spares(setup, failures, nodes=(0, 2, 16, 32), runs=50)
    goodput = [float(f.goodput.mean()) for f in found]
    assert goodput[0] < goodput[1] - 0.05 < goodput[2] - 0.1
    assert goodput[2] == pytest.approx(goodput[3], abs=0.001)
    assert [f.setup.spares for f in found] == [Spares(hot=n) for n in (0, 2, 16, 32)]


def test_warm_spares_are_compared_as_warm_ones() -> None:
    setup = training(DAY, Checkpoint(600.0), SLOW, spares=Spares(warm=3))
    (found,) = with_spares(setup, crashes(DAY), nodes=(2,), runs=2)
    assert found.setup.spares == Spares(warm=2)


def test_money_is_paid_for_every_second_of_every_device_and_spare() -> None:
    # 1,000 s and ten stops of 10 s on 32 devices and a spare node of 8: 1,100 · 40 device-seconds.
    saved = Checkpoint(100.0, blocking_s=10.0)
    setup = training(1000, saved, spares=Spares(hot=1))
    forecast = scripted(Script([]), setup, crashes(1.0))
    assert Price(device_s=0.01).money(forecast) == pytest.approx(440)


def test_energy_is_of_steps_lost_or_not_and_of_waiting() -> None:
    # 1,000 steps and 50 lost ones of 2 J; 100 s of snapshots, 5 s of the lost one's, 100 s of
    # restart at 32 · 3 W; a spare node of 8 devices for all of the 1,255 s.
    saved = Checkpoint(100.0, blocking_s=10.0)
    setup = training(1000, saved, Recovery(schedule_s=100.0), spares=Spares(hot=1))
    forecast = scripted(Script([160.0]), setup, crashes(1.0))
    assert forecast.finish_s[0] == pytest.approx(1250)
    expected = 1050 * 2 + 200 * 32 * 3 + 1250 * 8 * 3
    assert Price(step_j=2.0, idle_w=3.0).energy_j(forecast) == pytest.approx(expected)


def test_without_failures_spares_are_worth_nothing() -> None:
    setup = training(DAY, Checkpoint(600.0), SLOW)
    found = with_spares(setup, Failures("none"), nodes=(0, 4), runs=2)
    assert np.array_equal(found[0].finish_s, found[1].finish_s)


def test_the_nodes_that_llama_3_had_away_follow_from_its_table() -> None:
    # Table 5: 148 + 7 + 6 + 6 + 3 + 3 + 2 + 2 + 2 + 2 = 181 repairs of a day, and
    # 72 + 35 + 32 + 19 + 17 + 47 = 222 resets of 15 min, in 54 days.
    failures, recovery = find("llama3")
    setup = training(DAY, Checkpoint(600.0), recovery)
    from dataclasses import replace

    setup = replace(setup, job=replace(setup.job, devices=16384))
    expected = (181 * DAY + 222 * 900) / (54 * DAY)
    assert nodes_away(setup, failures) == pytest.approx(expected)
