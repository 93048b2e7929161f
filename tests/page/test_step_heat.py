"""A step seen from afar: every moment of every rank counts once."""

from __future__ import annotations

import numpy as np
import pytest
from steps import a_recording, a_subject, known
from tests.simulate.toy import cluster, modern

from stretto.page.step_heat import BINS, CELLS, Heat, bins, heat
from stretto.page.step_rows import SORTS
from stretto.program.draw import draw
from stretto.program.lower import lower
from stretto.simulate import SlowRank, simulate
from stretto.timeline import usages

DEVICE = [SORTS.index(name) for name in ("forward", "recompute", "backward", "update")]


@pytest.mark.parametrize("seed", range(12))
def test_the_sorts_of_a_bin_sum_to_its_length_and_those_of_a_rank_to_the_step(seed: int) -> None:
    program = lower(*draw(seed))
    line = simulate(program, cluster(program.placement.mesh.size), stack=modern())
    found = heat(line, program, until_s=line.step_s)
    assert found.bin_s * found.seconds.shape[1] == pytest.approx(line.step_s)
    assert np.allclose(found.seconds.sum(axis=2), found.bin_s, rtol=1e-3)
    assert np.allclose(found.usage.sum(axis=1), line.step_s, rtol=1e-4)
    assert (found.seconds >= 0).all()


@pytest.mark.parametrize("seed", range(12))
def test_a_rank_s_shares_are_what_its_usage_says(seed: int) -> None:
    program = lower(*draw(seed))
    line = simulate(program, cluster(program.placement.mesh.size), stack=modern())
    found = heat(line, program, until_s=line.step_s).usage
    for row, usage in zip(found, usages(line), strict=True):
        assert row[DEVICE].sum() == pytest.approx(usage.busy_s, rel=1e-3, abs=1e-6)
        assert row[0] == pytest.approx(usage.bubble_s, rel=1e-3, abs=1e-4 * line.step_s)
        for name, seconds in usage.exposed_s.items():
            assert row[SORTS.index(name)] == pytest.approx(seconds, rel=1e-3, abs=1e-5)


def test_shares_of_a_recorded_step_are_what_its_usage_says() -> None:
    subject = a_subject()
    program, _ = known(subject)
    line = a_recording(subject, faults=[SlowRank(1, 2.0)], noise=0.1).timeline
    found = heat(line, program, until_s=line.step_s).usage
    for row, usage in zip(found, usages(line), strict=True):
        assert row[DEVICE].sum() == pytest.approx(usage.busy_s, rel=1e-3)


def by_hand() -> Heat:
    """Two ranks, four bins of a second: the first computes for 1.5 s, then waits."""
    seconds = np.zeros((2, 4, len(SORTS)), dtype=np.float32)
    seconds[:, :, 0] = 1
    seconds[0, 0, [0, 1]] = 0, 1
    seconds[0, 1, [0, 1]] = 0.4, 0.6
    return Heat(seconds, 1.0)


def test_a_cell_is_the_sort_that_takes_most_and_how_much_of_the_bin() -> None:
    cells = by_hand().dominant
    assert (cells & 15).tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert (cells >> 4).tolist() == [[15, 9, 15, 15], [15, 15, 15, 15]]


@pytest.mark.parametrize("players", [1, 64, 4096, 100_000])
def test_a_map_has_few_cells_however_many_ranks_there_are(players: int) -> None:
    assert 64 <= bins(players) <= BINS
    assert bins(players) == 64 or players * bins(players) <= CELLS
