"""What holds of every forecast."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.forecast.cases import DAY, HOUR, Script, component, crashes, scripted, training
from tests.forecast.plain import Plain

from stretto.forecast import (
    PARTS,
    Checkpoint,
    Elastic,
    Failures,
    Job,
    Needs,
    Per,
    Recovery,
    Setup,
    Shows,
    Spares,
    play,
)
from stretto.forecast.interval import expected_s

NOTHING = Failures("none")
SECONDS = st.floats(0, 200)


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    every = draw(st.integers(20, 300))
    memory = draw(st.sampled_from([None, every / 4, every / 3, every]))
    return Checkpoint(
        float(every),
        blocking_s=draw(st.floats(0, 20)),
        background_s=draw(st.floats(0, every)),
        load_s=draw(SECONDS),
        memory_every_s=memory,
        survives="nothing" if memory is None else draw(st.sampled_from(["process", "node"])),
        memory_load_s=draw(SECONDS),
    )


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    recovery = Recovery(*[draw(SECONDS) for _ in range(8)], draw(SECONDS), draw(SECONDS) * 20)
    elastic = draw(st.sampled_from([None, Elastic(2, (1.0, 0.6)), Elastic(1, (1.0, 0.8, 0.5))]))
    if elastic is not None:
        elastic = replace(elastic, patience_s=draw(SECONDS))
    return training(
        draw(st.integers(500, 3000)),
        draw(checkpoints()),
        recovery,
        spares=Spares(draw(st.integers(0, 2)), draw(st.integers(0, 1))),
        elastic=elastic,
    )


ALL = Failures(
    "all",
    components=(
        component(1500.0, name="process"),
        component(4000.0, name="node", per=Per.NODE, needs=Needs.REPAIR),
        component(90_000.0, name="device", per=Per.DEVICE, shows=Shows.HANG, needs=Needs.RESET),
        component(5000.0, name="wrong", shows=Shows.CORRUPTION, needs=Needs.REPAIR),
        component(3000.0, name="planned", shows=Shows.PLANNED, needs=Needs.RESET),
    ),
)


@given(
    steps=st.integers(1, 10_000),
    step_s=st.floats(0.1, 100),
    every=st.integers(1, 500),
    blocking_s=st.floats(0, 100),
)
def test_without_failures_a_training_takes_its_steps_and_a_stop_for_each_snapshot(
    steps: int, step_s: float, every: int, blocking_s: float
) -> None:
    setup = Setup(Job(steps, step_s, 8), Checkpoint(every * step_s, blocking_s=blocking_s))
    (forecast,) = play([setup], NOTHING, runs=2)
    expected = steps * step_s + math.ceil(steps / every) * blocking_s
    assert forecast.finish_s.tolist() == pytest.approx([expected, expected], rel=1e-12)


@given(setup=setups(), seed=st.integers(0, 10**6))
def test_the_parts_of_the_time_sum_to_it(setup: Setup, seed: int) -> None:
    (forecast,) = play([setup], ALL, runs=5, seed=seed)
    done = np.isfinite(forecast.finish_s)
    sums = forecast.parts_s.sum(axis=1)
    np.testing.assert_allclose(sums[done], forecast.finish_s[done], rtol=1e-9)
    training_s = forecast.parts_s[done, PARTS.index("training")]
    np.testing.assert_allclose(training_s, setup.job.work_s, rtol=1e-9)
    assert np.all(forecast.parts_s >= -1e-6)


@given(
    setup=setups(),
    when=st.lists(st.floats(0.01, 3.0), min_size=1, max_size=12),
    data=st.data(),
)
def test_a_run_goes_as_it_does_played_plainly(
    setup: Setup, when: list[float], data: st.DataObject
) -> None:
    shares = st.lists(st.floats(0, 0.999), min_size=len(when), max_size=len(when))
    script = Script(when, data.draw(shares), [0.1 + 2 * r for r in data.draw(shares)])
    forecast = scripted(script, setup, ALL)
    plain = Plain(setup, ALL, list(script.triples())).play()
    if forecast.given_up:
        assert plain.clock > 10 * setup.least_s
        return
    assert forecast.finish_s[0] == pytest.approx(plain.clock, rel=1e-6)
    parts = dict(zip(PARTS, forecast.parts_s[0].tolist(), strict=True))
    assert parts == pytest.approx(plain.parts, rel=1e-6, abs=1e-3)
    names = [c.name for c in ALL.components]
    counts = dict(zip(names, forecast.interruptions[0].tolist(), strict=True))
    assert {name: n for name, n in counts.items() if n} == plain.counts


@pytest.mark.parametrize("mtbf_s", [24 * HOUR, 6 * HOUR, HOUR])
@pytest.mark.parametrize("every_s", [9 * 60.0, 60 * 60.0, 120 * 60.0])
def test_crashes_and_fixed_costs_take_as_long_as_daly_says(mtbf_s: float, every_s: float) -> None:
    saved = Checkpoint(every_s, blocking_s=300.0)
    setup = training(100 * every_s, saved, Recovery(schedule_s=600.0))
    (forecast,) = play([setup], crashes(mtbf_s), runs=500)
    expected = expected_s(
        100 * every_s, every_s=every_s, blocking_s=300.0, restart_s=600.0, mtbf_s=mtbf_s
    )
    error = forecast.finish_s.std() / math.sqrt(500)
    assert abs(forecast.finish_s.mean() - expected) < 4 * error


@given(setup=setups(), seed=st.integers(0, 10**6))
def test_a_seed_decides_all_of_a_run(setup: Setup, seed: int) -> None:
    (once,) = play([setup], ALL, runs=4, seed=seed)
    (again,) = play([setup], ALL, runs=4, seed=seed)
    (other,) = play([setup], ALL, runs=4, seed=seed + 1)
    assert np.array_equal(once.parts_s, again.parts_s)
    assert not np.array_equal(once.parts_s, other.parts_s)


@given(setup=setups())
def test_a_run_does_not_depend_on_which_others_are_played_beside_it(setup: Setup) -> None:
    (alone,) = play([setup], ALL, runs=2)
    beside = replace(setup, spares=Spares(hot=9))
    _, more = play([beside, setup], ALL, runs=6)
    np.testing.assert_allclose(more.parts_s[:2], alone.parts_s, rtol=1e-9, atol=1e-6)


@given(setup=setups(), seed=st.integers(0, 10**6))
def test_no_run_that_waits_for_nodes_is_done_later_with_more_spares(
    setup: Setup, seed: int
) -> None:
    # Where failures do not come while a run is stopped, and so not more of them.
    quick = Recovery(schedule_s=60.0, reset_s=300.0, repair_s=2000.0)
    failures = Failures("n", components=ALL.components[:2])
    setup = replace(setup, elastic=None, recovery=quick)
    nodes = [replace(setup, spares=Spares(hot=n)) for n in (0, 1, 2, 5)]
    ends = [f.finish_s for f in play(nodes, failures, runs=5, seed=seed)]
    for fewer, more in itertools.pairwise(ends):
        assert np.all(more <= fewer * (1 + 1e-9))


@pytest.mark.parametrize("spares", [0, 1, 3])
@pytest.mark.parametrize("needs", [Needs.REPAIR, Needs.RESET])
def test_a_run_waits_for_nodes_as_long_as_erlang_says(spares: int, needs: Needs) -> None:
    # Of s spares and the node that is lacking all are away with the probability of Erlang's loss
    # formula for s + 1 servers (Erlang, 1917), whatever the distribution of the time away.
    load = 1.5  # nodes away on average, if the run never waited
    setup = training(
        2000 * HOUR, Checkpoint(60.0), Recovery(reset_s=load * HOUR, repair_s=load * HOUR),
        spares=Spares(hot=spares),
    )  # fmt: skip
    setup = replace(
        setup, checkpoint=replace(setup.checkpoint, memory_every_s=60.0, survives="node")
    )
    (forecast,) = play([setup], crashes(HOUR, needs), runs=100)
    terms = [load**k / math.factorial(k) for k in range(spares + 2)]
    shares = forecast.parts_s[:, PARTS.index("waiting")] / forecast.finish_s
    error = shares.std() / math.sqrt(len(shares))
    assert abs(shares.mean() - terms[-1] / sum(terms)) < 4 * error + 0.002


def test_failures_of_each_component_are_counted_as_a_poisson_process_has_them() -> None:
    # Restarts take no time, and memory loses almost no work: a run lasts 1,000 h whatever happens.
    saved = Checkpoint(60.0, memory_every_s=1.0, survives="node")
    failures = Failures(
        "two",
        components=(
            component(10 * HOUR, name="often"),
            component(32 * 100 * HOUR, name="seldom", per=Per.DEVICE),
        ),
    )
    (forecast,) = play([training(1000 * HOUR, saved)], failures, runs=1000)
    counts = forecast.interruptions
    for column, mean in ((0, 100.0), (1, 10.0)):
        own = counts[:, column]
        assert abs(own.mean() - mean) < 4 * math.sqrt(mean / 1000)
        assert abs(own.var() / mean - 1) < 4 * math.sqrt(2 / 1000)
    correlation = np.corrcoef(counts.T)[0, 1]
    assert abs(correlation) < 4 / math.sqrt(1000)


def test_a_run_that_loses_more_than_it_gains_is_given_up() -> None:
    """After ten times its day, or where a thousand failures say that it would come to that."""
    saved = Checkpoint(6 * HOUR)
    (seldom, often) = (play([training(DAY, saved)], crashes(s), runs=3)[0] for s in (3000.0, 600.0))
    assert seldom.given_up == often.given_up == 3
    assert np.all(seldom.parts_s.sum(axis=1) >= 10 * DAY)
    assert np.all(often.interruptions == 1000)


def test_a_run_that_is_slow_but_will_be_done_in_time_is_not_given_up() -> None:
    """Work of τ + δ takes M·(e^(τ/M) − 1): with τ = 2 M a goodput of 2 / (e² − 1), 31 %."""
    (forecast,) = play([training(1000 * HOUR, Checkpoint(2 * HOUR))], crashes(HOUR), runs=3)
    assert forecast.given_up == 0
    assert np.all(forecast.interruptions.sum(axis=1) > 1000)
    assert forecast.goodput.mean() == pytest.approx(2 / (math.e**2 - 1), rel=0.05)


def test_shrinking_helps_a_run_without_spares() -> None:
    recovery = Recovery(schedule_s=60.0, repair_s=DAY)
    stiff = training(30 * DAY, Checkpoint(600.0), recovery)
    elastic = replace(stiff, elastic=Elastic.proportional(stiff.job, replicas=4))
    one, other = play([stiff, elastic], crashes(2 * DAY, Needs.REPAIR), runs=50)
    assert other.goodput.mean() > one.goodput.mean() + 0.05
    assert other.shares["degraded"] > 0 and one.shares["degraded"] == 0


def test_progress_is_told_and_rises() -> None:
    told: list[float] = []
    play([training(30 * DAY, Checkpoint(600.0))], crashes(HOUR), runs=3, progress=told.append)
    assert told == sorted(told) and 0 < told[0] < told[-1] <= 1
