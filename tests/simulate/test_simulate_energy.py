"""The frontier of time against energy: against cases that one can work out, and as laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulate.toy import cluster, model, plan, software

from stretto.cluster import Cluster, Power, find
from stretto.cost import cost, stack
from stretto.errors import InputError
from stretto.plan import Batch, Numerics, Pipeline, Plan
from stretto.presets import preset
from stretto.program.lower import lower
from stretto.simulate import Halt, SlowRank, simulate
from stretto.simulate.chain import chains
from stretto.simulate.energy import LOWEST, PIECES, Frontier, frontier, slowed
from stretto.simulate.graph import Graph, Player
from stretto.simulate.task import DEVICE, Tasks
from stretto.timeline import usages

DRAWS = Power(idle=50.0, memory_bound=150.0, compute_bound=250.0)


def graph(*tasks: tuple[float, int, tuple[int, ...]]) -> Graph:
    """Give a graph of computes: (seconds, device, those that must be done before)."""
    edges = [(b, a) for a, (_, _, before) in enumerate(tasks) for b in before]
    device = np.array([d for _, d, _ in tasks])
    players = []
    for number in range(int(device.max()) + 1):
        mine = np.flatnonzero(device == number)
        # A device does these, whatever they are.
        listed = Tasks(None, mine.tolist(), [0] * len(mine), [DEVICE] * len(mine), works=[None])  # type: ignore[arg-type, list-item]
        players.append(Player((number,), listed, mine, (), len(mine), False))
    work, none = np.array([s for s, _, _ in tasks]), np.zeros(len(tasks))
    return Graph(
        tuple(players), device, work, none, none + 1, [()] * len(tasks),
        np.array([b for b, _ in edges], dtype=np.int64),
        np.array([a for _, a in edges], dtype=np.int64), 4,
    )  # fmt: skip


def at(whole: Graph, *, clocked: float = 1.0, draws: Power = DRAWS) -> Frontier:
    """Give the frontier of a graph of which a share of every task follows the clock."""
    return slowed(
        whole, clocked_s=clocked * whole.work_s, draws=[draws] * len(whole.players), contention=0.0
    )


# ── on paper ─────────────────────────────────────────────────────────────────────────────────────


def test_who_is_waited_for_keeps_its_clock_and_who_waits_slows_until_both_end_together() -> None:
    found = at(graph((10.0, 0, ()), (8.0, 1, ()), (5.0, 0, (0, 1))))
    (mine, other) = found.points[0].clock
    assert found.points[0].step_s == pytest.approx(15.0, rel=1e-6)
    assert mine == pytest.approx([1.0, 1.0])
    assert other == pytest.approx([0.8], rel=1e-6)
    assert found.points[0].mean == pytest.approx((1.0, 0.8), rel=1e-6)
    # At full clocks: 200 W over idle for 23 s of work, 50 W for two devices for 15 s.
    assert found.full_j == pytest.approx(200 * 23 + 2 * 50 * 15)
    # At 0.8 of the clock the voltage is 0.8 too: an operation takes 0.64 of the energy.
    assert found.points[0].energy_j == pytest.approx(found.full_j - 200 * 8 * (1 - 0.64), rel=1e-6)
    assert found.free == pytest.approx(200 * 8 * 0.36 / 6100, rel=1e-6)


def test_no_clock_falls_below_the_lowest_however_long_the_wait() -> None:
    found = at(graph((10.0, 0, ()), (1.0, 1, ())))
    assert found.points[0].clock[1] == pytest.approx([LOWEST])


def test_a_mean_clock_is_one_over_seconds_and_not_over_tasks() -> None:
    # The second device waits 7 s before its second task, so that the first, of 3 s, has time.
    found = at(graph((10.0, 0, ()), (3.0, 1, ()), (1.0, 1, (0,))))
    first, last = found.points[0].clock[1]
    assert (first, last) == pytest.approx((LOWEST, 1.0))
    assert found.points[0].mean[1] == pytest.approx((3 + 1) / (3 / LOWEST + 1), rel=1e-6)


def test_what_is_bound_by_memory_is_not_slowed() -> None:
    found = at(graph((10.0, 0, ()), (1.0, 1, ())), clocked=0.0)
    assert [p.step_s for p in found.points] == [10.0]
    assert found.points[0].clock[1] == pytest.approx([1.0])
    assert found.full_j == pytest.approx(100 * 11 + 2 * 50 * 10)  # all of it streams
    assert found.free == 0.0


def test_one_device_alone_saves_only_by_a_longer_step_and_no_more_than_idling_costs() -> None:
    found = at(
        graph(
            (10.0, 0, ()),
        )
    )
    assert found.free == pytest.approx(0.0, abs=1e-3)
    # The least of 200·10·f² + 50·10/f lies at f³ = 1/8, below the lowest clock.
    assert found.points[-1].clock[0] == pytest.approx([LOWEST])
    assert found.points[-1].energy_j == pytest.approx(
        200 * 10 * LOWEST**2 + 50 * 10 / LOWEST, rel=1e-6
    )


def test_the_best_clock_balances_energy_saved_against_idling_longer() -> None:
    hot = Power(idle=160.0, memory_bound=200.0, compute_bound=360.0)
    found = at(
        graph(
            (10.0, 0, ()),
        ),
        draws=hot,
    )
    # The least of 200·10·f² + 160·10/f lies at f³ = 160/400; chords meet it within a piece.
    best = (160 / 400) ** (1 / 3)
    assert found.points[-1].clock[0] == pytest.approx([best], abs=(1 - LOWEST) / PIECES)


def test_a_row_of_tasks_is_one_and_what_is_implied_is_no_edge() -> None:
    whole = graph((1.0, 0, ()), (2.0, 0, (0,)), (3.0, 0, (0, 1)), (4.0, 1, (2,)), (5.0, 0, (2,)))
    found = chains(whole, clocked_s=whole.work_s, taken_s=whole.work_s)
    assert found.taken_s.tolist() == [6.0, 4.0, 5.0]
    assert found.chain.tolist() == [0, 0, 0, 1, 2]
    assert sorted(zip(found.before.tolist(), found.after.tolist(), strict=True)) == [(0, 1), (0, 2)]


def test_who_waits_for_its_host_draws_idle_power_until_that_is_done() -> None:
    whole = graph((1.0, 0, ()))
    found = at(replace(whole, floor_s=np.array([3.0])), clocked=0.0)
    assert found.full_s == 3.0
    assert found.full_j == pytest.approx(150 * 1 + 50 * 2)


def test_what_is_lost_by_chance_is_waited_for() -> None:
    whole = graph((10.0, 0, ()), (4.0, 1, ()))
    found = slowed(whole, clocked_s=whole.work_s, draws=[DRAWS] * 2, contention=0.0, lost=0.1)
    assert found.full_s == pytest.approx(11.0)
    assert found.points[0].step_s == pytest.approx(11.0, rel=1e-3)
    assert found.full_j == pytest.approx(200 * 14 + 2 * 50 * 11)


# ── as laws ──────────────────────────────────────────────────────────────────────────────────────


@given(
    st.lists(
        st.tuples(st.floats(0.5, 5.0), st.integers(0, 2), st.sets(st.integers(0, 9), max_size=2)),
        min_size=1,
        max_size=10,
    )
)
@settings(max_examples=50, deadline=None)
def test_slower_steps_take_less_energy_and_the_first_is_no_slower_than_at_full_clocks(
    drawn: list[tuple[float, int, set[int]]],
) -> None:
    last: dict[int, int] = {}
    tasks = []
    for i, (seconds, device, before) in enumerate(drawn):
        queue = {last[device]} if device in last else set()
        tasks.append((seconds, device, tuple(sorted({b for b in before if b < i} | queue))))
        last[device] = i
    used = sorted({device for _, device, _ in tasks})
    tasks = [(s, used.index(d), before) for s, d, before in tasks]
    found = at(graph(*tasks))
    steps = [p.step_s for p in found.points]
    energies = [p.energy_j for p in found.points]
    assert steps[0] <= found.full_s * 1.001
    assert energies[0] <= found.full_j * (1 + 1e-9)
    assert steps == sorted(steps)
    assert energies == sorted(energies, reverse=True)
    for point in found.points:
        for clock in point.clock:
            assert ((clock >= LOWEST - 1e-6) & (clock <= 1 + 1e-9)).all()


# ── on programs ──────────────────────────────────────────────────────────────────────────────────


def warm(devices: int) -> Cluster:
    """Give the toys of the simulator, which draw power."""
    cold = cluster(devices)
    (part,) = cold.parts
    return replace(cold, parts=(replace(part, device=replace(part.device, power_w=DRAWS)),))


def test_a_message_that_nothing_hides_draws_what_memory_bound_work_does() -> None:
    program, here = lower(model(), plan(dp=2)), warm(2)
    level = replace(DRAWS, compute_bound=DRAWS.memory_bound)  # whatever a device is busy with
    part = replace(here.parts[0], device=replace(here.parts[0].device, power_w=level))
    found = frontier(program, replace(here, parts=(part,)), stack=software())
    (usage,) = usages(simulate(program, here, stack=software()))
    assert usage.exposed_s["gradient"] > 0.01 * usage.step_s
    busy_s = usage.busy_s + usage.exposed_s["gradient"]
    by_hand = 2 * (150 * busy_s + 50 * (usage.step_s - busy_s))
    assert found.full_j == pytest.approx(by_hand)


@pytest.mark.parametrize("named", ["modern", "eager"])
@pytest.mark.parametrize(
    "words", [{"dp": 2, "tp": 8}, {"dp": 16, "zero": 3, "shard": 16}, {"pp": 2, "dp": 4, "tp": 2}]
)
def test_a_step_that_is_played_draws_what_its_closed_form_does(
    words: dict[str, int], named: str
) -> None:
    chosen = Plan.of(
        **{"pp": 1, "dp": 1, "tp": 1, "zero": 0} | words,  # type: ignore[arg-type]
        numerics=Numerics("bfloat16"), batch=Batch(4 * words["dp"], 1, 4096),
    )  # fmt: skip
    small, here = replace(preset("llama-3-8b"), layers=8), find("dgx-h100", devices=16)
    told = cost(small, chosen, cluster=here, stack=stack(named))
    found = frontier(lower(small, chosen), here, stack=stack(named))
    power_w = [float(told.bill.energy_j / told.time.total_s), found.full_j / found.full_s]
    assert power_w[0] == pytest.approx(power_w[1], rel=0.03)  # what is left is other times


def test_beside_a_straggler_all_other_replicas_slow_to_its_pace() -> None:
    program = lower(model(), plan(dp=4))
    found = frontier(program, warm(4), stack=software(), faults=(SlowRank(2, 1.25),))
    slow = next(i for i, ranks in enumerate(found.alike) if 2 in ranks)
    assert found.points[0].step_s <= found.full_s * 1.001
    for i, clock in enumerate(found.points[0].clock):
        clocked = clock[clock < 1]
        if i == slow:
            assert clock.min() > 0.99
        else:  # they have a quarter of the straggler's time more, but for what has no clock
            assert np.median(clocked) == pytest.approx(0.8, abs=0.03)


def test_an_uneven_pipeline_gives_energy_back_for_nothing() -> None:
    chosen = Plan.of(
        pp=4, dp=1, tp=1, zero=1, numerics=Numerics("bfloat16"), batch=Batch(16, 1, 4096),
        pipeline=Pipeline("1f1b", (0, 21, 37, 51)),
    )  # fmt: skip
    uneven = lower(preset("llama-3-8b"), chosen)
    here = find("dgx-a100", devices=4)
    found = frontier(uneven, here, stack=software())
    assert found.points[0].step_s <= found.full_s * 1.001
    assert found.free > 0.05
    heaviest, *others = (float(c.mean()) for c in found.points[0].clock)
    assert heaviest > max(others)


def test_a_step_that_does_not_end_has_no_frontier() -> None:
    program = lower(model(), plan(dp=2))
    with pytest.raises(InputError, match="the step does not end"):
        frontier(program, warm(2), stack=software(), faults=(Halt(0),))


def test_a_cluster_that_draws_nothing_is_refused_with_what_it_lacks() -> None:
    program = lower(model(), plan(dp=2))
    with pytest.raises(InputError, match="does not say that work draws more than waiting"):
        frontier(program, cluster(2), stack=software())
