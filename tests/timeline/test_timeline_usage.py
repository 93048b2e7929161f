"""Where the time of a rank goes, against what is said of one moment after the other."""

from __future__ import annotations

import numpy as np
import pytest
from tests.simulate.toy import cluster, modern

from stretto.program.draw import draw
from stretto.program.lower import lower
from stretto.simulate import SlowRank, simulate
from stretto.timeline import KINDS, Timeline, usages
from stretto.timeline.usage import moments
from stretto.timeline.value import HEADS


def played(seed: int) -> Timeline:
    """Give a step of a random plan, in which a rank may be slow."""
    program = lower(*draw(seed))
    size = program.placement.mesh.size
    faults = [SlowRank(size - 1, 1.5)] if seed % 2 else []
    return simulate(program, cluster(size), stack=modern(), faults=faults)


def at(line: Timeline, player: int, moment: float) -> int:
    """Give the row that a moment of a player goes to, by the definition; -1 for none."""
    heads = [
        row
        for row in range(len(line.kind))
        if line.player[row] == player and line.kind[row] in HEADS
    ]
    for row in heads:
        if line.start_s[row] <= moment < line.stop_s[row]:
            return row
    later = [row for row in heads if line.start_s[row] > moment]
    if not later:
        return -1
    row = int(line.cause[min(later, key=lambda row: float(line.start_s[row]))])
    while row >= 0 and line.player[row] == player and line.kind[row] not in HEADS:
        if line.start_s[row] <= moment:
            return row
        row = int(line.cause[row])
    return -1


@pytest.mark.parametrize("seed", range(12))
def test_every_moment_of_a_rank_goes_to_the_row_that_it_waits_for_or_to_none(seed: int) -> None:
    line = played(seed)
    draws = np.random.default_rng(seed)
    for player in draws.choice(len(line.alike), size=min(3, len(line.alike)), replace=False):
        rows, since, until = moments(line, int(player))
        for moment in draws.uniform(0.0, line.step_s, size=20):
            there = rows[(since <= moment) & (moment < until)].tolist()
            wanted = at(line, int(player), float(moment))
            assert there == ([wanted] if wanted >= 0 else [])


@pytest.mark.parametrize("seed", range(12))
def test_usage_is_the_sum_of_the_moments_and_its_parts_are_the_step(seed: int) -> None:
    line = played(seed)
    for player, usage in enumerate(usages(line)):
        rows, since, until = moments(line, player)
        parts = {"device": usage.busy_s, **usage.exposed_s}
        for kind, seconds in parts.items():
            mine = line.kind[rows] == KINDS.index(kind)
            assert seconds == pytest.approx((until - since)[mine].sum(), rel=1e-9, abs=1e-15)
        assert usage.bubble_s >= 0.0
        assert usage.step_s == pytest.approx(line.step_s)
