"""The plans that are tried: all of them, each once, each a plan."""

from __future__ import annotations

import itertools
import random
from dataclasses import fields

import numpy as np
import pytest
from cases import TASKS, task

from stretto.cost import Choice
from stretto.search import Constraint, Found, Options, Row, Task, choice_of, plan_of, search, words
from stretto.search.constraint import widened
from stretto.search.row import ORDERS
from stretto.search.search import demanded
from stretto.search.space import divisors, grids

ALL_MOVES = Options(
    sequence=(0, 1), two_level=(0, 1), codec=(0, 1, 2), offload=(0.0, 0.5),
    optimizer_offload=(0.0, 1.0), micro_batch=(1, 2, 3), interleave=(2, 3), shard=(0, -1, 4),
)  # fmt: skip


@pytest.fixture(scope="module", params=range(len(TASKS)))
def found(request: pytest.FixtureRequest) -> Found:
    return search(TASKS[request.param])


def some(found: Found, count: int) -> list[Row]:
    """Draw candidates at random, and the best few of every family."""
    places = random.Random(0).choices(range(len(found.candidates)), k=count)
    rows = found.candidates.rows([*places, *found.family_firsts])
    return [rows.at(i) for i in range(len(rows.pp))]


def alike(row: Row, task: Task) -> None:
    """Assert that a row and its plan have the same numbers; shares are sums over layers there."""
    ours, theirs = choice_of(row, task), Choice.of(plan_of(row, task), task.model)
    for f in fields(Choice):
        own = getattr(ours, f.name)
        assert own == pytest.approx(getattr(theirs, f.name), rel=1e-12), f.name


def test_the_numbers_of_a_row_are_those_of_its_plan(found: Found) -> None:
    for row in some(found, 60):
        alike(row, found.task)


def test_no_plan_that_is_found_has_a_problem(found: Found) -> None:
    for row in some(found, 60):
        assert plan_of(row, found.task).check(found.task.model) == ()


def test_rows_with_rare_decisions_are_plans_of_the_same_numbers_too() -> None:
    small = task("gpt2", "h100x16", sequences=48, seq=1024)
    found = search(small, options=ALL_MOVES)
    for row in some(found, 200):
        assert plan_of(row, small).check(small.model) == ()
        alike(row, small)


def test_every_plan_is_tried_once() -> None:
    small = task("gpt2", "h100x16", sequences=48, seq=1024)
    found = search(small)
    rows = found.candidates.rows(range(len(found.candidates)))
    columns = np.stack([getattr(rows, f.name) for f in fields(Row)])
    assert np.unique(columns, axis=1).shape[1] == len(found.candidates)
    plans = [plan_of(rows.at(i), small) for i in random.Random(1).sample(range(len(rows.pp)), 300)]
    assert len(set(plans)) == len(plans)


def test_every_mesh_of_the_devices_is_tried() -> None:
    small = task("gpt2", "h100x24", sequences=48, seq=1024)
    tried = {
        (pp, dp, cp, tp)
        for grid in grids(small, Options())
        for pp, dp, cp, tp in zip(
            *(getattr(grid.rows, n).ravel().astype(int).tolist() for n in ("pp", "dp", "cp", "tp")),
            strict=True,
        )
    }
    expected = {mesh for mesh in itertools.product(divisors(24), repeat=4) if np.prod(mesh) == 24}
    assert tried == expected


def test_experts_are_spread_over_every_divisor_of_their_number() -> None:
    moe = task("experts", "h100x32", sequences=128, seq=4096)
    rows = [grid.rows for grid in grids(moe, Options())]
    pairs = {(ep, etp == tp) for r in rows for ep, etp, tp in zip(
        r.ep.ravel().tolist(), r.etp.ravel().tolist(), r.tp.ravel().tolist(), strict=True
    )}  # fmt: skip
    assert {ep for ep, _ in pairs} == {1, 2, 4, 8}
    assert (4, True) in pairs and (4, False) in pairs


def test_plans_that_are_tried_and_rejected_add_up() -> None:
    for one in TASKS:
        found = search(one)
        everything = sum(int(grid.weights.sum()) for grid in grids(one, Options()))
        assert found.tried == everything


def test_divisors_are_all_divisors() -> None:
    assert divisors(1) == (1,)
    assert divisors(12) == (1, 2, 3, 4, 6, 12)


def test_data_parallelism_outermost_puts_pipeline_ranks_next_to_each_other() -> None:
    found = search(task("llama-3-8b", "h100x16"), options=Options(order=(1,)))
    row = next(r for r in some(found, 200) if r.pp > 1 and r.dp > 1)
    names = [name for name, _ in plan_of(row, found.task).mesh.axes]
    assert ORDERS[1] == ("dp", "pp", "cp", "tp")
    assert names[-2:] == ["pp", "tp"] or names[-3:] == ["pp", "cp", "tp"]


def test_a_shard_of_a_node_stays_within_it() -> None:
    found = search(task("llama-3-8b", "h100x32"), options=Options(shard=(-1,), zero=(3,)))
    rows = [row for row in some(found, 100) if row.zero == 3]
    assert rows
    assert all(row.shard * row.tp == 8 for row in rows)


def test_micro_batches_divide_the_batch_also_where_it_is_no_power_of_two() -> None:
    one = task("gpt2", "h100x4", sequences=60, seq=1024)
    sizes = {int(row.micro_batch) for row in some(search(one), 400)}
    assert {1, 3, 5, 15} <= sizes
    assert all(60 % size == 0 for size in sizes)


def test_a_task_is_refused_with_all_that_is_wrong_with_it() -> None:
    from stretto.cluster import find
    from stretto.errors import InputError
    from stretto.presets import PRESETS

    with pytest.raises(InputError) as error:
        Task(PRESETS["gpt2"], find("a100x8"), 0, 4096, matrix="float8")
    assert [p.field for p in error.value.problems] == ["batch.sequences", "batch.seq", "precision"]


@pytest.mark.parametrize("number", range(len(TASKS)))
def test_as_many_plans_are_tried_as_meet_a_demand_and_as_do_not(number: int) -> None:
    whole = search(TASKS[number])
    rng = random.Random(number)
    for place in rng.choices(range(len(whole.candidates)), k=3):
        key, value = rng.choice([*words(whole.at(place).row).items()])
        demand = Constraint.read(f"{key}={value}")
        options = widened(Options(), [demand])
        tried = sum(int(grid.weights.sum()) for grid in grids(TASKS[number], options))
        met = sum(int(g.weights.sum()) for g in demanded(TASKS[number], [demand], options))
        found = search(TASKS[number], constraints=[demand])
        unmet = [r.count for r in found.rejections if r.reason == f"constraint {demand.text}"]
        assert found.tried == tried
        assert sum(unmet) == tried - met


def test_even_a_large_number_has_its_divisors_at_once() -> None:
    # 10¹⁵ = 2¹⁵ · 5¹⁵ has 16 · 16 divisors.
    assert len(divisors(10**15)) == 256
