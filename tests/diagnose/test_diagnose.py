"""Causes are told apart by whose times deviate from whose, and cost what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.diagnose.injected import Pause, Scene, Slow, drawn, measured, realistic
from tests.diagnose.wrongs import Wrong
from tests.simulate.toy import cluster, model, modern, plan, software

from stretto.cluster import Cluster, Level
from stretto.diagnose.compare import Comparison, compare
from stretto.diagnose.diagnose import diagnose
from stretto.diagnose.finding import Cause, Finding, likely
from stretto.program.draw import draw
from stretto.program.instruction import Compute, Move, Program
from stretto.program.lower import lower
from stretto.program.memory import memory
from stretto.quantities import seconds
from stretto.simulate import Fault, SlowLink, SlowRank, simulate
from stretto.timeline import KINDS, Timeline
from stretto.timeline.recorded import Counters, Recording

cases = settings(max_examples=15, deadline=None)


def scene(program: Program, *, node: int = 8, stack: Any = None) -> Scene:
    here = cluster(program.placement.mesh.size, node=node)
    return Scene("toy", program, here, stack or software())


def beside(here: Scene, line: Timeline) -> Comparison:
    predicted = simulate(here.program, here.cluster, stack=here.stack)
    return compare(predicted, line, program=here.program)


def found(here: Scene, line: Timeline, **known: Any) -> tuple[Finding, ...]:
    return diagnose(beside(here, line), cluster=here.cluster, stack=here.stack, **known)


def played(here: Scene, *faults: Fault) -> Timeline:
    return simulate(here.program, here.cluster, stack=here.stack, faults=faults)


def faulty(here: Scene, *faults: Fault, noise: float = 0.04) -> tuple[Finding, ...]:
    return found(here, measured(here, seed=1, noise=noise, faults=faults))


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────


@cases
@given(st.integers(0, 10_000))
def test_a_step_as_predicted_has_no_cause(seed: int) -> None:
    here = scene(lower(*draw(seed)), node=3, stack=modern())
    assert found(here, played(here)) == ()


@cases
@given(st.integers(0, 10_000), st.floats(1.3, 3.0))
def test_a_rank_that_is_slower_than_those_like_it_is_named_with_its_factor(
    seed: int, factor: float
) -> None:
    here = scene(lower(*draw(seed)), node=64, stack=modern())
    rank = here.size - 1
    others = here.size > len(here.program.stages)
    longer = played(here, SlowRank(rank, factor)).step_s / played(here).step_s
    findings = found(here, played(here, SlowRank(rank, factor)))
    if others and longer > 1.01:
        assert [(f.cause, f.ranks) for f in findings] == [(Cause.SLOW_RANK, (rank,))]
        assert findings[0].factor == pytest.approx(factor, rel=1e-3)
    elif others:
        assert all(f.ranks == (rank,) for f in findings)


@cases
@given(st.permutations(range(4)), st.integers(0, 99))
def test_what_is_found_moves_with_the_ranks(order: list[int], seed: int) -> None:
    here = scene(lower(model(), plan(dp=4)))
    line = measured(here, seed=seed, noise=0.04, faults=[SlowRank(1, 1.5)])
    moved = replace(line, alike=tuple((order[ranks[0]],) for ranks in line.alike))
    before, after = (
        {(f.cause, f.ranks): f.extra_s for f in found(here, one)} for one in (line, moved)
    )
    assert (Cause.SLOW_RANK, (1,)) in before
    expected = {(c, tuple(order[r] for r in ranks)): s for (c, ranks), s in before.items()}
    assert after == pytest.approx(expected)


@pytest.mark.parametrize("index", range(7))
def test_what_a_cause_is_said_to_cost_is_what_the_step_is_shorter_without_it(index: int) -> None:
    here = realistic(index)
    step_s = played(here).step_s
    per_node, level = here.cluster.per_node, here.cluster.levels[-1].name
    node = tuple(range(per_node, 2 * per_node))
    for how in (
        {"faults": (SlowRank(here.size - 1, 1.7),)},
        {"faults": (SlowLink(node, level, 5.0),)},
        {"pause": Pause((0,), "data", 0.2 * step_s)},
        {"pause": Pause(tuple(range(here.size)), "host", 0.2 * step_s)},
    ):
        line = measured(here, seed=0, noise=0.0, **how)  # type: ignore[arg-type]
        lost_s = line.step_s - step_s
        told_s = sum(f.extra_s for f in found(here, line))
        assert told_s == pytest.approx(lost_s, rel=0.2, abs=0.01 * step_s), how


# ── ranks ────────────────────────────────────────────────────────────────────────────────────────


def test_the_sentence_of_a_slow_rank_says_who_where_how_much_and_what_to_do() -> None:
    here = scene(lower(model(), plan(dp=4)), node=2)
    line = played(here, SlowRank(3, 2.0))
    (finding,) = found(here, line)
    lost = f"{seconds(finding.extra_s)} of a step of {seconds(line.step_s)}"
    assert finding.extra_s == pytest.approx(line.step_s - played(here).step_s, rel=0.02)
    assert finding.why == (
        f"rank 3 on h1 computes 2× slower than the 3 ranks that do the same work; it costs {lost}; "
        "check its clocks and temperature, and what else runs there"
    )
    assert (finding.where, finding.ranks) == ("rank 3", (3,))
    assert finding.share == pytest.approx(finding.extra_s / line.step_s)


def test_ranks_of_a_host_that_are_all_slow_are_one_finding() -> None:
    here = scene(lower(model(), plan(dp=8)), node=4)
    (finding,) = faulty(here, *(SlowRank(rank, 1.5) for rank in range(4, 8)))
    assert (finding.cause, finding.where, finding.ranks) == (Cause.SLOW_RANK, "h1", (4, 5, 6, 7))
    assert finding.why.startswith("h1 with its 4 ranks computes ")
    assert " slower than the 4 ranks that do the same work; " in finding.why
    assert finding.factor == pytest.approx(1.5, rel=0.05)


def test_two_slow_ranks_are_two_findings_the_worse_one_first() -> None:
    here = scene(lower(model(), plan(dp=8)))
    findings = faulty(here, SlowRank(6, 1.3), SlowRank(2, 2.0))
    # Without rank 6 the step is not shorter: all wait for rank 2 still.
    assert [f.where for f in findings] == ["rank 2"]


def test_of_two_ranks_it_is_the_slower_one() -> None:
    here = scene(lower(model(), plan(dp=2)))
    (finding,) = faulty(here, SlowRank(0, 1.4))
    assert (finding.cause, finding.where) == (Cause.SLOW_RANK, "rank 0")
    assert "than rank 1, which does the same work" in finding.why


def test_several_steps_tell_what_one_does_not() -> None:
    here = scene(lower(model(), plan(dp=4)))
    steps = [
        beside(here, measured(here, seed=seed, noise=0.3, faults=[SlowRank(2, 1.5)]))
        for seed in range(12)
    ]
    words = {"cluster": here.cluster, "stack": here.stack}
    alone = diagnose(steps[0], **words)  # type: ignore[arg-type]
    together = diagnose(steps[0], **words, others=steps[1:])  # type: ignore[arg-type]
    assert Cause.SLOW_RANK not in {f.cause for f in alone}
    assert (Cause.SLOW_RANK, "rank 2") in {(f.cause, f.where) for f in together}


def test_stages_are_compared_by_what_they_have_in_common() -> None:
    here = scene(lower(model(layers=6), plan(pp=3, micro_batches=4)))
    (finding,) = faulty(here, SlowRank(1, 1.5))
    assert (finding.cause, finding.where) == (Cause.SLOW_RANK, "rank 1")


def test_a_rank_that_something_interrupts_now_and_then_is_named() -> None:
    program = lower(model(layers=6), plan(dp=4, micro_batches=4))
    here = scene(program)
    computes = [i for i, x in enumerate(program.of(2).instructions) if isinstance(x, Compute)]
    hiccups = Slow(2, dict.fromkeys(computes[::10], 12.0))
    line = measured(here, seed=1, noise=0.04, slow=[hiccups])
    (finding,) = found(here, line)
    assert (finding.cause, finding.where) == (Cause.SLOW_RANK, "rank 2")
    share = f"{len(computes[::10])} of {len(computes) + 1} computes"  # and the update
    assert share in finding.why and "something interrupts them" in finding.why


def test_interruptions_everywhere_are_nobodys() -> None:
    program = lower(model(layers=6), plan(dp=4, micro_batches=4))
    here = scene(program)
    computes = [i for i, x in enumerate(program.of(0).instructions) if isinstance(x, Compute)]
    hiccups = [Slow(r, dict.fromkeys(computes[r + 2 :: 20], 12.0)) for r in range(4)]
    (finding,) = found(here, measured(here, seed=1, noise=0.04, slow=hiccups))
    assert (finding.cause, finding.where) == (Cause.UNEXPLAINED, "all ranks")


# ── links ────────────────────────────────────────────────────────────────────────────────────────


def line_of_nodes(nodes: int, *, node: int = 2) -> Scene:
    """Give a pipeline with a stage on each node."""
    program = lower(model(layers=nodes, embed=64), plan(pp=nodes, dp=node, micro_batches=4))
    return scene(program, node=node)


def test_a_link_that_only_two_hosts_use_is_that_between_them() -> None:
    here = line_of_nodes(4)
    ends = faulty(here, SlowLink((0, 1), "spine", 4.0))
    assert [(f.cause, f.where, f.ranks) for f in ends] == [(Cause.SLOW_LINK, "h0–h1", (0, 1, 2, 3))]
    assert ends[0].why.startswith("messages between h0 and h1 take ")
    assert ends[0].factor == pytest.approx(4.0, rel=0.1)


def test_a_hosts_link_is_slow_to_all_with_whom_it_talks() -> None:
    here = line_of_nodes(4)
    (finding,) = faulty(here, SlowLink((4, 5), "spine", 4.0))
    assert (finding.cause, finding.where, finding.ranks) == (
        Cause.SLOW_LINK, "h2 into spine", (4, 5),
    )  # fmt: skip


def test_a_devices_link_is_told_from_its_hosts() -> None:
    here = scene(lower(model(embed=64), plan(pp=2, dp=4, micro_batches=4)), node=4)
    (finding,) = faulty(here, SlowLink((2,), "spine", 6.0))
    # Rank 2 talks with rank 6 only over the spine: it may be the link of either.
    assert finding.cause is Cause.SLOW_LINK
    assert finding.where == "one of rank 2, rank 6 into spine"
    assert finding.why.endswith("measure each: the same messages take them")


def test_members_of_a_ring_cannot_be_told_apart_and_nobody_pretends() -> None:
    here = scene(lower(model(vocab=4096), plan(dp=4, tp=2)), node=2)
    findings = faulty(here, SlowLink((4, 5), "spine", 4.0))
    # Both rings pass all hosts: a slow link of one looks like slow links of all.
    assert [(f.cause, f.where) for f in findings] == [
        (Cause.WRONG_CONSTANT, "spine.one_way_bandwidth")
    ]
    assert findings[0].why.endswith("or a link of h0, h1, h2, h3, which they all pass, is slow")


def test_between_two_hosts_alone_it_is_their_link_or_its_number() -> None:
    here = scene(lower(model(embed=64), plan(pp=2, dp=2, micro_batches=4)), node=2)
    (finding,) = faulty(here, SlowLink((0, 1), "spine", 4.0))
    assert (finding.cause, finding.where) == (Cause.SLOW_LINK, "h0–h1")
    assert "or spine.one_way_bandwidth is too high" in finding.why


def test_a_link_is_not_blamed_for_ranks_that_come_late() -> None:
    here = line_of_nodes(4)
    (finding,) = faulty(here, SlowRank(3, 3.0))
    assert (finding.cause, finding.where) == (Cause.SLOW_RANK, "rank 3")


def test_a_rank_is_not_blamed_for_computes_that_messages_slow_down() -> None:
    here = replace(line_of_nodes(4), stack=modern(contention=1.0))
    findings = faulty(here, SlowLink((4, 5), "spine", 4.0))
    assert [(f.cause, f.where) for f in findings] == [(Cause.SLOW_LINK, "h2 into spine")]


# ── what depends on a number of the cluster's file ───────────────────────────────────────────────


def changed(here: Cluster, **numbers: float) -> Cluster:
    (part,) = here.parts
    return replace(here, parts=(replace(part, device=replace(part.device, **numbers)),))  # type: ignore[arg-type]


def with_level(here: Cluster, name: str, **numbers: float) -> Cluster:
    def level(one: Level) -> Level:
        return replace(one, **numbers) if one.name == name else one  # type: ignore[arg-type]

    return replace(here, levels=tuple(level(one) for one in here.levels))


def really(here: Scene, there: Cluster) -> tuple[Finding, ...]:
    """Find why a step that was predicted for one cluster is as it is on another."""
    return found(here, measured(replace(here, cluster=there), seed=1, noise=0.04))


def test_devices_that_reach_less_everywhere_are_a_wrong_efficiency() -> None:
    here = realistic(1)
    device = here.cluster.device
    rates = tuple((n, e / 1.5) for n, e in device.efficiency)
    findings = really(here, changed(here.cluster, efficiency=rates))  # type: ignore[arg-type]
    assert [(f.cause, f.where) for f in findings] == [(Cause.WRONG_CONSTANT, "efficiency.bfloat16")]
    assert findings[0].factor == pytest.approx(1.5, rel=0.05)
    assert "the cluster's file promises too much: stretto calibrate fits it" in (findings[0].why)


def test_devices_with_faster_memory_save_time() -> None:
    here = realistic(1)
    faster = 2 * here.cluster.device.memory_bytes_per_s
    findings = really(here, changed(here.cluster, memory_bytes_per_s=faster))
    assert [(f.cause, f.where) for f in findings] == [(Cause.WRONG_CONSTANT, "memory_bandwidth")]
    assert findings[0].extra_s < 0 and findings[0].factor == pytest.approx(0.5, rel=0.05)
    assert "it saves" in findings[0].why and "promises too little" in findings[0].why


def test_a_level_with_longer_latency_is_told_from_a_thinner_one() -> None:
    here = scene(lower(model(), plan(tp=4, dp=2, sequence=True)), node=4)
    far = with_level(here.cluster, "node", latency_s=4e-3)
    thin = with_level(here.cluster, "node", bytes_per_s=2.5e5)
    assert [f.where for f in really(here, far)] == ["node.latency"]
    assert [f.where for f in really(here, thin)] == ["node.one_way_bandwidth"]


def test_a_slow_rank_is_found_where_the_numbers_are_wrong_too() -> None:
    here = realistic(1)
    device = here.cluster.device
    rates = tuple((n, e / 1.5) for n, e in device.efficiency)
    there = replace(here, cluster=changed(here.cluster, efficiency=rates))  # type: ignore[arg-type]
    findings = found(here, measured(there, seed=1, noise=0.04, faults=[SlowRank(5, 1.6)]))
    assert {(f.cause, f.where) for f in findings} == {
        (Cause.WRONG_CONSTANT, "efficiency.bfloat16"), (Cause.SLOW_RANK, "rank 5"),
    }  # fmt: skip
    slow = next(f for f in findings if f.cause is Cause.SLOW_RANK)
    assert slow.factor == pytest.approx(1.6, rel=0.05)


def test_what_no_number_explains_is_said_to_be_so() -> None:
    program = lower(model(layers=6), plan(dp=4, micro_batches=4))
    here = scene(program)
    heads = [
        i for i, x in enumerate(program.of(0).instructions)
        if isinstance(x, Compute) and program.chain[x.block].kind == "attention"
        and x.phase == "backward"
    ]  # fmt: skip
    slow = [Slow(rank, dict.fromkeys(heads, 2.0)) for rank in range(4)]
    (finding,) = found(here, measured(here, seed=1, noise=0.04, slow=slow))
    assert finding.cause is Cause.UNEXPLAINED
    assert finding.where.startswith("backward attention[")
    assert "no number of the cluster's file says why" in finding.why


def test_a_message_that_takes_long_once_is_at_least_named() -> None:
    program = lower(model(layers=6), plan(tp=4, micro_batches=4))
    here = scene(program)
    moves = [i for i, x in enumerate(program.of(0).instructions) if isinstance(x, Move)]
    line = measured(here, seed=1, noise=0.04, slow=[Slow(0, {moves[3]: 400.0})])
    (finding,) = found(here, line)
    assert finding.cause is Cause.UNEXPLAINED
    (costliest,) = beside(here, line).top(1)
    assert finding.where == costliest.label and costliest.instruction == moves[3]
    assert "is not explained by anything else" in finding.why
    assert finding.extra_s == pytest.approx(costliest.extra_s, rel=0.3)


def test_what_is_left_stands_before_a_cause_that_costs_less() -> None:
    program = lower(model(layers=6), plan(tp=4, micro_batches=4))
    here = scene(program)
    moves = [i for i, x in enumerate(program.of(0).instructions) if isinstance(x, Move)]
    slow = [Slow(0, {moves[3]: 400.0})]
    pause = Pause((0, 1, 2, 3), "host", 0.02 * played(here).step_s)
    findings = found(here, measured(here, seed=1, noise=0.01, slow=slow, pause=pause))
    assert [f.cause for f in findings] == [Cause.UNEXPLAINED, Cause.HOST]
    assert findings[0].extra_s > findings[1].extra_s > 0


def test_what_saves_much_stands_before_what_costs_little() -> None:
    here = realistic(1)
    faster = changed(here.cluster, memory_bytes_per_s=2 * here.cluster.device.memory_bytes_per_s)
    there = replace(here, cluster=faster)
    pause = Pause(tuple(range(here.size)), "data", 0.02 * played(here).step_s)
    findings = found(here, measured(there, seed=1, noise=0.01, pause=pause))
    assert [f.cause for f in findings] == [Cause.WRONG_CONSTANT, Cause.DATA_WAIT]
    assert findings[0].extra_s < 0 < findings[1].extra_s < -findings[0].extra_s


# ── waits and memory ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "cause"), [("data", Cause.DATA_WAIT), ("host", Cause.HOST)])
def test_a_wait_of_a_rank_for_itself_is_told_from_waits_for_it(kind: Any, cause: Cause) -> None:
    here = scene(lower(model(), plan(dp=4)))
    seconds = 0.3 * played(here).step_s
    (finding,) = found(here, measured(here, seed=1, noise=0.04, pause=Pause((2,), kind, seconds)))
    assert (finding.cause, finding.where, finding.ranks) == (cause, "rank 2", (2,))
    assert finding.extra_s == pytest.approx(seconds, rel=0.1)
    everyone = Pause((0, 1, 2, 3), kind, seconds)
    (finding,) = found(here, measured(here, seed=1, noise=0.04, pause=everyone))
    assert (finding.cause, finding.where) == (cause, "all ranks")


def recording(here: Scene, line: Timeline, *, faults: Sequence[int], host: str = "") -> Recording:
    """Give what was recorded where ranks counted so many major faults."""
    kept = Wrong(here, None).recording(line, seed=0)
    counters = tuple(
        Counters(rank, host or f"h{rank // here.cluster.per_node}", count, 0, 0, 0.0, 0.0)
        for rank, count in enumerate(faults)
    )
    return replace(kept, counters=counters)


def crowded(here: Scene, *ranks: int) -> list[Slow]:
    """Give computes that take three times as long while memory is more than half full."""
    slow = []
    for rank in ranks:
        stage = here.program.of(rank)
        held = memory(stage, here.program.placement).held_bytes
        computes = [i for i, x in enumerate(stage.instructions) if isinstance(x, Compute)]
        line = (min(held[i] for i in computes) + max(held[i] for i in computes)) / 2
        slow.append(Slow(rank, {i: 3.0 for i in computes if held[i] > line}))
    return slow


def test_a_rank_that_is_slow_while_its_memory_is_full_needs_memory() -> None:
    here = scene(lower(model(layers=6), plan(dp=4, micro_batches=4)))
    line = measured(here, seed=1, noise=0.04, slow=crowded(here, 1))
    (finding,) = found(here, line, recording=recording(here, line, faults=(3, 250, 1, 2)))
    assert (finding.cause, finding.where) == (Cause.MEMORY_PRESSURE, "rank 1")
    assert finding.factor == pytest.approx(3.0, rel=0.1)
    assert "and counted 250 major page faults (others 2) and 0 retries of its allocator" in (
        finding.why
    )
    assert " are held than the 3 ranks that do the same work" in finding.why


def test_without_faults_the_same_is_a_slow_rank() -> None:
    here = scene(lower(model(layers=6), plan(dp=4, micro_batches=4)))
    line = measured(here, seed=1, noise=0.04, slow=crowded(here, 1))
    findings = found(here, line, recording=recording(here, line, faults=(3, 4, 1, 2)))
    assert {f.cause for f in findings} == {Cause.SLOW_RANK}


def test_faults_alone_cost_nothing() -> None:
    here = scene(lower(model(), plan(dp=4)))
    line = measured(here, seed=1, noise=0.04)
    assert found(here, line, recording=recording(here, line, faults=(0, 900, 0, 0))) == ()


def test_memory_that_is_short_everywhere_is_found_too() -> None:
    here = scene(lower(model(layers=6), plan(dp=4, micro_batches=4)))
    line = measured(here, seed=1, noise=0.04, slow=crowded(here, 0, 1, 2, 3))
    kept = recording(here, line, faults=(300, 310, 290, 305))
    findings = found(here, line, recording=kept)
    assert (findings[0].cause, findings[0].where) == (Cause.MEMORY_PRESSURE, "all ranks")


def test_hosts_are_called_as_they_were_recorded() -> None:
    here = scene(lower(model(), plan(dp=4)))
    line = measured(here, seed=1, noise=0.04, faults=[SlowRank(1, 2.0)])
    kept = recording(here, line, faults=(0, 0, 0, 0), host="node-17")
    (finding,) = found(here, line, recording=kept)
    assert finding.why.startswith("rank 1 on node-17 computes ")


# ── the cause of an instruction ──────────────────────────────────────────────────────────────────


@cases
@given(st.integers(0, 10_000), st.floats(1.5, 4.0), st.booleans())
def test_no_compute_takes_longer_for_a_link_and_no_message_for_a_device(
    seed: int, factor: float, links: bool
) -> None:
    here = drawn(seed)
    if links:
        levels = tuple(replace(v, latency_s=factor * v.latency_s) for v in here.cluster.levels)
        there = replace(here.cluster, levels=levels)
    else:
        rates = tuple((name, rate / factor) for name, rate in here.cluster.device.efficiency)
        there = changed(here.cluster, efficiency=rates)  # type: ignore[arg-type]
    line = measured(replace(here, cluster=there), seed=seed, noise=0.03)
    device, level = (line.kind == KINDS.index("device")), {v.name for v in here.cluster.levels}
    for finding in found(here, line):
        if finding.cause is Cause.WRONG_CONSTANT:
            others = device if finding.where.split(".")[0] in level else ~device
            assert (finding.longer[others] == 1.0).all()


def test_the_costliest_instructions_have_the_cause_that_touches_them_most() -> None:
    here = scene(lower(model(vocab=512), plan(pp=2, dp=4, micro_batches=4)), node=4)
    line = measured(here, seed=1, noise=0.02, faults=[SlowRank(1, 2.0)])
    compared = beside(here, line)
    findings = diagnose(compared, cluster=here.cluster, stack=here.stack)
    for costly in compared.top():
        cause = likely(costly, findings)
        assert cause is not None and cause.where == "rank 1" == f"rank {costly.rank}"
    device = line.kind == KINDS.index("device")
    other = np.flatnonzero(device & (line.rank == 0))[0]
    innocent = replace(compared.top(1)[0], row=int(other))
    assert likely(innocent, findings) is None
