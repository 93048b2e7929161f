"""Single runs, worked out by hand: one failure at a known second."""

from __future__ import annotations

import pytest
from tests.forecast.cases import Script, component, crashes, scripted, spent, training

from stretto.forecast import Checkpoint, Elastic, Failures, Needs, Per, Recovery, Shows, Spares

# 1,000 s of steps, a snapshot every 100 s that stops them for 10 s and is stored 5 s later.
SAVED = Checkpoint(100.0, blocking_s=10.0, background_s=5.0, load_s=40.0)
SLOW = Recovery(
    crash_s=20.0, hang_s=300.0, corruption_s=50.0, diagnose_s=7.0, hot_s=11.0, warm_s=60.0,
    schedule_s=30.0, warmup_s=2.0, reset_s=500.0, repair_s=4000.0,
)  # fmt: skip
ONCE = 1.0  # mean second between failures, so that a script tells seconds


def test_a_crash_loses_what_came_after_the_last_stored_checkpoint() -> None:
    # Snapshots end at 110 s and 220 s; at 250 s 30 s of work are lost.
    forecast = scripted(Script([250.0]), training(1000, SAVED, SLOW), crashes(ONCE))
    assert spent(forecast) == {
        "training": 1000, "checkpoints": 100, "lost work": 30, "detection": 20, "restart": 72,
    }  # fmt: skip
    assert forecast.finish_s.tolist() == [pytest.approx(1222)]
    assert forecast.interruptions.tolist() == [[1]]


def test_a_checkpoint_that_is_not_stored_yet_does_not_count() -> None:
    # The second snapshot ends at 220 s and is stored at 225 s.
    early = scripted(Script([224.0]), training(1000, SAVED, SLOW), crashes(ONCE))
    late = scripted(Script([226.0]), training(1000, SAVED, SLOW), crashes(ONCE))
    assert spent(early)["lost work"] == 104
    assert spent(late)["lost work"] == 6


def test_a_crash_while_a_snapshot_is_taken_loses_the_whole_interval() -> None:
    forecast = scripted(Script([215.0]), training(1000, SAVED, SLOW), crashes(ONCE))
    assert spent(forecast)["lost work"] == 100
    assert spent(forecast)["checkpoints"] == 105


def test_a_crash_during_a_restart_begins_another_one() -> None:
    # 20 s of detection are within the second failure's 50 s: it comes 30 s into the restart.
    script = Script([250.0, 50.0])
    forecast = scripted(script, training(1000, SAVED, SLOW), crashes(ONCE))
    assert spent(forecast)["restart"] == 30 + 72
    assert spent(forecast)["detection"] == 40
    assert spent(forecast)["lost work"] == 30


def test_what_fails_while_a_run_is_stopped_is_noticed_when_it_starts() -> None:
    script = Script([250.0, 15.0])
    forecast = scripted(script, training(1000, SAVED, SLOW), crashes(ONCE))
    assert spent(forecast)["restart"] == 72
    assert spent(forecast)["detection"] == 40


def test_a_hang_lasts_until_the_watchdog_fires() -> None:
    hang = Failures("hang", components=(component(ONCE, shows=Shows.HANG),))
    forecast = scripted(Script([250.0]), training(1000, SAVED, SLOW), hang)
    assert spent(forecast)["detection"] == 300


def test_wrong_numbers_cost_what_is_computed_with_them_and_memory_is_no_help() -> None:
    wrong = Failures(
        "wrong", components=(component(ONCE, shows=Shows.CORRUPTION, needs=Needs.RESTART),)
    )
    saved = Checkpoint(
        100.0, blocking_s=10.0, background_s=5.0, load_s=40.0, memory_every_s=50.0,
        survives="node", memory_load_s=3.0,
    )  # fmt: skip
    # A snapshot every 50 s of steps ends at 60, 120, 180 s …; every second one is stored.
    forecast = scripted(Script([200.0]), training(1000, saved, SLOW), wrong)
    assert spent(forecast)["lost work"] == 70 + 50
    assert spent(forecast)["restart"] == 72
    assert "detection" not in spent(forecast)


def test_a_process_that_dies_leaves_the_snapshots_of_its_host() -> None:
    saved = Checkpoint(
        100.0, blocking_s=10.0, background_s=5.0, load_s=40.0, memory_every_s=50.0,
        survives="process", memory_load_s=3.0,
    )  # fmt: skip
    process = scripted(Script([200.0]), training(1000, saved, SLOW), crashes(ONCE))
    node = scripted(Script([200.0]), training(1000, saved, SLOW), crashes(ONCE, Needs.REPAIR))
    assert (spent(process)["lost work"], spent(process)["restart"]) == (20, 35)
    assert (spent(node)["lost work"], spent(node)["restart"]) == (70, 72)
    assert spent(process)["checkpoints"] == 200  # twenty snapshots


