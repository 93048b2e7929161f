"""Small steps worked out by hand, and what a timeline says of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.simulate.toy import (
    LATENCY_S,
    NODE_BYTES_PER_S,
    cluster,
    model,
    modern,
    plan,
    software,
)

from stretto.cluster import Cluster, Part
from stretto.cost import Machine
from stretto.cost.instruction import Prices
from stretto.program.instruction import Compute, Program, Update
from stretto.program.lower import lower
from stretto.simulate import SlowRank, simulate
from stretto.timeline import KINDS, usages

WIDTH = 4
BALLOT_S = 32 / NODE_BYTES_PER_S


def device_s(program: Program, kind: type, *, stage: int = 0) -> float:
    """Give the seconds of all instructions of a kind of a stage."""
    size = program.placement.mesh.size
    prices = Prices(program, Machine.of(cluster(size, node=size)), software())
    listed = program.stages[stage]
    return sum(prices.seconds(x, listed) for x in listed.instructions if isinstance(x, kind))


def ring_s(size_bytes: float, ranks: int) -> float:
    return size_bytes * (ranks - 1) / ranks / NODE_BYTES_PER_S + (ranks - 1) * LATENCY_S


def test_a_reduction_in_one_bucket_comes_after_all_computes() -> None:
    program = lower(model(), plan(dp=2))
    size = WIDTH * program.model.parameter_count
    line = simulate(program, cluster(2), stack=software())
    vote_s = 2 * ring_s(32, 2)
    reduce_s = 2 * ring_s(size, 2)
    assert line.step_s == pytest.approx(
        device_s(program, Update) + device_s(program, Compute) + reduce_s + vote_s, rel=1e-9
    )
    (usage,) = usages(line)
    assert usage.exposed_s["gradient"] == pytest.approx(reduce_s)
    assert usage.exposed_s["vote"] == pytest.approx(vote_s)
    assert usage.bubble_s == pytest.approx(0.0, abs=1e-12)


def test_new_weights_are_gathered_between_update_and_forward() -> None:
    program = lower(model(), plan(dp=2, zero=1))
    size = WIDTH * program.model.parameter_count
    line = simulate(program, cluster(2), stack=software())
    expected = device_s(program, Update) + device_s(program, Compute) + 2 * ring_s(32, 2)
    # Reduce-scatter and all-gather, each one message for all parameters in one bucket.
    assert line.step_s == pytest.approx(expected + 2 * ring_s(size, 2), rel=1e-9)
    kinds = [KINDS[k] for k in line.kind[np.argsort(line.start_s, kind="stable")] if k]
    assert kinds[:3] == ["device", "parameter", "device"]


def test_one_micro_batch_goes_down_and_up_the_stages() -> None:
    program = lower(model(), plan(pp=2, micro_batches=1, cut=(0, 3)))
    line = simulate(program, cluster(2), stack=software())
    send_s = 16 * 8 * WIDTH / NODE_BYTES_PER_S + LATENCY_S
    computes = [device_s(program, Compute, stage=s) for s in (0, 1)]
    first = device_s(program, Update)
    assert line.step_s == pytest.approx(first + sum(computes) + 2 * send_s + 2 * ring_s(32, 2))
    for usage in usages(line):
        assert usage.exposed_s["pipeline"] == pytest.approx(send_s)
    # A message that is on the critical path stands there as it arrives.
    assert [line.rank[r] for r in line.critical() if KINDS[line.kind[r]] == "pipeline"] == [1, 0]


def test_tied_embeddings_are_exchanged_at_the_end() -> None:
    tied, own = (
        lower(model(tied=t), plan(pp=2, micro_batches=1, cut=(0, 3))) for t in (True, False)
    )
    lines = [simulate(p, cluster(2), stack=software()) for p in (tied, own)]
    update_s = [device_s(p, Update) for p in (tied, own)]
    send_s = 32 * 8 * WIDTH / NODE_BYTES_PER_S + LATENCY_S
    seconds = [line.step_s - u for line, u in zip(lines, update_s, strict=True)]
    assert seconds[0] - seconds[1] == pytest.approx(send_s, rel=1e-9)


def test_ranks_on_slower_devices_are_played_by_themselves() -> None:
    program = lower(model(), plan(dp=4))
    (fast,) = cluster(4).parts
    halved = tuple((name, rate / 2) for name, rate in fast.device.flops_per_s)
    slow = replace(fast.device, flops_per_s=halved)
    levels = cluster(2).levels
    parts = (Part(fast.device, 2, levels), Part(slow, 2, levels))
    mixed = Cluster("mixed", parts, cluster(4).levels)
    line = simulate(program, mixed, stack=software())
    assert line.alike == ((0, 1), (2, 3))
    quick, lame = usages(line)
    # Products take twice as long, what memory bounds as long as ever.
    assert 1.9 * quick.busy_s < lame.busy_s < 2 * quick.busy_s
    assert quick.bubble_s + quick.busy_s == pytest.approx(lame.bubble_s + lame.busy_s)


def test_what_is_lost_by_chance_is_stated_and_not_played() -> None:
    program = lower(model(), plan(dp=32))
    line, calm = (simulate(program, cluster(32), stack=modern(straggle=s)) for s in (0.05, 0.0))
    assert line.step_s == calm.step_s == calm.expected_s
    assert line.expected_s == pytest.approx(line.step_s * (1 + 0.05 * 2))  # 32 = 8·2²


def test_an_instruction_that_takes_no_time_stands_where_the_device_has_come() -> None:
    program = lower(model(), plan())
    line = simulate(program, cluster(1), stack=software())
    idle = line.kind == 0
    assert idle.any() and (line.start_s[idle] == line.stop_s[idle]).all()
    for row in np.flatnonzero(idle).tolist():
        after_vote = KINDS[line.kind[row - 1]] == "vote"  # there a step begins
        assert line.stop_s[row] == (0.0 if after_vote else line.stop_s[row - 1])


def test_rows_are_in_the_order_of_ranks_and_lists() -> None:
    line = simulate(lower(model(), plan(pp=2)), cluster(2), stack=software())
    order = list(zip(line.player.tolist(), line.instruction.tolist(), strict=True))
    assert order == sorted(order)
    assert set(line.rank.tolist()) == {0, 1}


def test_where_time_goes_does_not_depend_on_how_many_ranks_are_played() -> None:
    program = lower(model(), plan(pp=2, dp=4, tp=2, sequence=True, zero=1))
    # So little slower that nobody notices, but each rank by itself.
    unlike = [SlowRank(rank, 1.0 + 1e-15 * (rank + 1)) for rank in range(16)]
    few, every = (
        simulate(program, cluster(16), stack=modern(), faults=faults) for faults in ((), unlike)
    )
    assert (len(few.alike), len(every.alike)) == (2, 16)
    assert few.step_s == pytest.approx(every.step_s)
    kinds = {rank: u for u, ranks in zip(usages(few), few.alike, strict=True) for rank in ranks}
    for mine in usages(every):
        theirs = kinds[mine.rank]
        assert mine.bubble_s == pytest.approx(theirs.bubble_s, abs=1e-9)
        assert dict(mine.exposed_s) == pytest.approx(dict(theirs.exposed_s), abs=1e-9)


def test_what_the_software_costs_in_every_step_is_the_hosts_and_not_the_votes() -> None:
    program = lower(model(), plan(dp=2))
    line, bare = (
        simulate(program, cluster(2), stack=software(step_s=step_s)) for step_s in (0.5, 0.0)
    )
    assert line.step_s == pytest.approx(bare.step_s + 0.5)
    (mine,), (before,) = usages(line), usages(bare)
    assert mine.exposed_s["host"] == pytest.approx(0.5)
    assert mine.exposed_s["vote"] == pytest.approx(before.exposed_s["vote"])
    host = int(np.flatnonzero(line.kind == KINDS.index("host"))[0])
    assert line.instruction[host] == -1 and host in line.critical()
