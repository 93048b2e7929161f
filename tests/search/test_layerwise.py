"""Layers that differ: as good as any way to share them out, and never worse than layers alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.search.layers import FOUR, NARROW, WINDOWED, all_splits, row, tight

from stretto.cluster import Cluster, find
from stretto.cost import Number
from stretto.model import Model
from stretto.plan import Plan
from stretto.presets import PRESETS
from stretto.search import Constraint, Found, Task, search
from stretto.search.frame import Frame, as_is
from stretto.search.layerwise import Layerwise, layerwise, mixed, same
from stretto.search.split import split
from stretto.search.staged import priced


def frame(
    model: Model, *, memory_bytes: float = 1e12, other: int | None = None, schedule: str = "1f1b",
    **words: float,
) -> Frame:  # fmt: skip
    devices = int(np.prod([words.get(axis, 1) for axis in ("pp", "dp", "tp")]))
    task = Task(model, tight(f"h100x{devices}", memory_bytes=memory_bytes), 64, 4096)
    return Frame(task, row(task, schedule, **words), other)


def check_none_is_faster(roomy: Frame, *, others: bool = False) -> None:
    """Compare with all ways to share the layers out, in little memory and in much."""
    all_ = [*all_splits(roomy, others=others)]
    need = np.array([one.cost.memory.total_bytes.max() for one in all_])
    seconds = np.array([one.step_s for one in all_])
    task = roomy.task
    for share in (-0.1, 0.01, 0.2, 0.4, 0.6, 0.8, 1.0):
        limit = need.min() + share * (need.max() - need.min())
        limit = max(limit, need.min() / 2)
        small = task.on(tight(f"h100x{task.devices}", memory_bytes=float(limit)))
        of = Frame(small, roomy.row, roomy.zero)
        found = split(of, mix=mixed(of))
        if found is None:
            assert share < 0
        else:
            assert found.step_s == pytest.approx(seconds[need <= limit].min(), rel=1e-12)


@pytest.mark.parametrize("schedule", ["1f1b", "gpipe"])
@pytest.mark.parametrize("model", [FOUR, NARROW, WINDOWED], ids=lambda model: model.name)
@pytest.mark.parametrize("pp", [1, 2, 3])
def test_no_way_to_share_the_layers_is_faster(schedule: str, model: Model, pp: int) -> None:
    check_none_is_faster(frame(model, schedule=schedule, pp=pp, micro_batch=2))


@pytest.mark.parametrize(("zero", "other"), [(1, 3), (1, 2), (2, 3), (3, 1), (3, 2)])
def test_nor_is_any_with_another_choice_of_what_rests_in_shards(zero: int, other: int) -> None:
    words = {"dp": 2.0, "micro_batch": 2.0, "shard": 2.0, "zero": float(zero)}
    check_none_is_faster(frame(NARROW, other=other, **words), others=True)


@pytest.mark.parametrize("pp", [1, 2])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_split_takes_what_its_plan_does(pp: int, share: float) -> None:
    words = {"pp": pp, "dp": 2, "micro_batch": 2, "zero": 1, "shard": 2}
    roomy = frame(NARROW, other=3, **words)
    need = [as_is(one).cost.memory.total_bytes.max() for one in (
        roomy, Frame(roomy.task, replace(roomy.row, recompute=np.asarray(2.0))))]  # fmt: skip
    of = frame(NARROW, memory_bytes=need[1] + share * (need[0] - need[1]), other=3, **words)
    found = split(of, mix=mixed(of))
    assert found is not None
    whole = found.priced()
    assert whole.step_s == pytest.approx(found.step_s, rel=1e-9)
    np.testing.assert_allclose(whole.memory_bytes, found.cost.memory.total_bytes, rtol=1e-9)
    assert whole.fits
    assert whole.plan.check(NARROW, of.task.cluster) == ()
    assert Plan.from_toml(whole.plan.to_toml()) == whole.plan


@pytest.mark.parametrize("count", [2, 3, 4])
def test_of_alike_layers_just_so_many_run_again_as_must(count: int) -> None:
    roomy = frame(NARROW, micro_batch=4)
    kept, work = roomy.pieces.kept_bytes[:, 0], roomy.pieces.work_bytes[:, 0]
    # A layer that runs again is whole while it does. An allocator loses 4 % of what comes and goes.
    spared = count * (kept[0] - kept[2]) - (work[2] - work[0])
    need = as_is(roomy).cost.memory.total_bytes.item() - 1.04 * spared
    of = frame(NARROW, memory_bytes=need + 1e6, micro_batch=4)
    found = split(of, mix=lambda kinds: whole_layers(of, len(kinds)))
    assert found is not None
    assert found.again[0, 2, 0] == count
    memory = found.plan.memory
    assert (memory.recompute, memory.recompute_layers) == ("full", count if count < 4 else None)
    assert found.plan.groups == ()


def whole_layers(of: Frame, count: int) -> Number:
    """Give the mixtures in which layers run again as a whole, or not at all."""
    found = np.zeros((count + 1, *of.pieces.kept_bytes.shape))
    found[:, 2, 0] = np.arange(count + 1)
    found[:, 0, 0] = count - found[:, 2, 0]
    return found


CASES = (
    ("llama-3-8b", find("rtx4090x8"), 64, 4096, ("schedule=1f1b",)),
    ("llama-3-8b", find("rtx4090x8"), 64, 4096, ()),
    ("llama-2-13b", find("a100-40gbx8"), 64, 4096, ("dp=8",)),
    ("gpt3-6.7b", tight("v100x16", memory_bytes=12e9), 64, 2048, ("pp>1",)),
    ("mixtral-8x7b", find("a100x16"), 64, 4096, ()),
    ("gpt-oss-20b", find("l40sx16"), 64, 8192, ("schedule=1f1b", "zero=1")),
)


@pytest.fixture(scope="module", params=range(len(CASES)))
def case(request: pytest.FixtureRequest) -> tuple[Found, Layerwise]:
    model, cluster, sequences, seq, texts = CASES[request.param]
    task = Task(PRESETS[model], cluster, sequences, seq)
    found = search(task, constraints=[Constraint.read(text) for text in texts])
    return found, layerwise(found)


def test_layers_that_differ_are_never_slower_than_layers_alike(
    case: tuple[Found, Layerwise],
) -> None:
    _, both = case
    assert both.best.step_s <= both.uniform.step_s or not both.uniform.fits
    assert both.best.fits


def test_the_plan_can_be_and_says_what_is_priced(case: tuple[Found, Layerwise]) -> None:
    found, both = case
    task, plan = found.task, both.best.plan
    assert plan.check(task.model, task.cluster) == ()
    again = priced(Plan.from_toml(plan.to_toml()), task.model, cluster=task.cluster,
                   stack=task.stack)  # fmt: skip
    assert again.step_s == both.best.step_s


def test_what_a_constraint_says_holds_for_all_layers(case: tuple[Found, Layerwise]) -> None:
    found, both = case
    words = both.best.plan.words
    columns = {name: getattr(words, name) for name in ("pp", "dp", "zero")}
    for constraint in found.constraints:
        if constraint.key in columns:
            assert constraint.holds({constraint.key: np.asarray(columns[constraint.key])})
        if constraint.key == "zero":
            assert all(group.rules is None for group in both.best.plan.groups)


def test_where_the_head_weighs_much_and_memory_is_short_layers_that_differ_are_faster() -> None:
    # 128 thousand tokens make the head of an 8B model two and a half layers heavy.
    task = Task(PRESETS["llama-3-8b"], find("rtx4090x8"), 64, 4096)
    both = layerwise(search(task, constraints=[Constraint.read("schedule=1f1b")]))
    assert both.speedup > 1.03


def test_what_may_not_run_again_does_not() -> None:
    task = Task(PRESETS["llama-3-8b"], find("h100x8"), 64, 8192)
    found = search(task, constraints=[Constraint.read("recompute=none")])
    plan = layerwise(found).best.plan
    assert plan.memory.recompute == "none"
    assert all(group.recompute is None for group in plan.groups)


def test_the_plan_of_a_search_is_one_of_its_splits() -> None:
    cluster: Cluster = tight("h100x2", memory_bytes=80e9)
    task = Task(FOUR, cluster, 64, 4096)
    for again, some in ((0, 0), (1, 0), (2, 0), (2, 1)):
        of = Frame(task, row(task, pp=2, recompute=again, recompute_layers=some))
        plain = as_is(of)
        assert plain.plan.memory.recompute_layers == (some or None)
        assert plain.step_s == pytest.approx(plain.priced().step_s)
        kept = split(of, mix=same(of))
        assert kept is not None
        assert kept.step_s <= plain.step_s


def test_stages_of_a_rank_that_has_several_stay_even() -> None:
    task = Task(replace(FOUR, layers=8), tight("h100x2", memory_bytes=80e9), 64, 4096)
    of = Frame(task, row(task, "interleaved", pp=2, interleave=2))
    found = split(of, mix=mixed(of))
    assert found is not None
    assert found.layers == ((0, 1, 4, 5), (2, 3, 6, 7))
    assert found.plan.pipeline.cut == ()
