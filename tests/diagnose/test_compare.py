"""A measured step beside a predicted one: extra time is that of whom others wait for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.diagnose.injected import Pause, Scene, measured
from tests.simulate.toy import cluster, model, modern, plan, software

from stretto.diagnose.compare import Comparison, compare
from stretto.diagnose.replay import causes, parts, replay
from stretto.errors import InputError
from stretto.program.draw import draw
from stretto.program.instruction import Compute, Program, Recv, Update
from stretto.program.lower import lower
from stretto.simulate import Fault, Halt, SlowLink, SlowRank, simulate
from stretto.timeline import KINDS, Timeline
from stretto.timeline.value import critical

cases = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 10_000)


def played(program: Program, *faults: Fault, node: int = 8) -> Timeline:
    here = cluster(program.placement.mesh.size, node=node)
    return simulate(program, here, stack=software(), faults=faults)


def against(program: Program, *faults: Fault, node: int = 8) -> Comparison:
    """Compare a step with one in which something is wrong."""
    return compare(played(program, node=node), played(program, *faults, node=node), program=program)


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────


@cases
@given(seeds)
def test_a_step_has_no_extra_time_beside_itself(seed: int) -> None:
    program = lower(*draw(seed))
    line = simulate(program, cluster(program.placement.mesh.size, node=3), stack=modern())
    compared = compare(line, line, program=program)
    assert (compared.extra_s == 0.0).all()
    assert compared.top() == ()


@cases
@given(seeds, st.floats(1.0, 3.0))
def test_a_step_that_is_played_again_is_the_same_to_the_second(seed: int, factor: float) -> None:
    program = lower(*draw(seed))
    here = cluster(program.placement.mesh.size, node=3)
    line = simulate(program, here, stack=modern(), faults=[SlowRank(0, factor)])
    web = compare(line, line, program=program).web
    taken = parts(web, line)
    start_s, stop_s = replay(web, taken)
    assert start_s == pytest.approx(taken.start_s, rel=1e-9, abs=1e-12)
    assert stop_s == pytest.approx(taken.stop_s, rel=1e-9, abs=1e-12)


@cases
@given(seeds)
def test_nothing_explains_no_time_and_the_critical_path_all_of_it(seed: int) -> None:
    program = lower(*draw(seed))
    line = simulate(program, cluster(program.placement.mesh.size, node=3), stack=modern())
    web = compare(line, line, program=program).web
    taken = parts(web, line)
    path = critical(causes(web, taken), taken.stop_s)
    assert np.abs(taken.lag_s).max() < 1e-9
    assert taken.own_s[path].sum() == pytest.approx(line.step_s)
    assert (np.diff(taken.stop_s[path]) >= -1e-12).all()


@cases
@given(seeds, st.floats(0.0, 0.2))
def test_what_a_cell_waits_for_ends_when_that_does_which_was_waited_for_as_it_was_played(
    seed: int, noise: float
) -> None:
    program = lower(*draw(seed))
    scene = Scene("", program, cluster(program.placement.mesh.size, node=3), modern())
    line = measured(scene, seed=seed, noise=noise)
    web = compare(line, line, program=program).web
    taken = parts(web, line)
    found, played = causes(web, taken), line.cause[taken.row]
    ends = np.append(taken.stop_s, 0.0)[found], np.append(line.stop_s, 0.0)[played]
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)
    assert ((found < 0) == (played < 0)).all()


@cases
@given(seeds, st.integers(0, 99))
def test_with_noise_as_well_and_whatever_pauses(seed: int, noise_seed: int) -> None:
    program = lower(*draw(seed))
    size = program.placement.mesh.size
    scene = Scene("", program, cluster(size, node=3), modern())
    step_s = simulate(program, scene.cluster, stack=scene.stack).step_s
    pause = Pause((size - 1,), "data", 0.2 * step_s)
    line = measured(scene, seed=noise_seed, noise=0.2, pause=pause)
    web = compare(line, line, program=program).web
    taken = parts(web, line)
    assert replay(web, taken)[1] == pytest.approx(taken.stop_s, rel=1e-9, abs=1e-12)
    assert 0.0 <= taken.data_s.max() <= 0.2 * step_s * (1 + 1e-9)  # messages may hide some of it
    without = replace(taken, data_s=np.zeros_like(taken.data_s))
    assert replay(web, without)[1].max() <= line.step_s + 1e-12


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────


def test_a_slow_ranks_computes_have_their_own_time_again_and_others_none() -> None:
    compared = against(lower(model(), plan(dp=4)), SlowRank(2, 2.0))
    line = compared.measured
    slow, device = line.rank == 2, line.kind == KINDS.index("device")
    assert compared.extra_s[slow & device] == pytest.approx(compared.predicted_s[slow & device])
    assert compared.extra_s[~slow] == pytest.approx(0.0, abs=1e-9)
    assert compared.extra_s[slow & ~device] == pytest.approx(0.0, abs=1e-9)


def test_who_waits_for_a_slow_stage_has_no_extra_time() -> None:
    program = lower(model(), plan(pp=2))
    compared = against(program, SlowRank(0, 3.0))
    waits = compared.measured.rank == 1
    assert compared.extra_s[waits] == pytest.approx(0.0, abs=1e-9)
    (recv, *_) = (i for i, x in enumerate(program.stages[1].instructions) if isinstance(x, Recv))
    row = np.flatnonzero(waits & (compared.measured.instruction == recv))
    expected = np.flatnonzero(
        (compared.predicted.rank == 1) & (compared.predicted.instruction == recv)
    )
    # It is received later, for it is sent later; it does not take longer.
    assert compared.measured.start_s[row] > compared.predicted.start_s[expected] * 2


def test_the_costliest_are_named_with_rank_start_and_both_times() -> None:
    program = lower(model(), plan(dp=2))
    compared = against(program, SlowRank(1, 2.0))
    top = compared.top(3)
    assert [costly.rank for costly in top] == [1, 1, 1]
    assert all(costly.critical for costly in top)
    assert all(costly.measured_s == pytest.approx(2 * costly.predicted_s) for costly in top)
    longest = sorted(
        (
            float(compared.predicted.stop_s[row] - compared.predicted.start_s[row])
            for row in np.flatnonzero(compared.predicted.kind == KINDS.index("device"))
        ),
        reverse=True,
    )
    assert [costly.extra_s for costly in top] == pytest.approx(longest[:3])
    first = top[0]
    instruction = program.of(1).instructions[first.instruction]
    assert isinstance(instruction, Compute | Update)
    assert first.label.startswith(str(instruction.phase))  # type: ignore[union-attr]
    assert compared.measured.start_s[first.row] == first.start_s


def test_what_is_hidden_comes_after_what_the_step_is_of() -> None:
    # The link of rank 1 is slow, but what goes over it is hidden by computes, but for the last.
    program = lower(model(), plan(dp=2))
    compared = against(program, SlowLink((1,), "node", 3.0))
    listed = [costly.critical for costly in compared.top(50)]
    assert listed == sorted(listed, reverse=True)


def test_extra_time_on_the_critical_path_is_what_the_step_is_longer() -> None:
    compared = against(lower(model(), plan(tp=4)), SlowRank(3, 1.5))
    longer = compared.measured.step_s - compared.predicted.step_s
    device = compared.measured.kind == KINDS.index("device")
    assert compared.extra_s[compared.critical].sum() == pytest.approx(longer)
    assert compared.extra_s[compared.critical & device].sum() == pytest.approx(longer)


def test_the_critical_path_of_a_comparison_is_that_of_its_measured_step() -> None:
    compared = against(lower(model(), plan(pp=2, dp=2)), SlowRank(1, 2.0))
    assert np.flatnonzero(compared.critical).tolist() == sorted(compared.measured.critical())


def test_a_wait_for_data_is_extra_time_of_its_own_kind() -> None:
    program = lower(model(), plan(dp=2))
    scene = Scene("", program, cluster(2), software())
    predicted = played(program)
    line = measured(scene, seed=0, noise=0.0, pause=Pause((0,), "data", 0.25 * predicted.step_s))
    compared = compare(predicted, line, program=program)
    assert line.step_s == pytest.approx(1.25 * predicted.step_s)
    assert compared.extra_s[line.kind == KINDS.index("data")] == pytest.approx(
        0.25 * predicted.step_s
    )
    assert compared.extra_s[line.kind != KINDS.index("data")] == pytest.approx(0.0, abs=1e-9)


def test_some_ranks_can_be_compared_without_the_others() -> None:
    program = lower(model(), plan(dp=4))
    scene = Scene("", program, cluster(4), software())
    whole = measured(scene, seed=0, noise=0.0, faults=[SlowRank(2, 2.0)])
    kept = np.isin(whole.rank, (1, 2))
    place = np.cumsum(kept) - 1
    cause = whole.cause[kept]
    part = replace(
        whole, alike=((1,), (2,)), player=whole.player[kept] - 1,
        cause=np.where((cause >= 0) & kept[cause], place[cause], -1),
        **{name: getattr(whole, name)[kept] for name in (
            "instruction", "kind", "stream", "start_s", "stop_s", "work_s", "sent_bytes",
        )},
    )  # fmt: skip
    compared = compare(played(program), part, program=program)
    device = part.kind == KINDS.index("device")
    slow = part.rank == 2
    assert compared.extra_s[device & slow] == pytest.approx(compared.predicted_s[device & slow])
    assert compared.extra_s[device & ~slow] == pytest.approx(0.0, abs=1e-9)


def test_a_step_that_does_not_end_is_refused() -> None:
    program = lower(model(), plan(dp=2))
    hangs = played(program, Halt(1, 5))
    with pytest.raises(InputError) as caught:
        compare(hangs, hangs, program=program)
    assert [p.field for p in caught.value.problems] == ["predicted", "measured"]
    assert (
        "predicted: the step does not end; compare steps that end; `waits` says who waits for whom"
    ) in str(caught.value)
