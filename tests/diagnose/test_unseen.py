"""Ends of messages that nobody saw as they happened do not mislead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.diagnose.injected import Scene, measured
from tests.simulate.toy import cluster, model, plan, software

from stretto.diagnose.compare import compare
from stretto.diagnose.diagnose import diagnose
from stretto.diagnose.finding import Cause
from stretto.diagnose.replay import replay
from stretto.program.lower import lower
from stretto.simulate import SlowLink, simulate
from stretto.timeline import KINDS, Timeline
from stretto.timeline.value import HEADS


def scene() -> Scene:
    program = lower(model(layers=4, embed=64), plan(pp=4, dp=2, micro_batches=4))
    return Scene("", program, cluster(8, node=2), software())


def seen_late(line: Timeline) -> Timeline:
    """Give a step as a recorder tells it: an end is seen by who waits for it, or by who asks next.

    Of a message for which nobody waits the end is told to be when the rank next began something,
    five such later: long after it happened.
    """
    stop = line.stop_s.copy()
    heads = np.flatnonzero(np.isin(line.kind, HEADS))
    waited = np.zeros(len(stop), dtype=bool)
    waited[line.cause[heads]] = True
    for rank in range(len(line.alike)):
        begins = np.sort(line.start_s[heads[line.player[heads] == rank]])
        rows = (line.player == rank) & (line.kind > 1) & ~np.isin(line.kind, HEADS) & ~waited
        for row in np.flatnonzero(rows):
            later = begins[begins >= stop[row]][:5]
            stop[row] = later[-1] if len(later) else stop[row]
    messages = np.flatnonzero(line.kind == KINDS.index("pipeline"))
    both = np.stack([line.start_s[messages], line.stop_s[messages]], axis=1)
    _, of = np.unique(both, axis=0, return_inverse=True)
    first = np.full(of.max() + 1, np.inf)
    np.minimum.at(first, of.ravel(), stop[messages])  # what has arrived has left
    stop[messages] = first[of.ravel()]
    return replace(line, stop_s=stop, measured=True)


def test_of_a_simulated_step_everything_is_known() -> None:
    here = scene()
    line = simulate(here.program, here.cluster, stack=here.stack)
    assert compare(line, line, program=here.program).sure.all()


def test_a_step_whose_ends_were_seen_late_still_plays_again_to_the_second() -> None:
    here = scene()
    line = seen_late(measured(here, seed=0, noise=0.05))
    compared = compare(
        simulate(here.program, here.cluster, stack=here.stack), line, program=here.program
    )
    assert not compared.sure.all()
    stop_s = replay(compared.web, compared.taken)[1]
    assert stop_s == pytest.approx(compared.taken.stop_s)
    assert stop_s.max() == pytest.approx(line.step_s)


def test_what_nobody_waited_for_is_taken_to_be_as_long_as_others_between_the_same_ranks() -> None:
    here = scene()
    real = measured(here, seed=0, noise=0.0)
    predicted = simulate(here.program, here.cluster, stack=here.stack)
    compared = compare(predicted, seen_late(real), program=here.program)
    exact = compare(predicted, real, program=here.program)
    unsure = ~compared.sure
    assert unsure.any()
    assert compared.taken.own_s[unsure] == pytest.approx(exact.taken.own_s[unsure])


def test_a_slow_link_is_named_and_no_other_where_ends_were_seen_late() -> None:
    here = scene()
    line = seen_late(measured(here, seed=1, noise=0.04, faults=[SlowLink((4, 5), "spine", 5.0)]))
    compared = compare(
        simulate(here.program, here.cluster, stack=here.stack), line, program=here.program
    )
    findings = diagnose(compared, cluster=here.cluster, stack=here.stack)
    assert [(f.cause, f.where) for f in findings] == [(Cause.SLOW_LINK, "h2 into spine")]