def test_what_is_planned_waits_for_a_checkpoint_and_loses_nothing() -> None:
    planned = Failures("planned", components=(component(ONCE, shows=Shows.PLANNED),))
    forecast = scripted(Script([250.0]), training(1000, SAVED, SLOW), planned)
    assert spent(forecast) == {"training": 1000, "checkpoints": 105, "restart": 72}


@pytest.mark.parametrize(
    ("spares", "waiting"),
    [(Spares(hot=1), 11), (Spares(warm=1), 60), (Spares(), 500 + 60)],
)
def test_a_node_that_is_reset_is_replaced_by_a_spare_or_waited_for(
    spares: Spares, waiting: float
) -> None:
    setup = training(1000, SAVED, SLOW, spares=spares)
    forecast = scripted(Script([250.0]), setup, crashes(ONCE, Needs.RESET))
    assert spent(forecast)["waiting"] == waiting
    assert spent(forecast)["detection"] == 27  # with the search for the node


def test_a_node_that_is_back_is_a_spare() -> None:
    # The first is back 560 s after 277 s; the second fails 600 s after the restart began.
    setup = training(2000, SAVED, SLOW, spares=Spares(hot=1))
    reset = crashes(ONCE, Needs.RESET)
    forecast = scripted(Script([250.0, 700.0]), setup, reset)
    assert spent(forecast)["waiting"] == 22


def test_a_run_without_spares_drops_a_replica_and_takes_it_back_at_a_snapshot() -> None:
    # Two units of two nodes. At 250 s one leaves; after 27 s of detection the run restarts at half
    # speed, at 349 s. The node is away until 277 + 0.1 · 4000 + 60 = 737 s. A snapshot takes 210 s
    # now: they end at 559 s and 769 s, when the run, at 400 s, restarts whole after storing.
    setup = training(1000, SAVED, SLOW, elastic=Elastic(2, (1.0, 0.5), patience_s=100.0))
    script = Script([250.0], repair=[0.1])
    forecast = scripted(script, setup, crashes(ONCE, Needs.REPAIR))
    assert spent(forecast) == {
        "training": 1000, "checkpoints": 105, "degraded": 200, "lost work": 30, "detection": 27,
        "restart": 144,
    }  # fmt: skip


def test_a_node_that_is_back_soon_is_waited_for() -> None:
    setup = training(1000, SAVED, SLOW, elastic=Elastic(2, (1.0, 0.5), patience_s=560.0))
    forecast = scripted(Script([250.0]), setup, crashes(ONCE, Needs.RESET))
    assert spent(forecast)["waiting"] == 560
    assert "degraded" not in spent(forecast)


def test_the_rest_of_a_unit_that_left_replaces_the_next_node() -> None:
    setup = training(1000, SAVED, SLOW, elastic=Elastic(2, (1.0, 0.5), patience_s=0.0))
    script = Script([250.0, 300.0], repair=[10.0, 10.0])
    forecast = scripted(script, setup, crashes(ONCE, Needs.REPAIR))
    assert spent(forecast)["waiting"] == 11


def test_half_the_devices_fail_half_as_often() -> None:
    # 1,000 mean seconds after the first failure comes the second: 27 s pass while 4 nodes stand
    # still, so 2 · 973 s while 2 of them run, at 2,223 s. From 349 s on a snapshot takes 210 s, the
    # eighth ends at 2,029 s, and 194 s at half speed are lost.
    nodes = Failures("nodes", components=(component(4 * ONCE, per=Per.NODE, needs=Needs.REPAIR),))
    setup = training(3000, SAVED, SLOW, elastic=Elastic(2, (1.0, 0.5), patience_s=0.0))
    script = Script([250.0, 1000.0], repair=[1e6, 1e6])
    forecast = scripted(script, setup, nodes)
    assert spent(forecast)["lost work"] == 30 + 97


@pytest.mark.parametrize("blocking_s", [i / 7 for i in range(1, 40)])
def test_what_is_planned_for_after_the_last_snapshot_comes_too_late(blocking_s: float) -> None:
    planned = Failures("planned", components=(component(ONCE, shows=Shows.PLANNED),))
    saved = Checkpoint(100.0, blocking_s=blocking_s)
    script = Script([9.5 * (100 + blocking_s)])
    forecast = scripted(script, training(1000, saved, SLOW), planned)
    assert forecast.interruptions.tolist() == [[0]]
    assert forecast.finish_s.tolist() == [pytest.approx(1000 + 10 * blocking_s)]
