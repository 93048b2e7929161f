"""What to go on with when devices fail: worked out before, with the same batch."""

from __future__ import annotations

import pytest

from stretto.cluster import find
from stretto.presets import PRESETS
from stretto.search import Constraint, Found, Task, search
from stretto.search.survivors import SLACK, Survivors, survivors, tokens_per_s


@pytest.fixture(scope="module")
def found() -> Found:
    return search(Task(PRESETS["llama-3-8b"], find("h100x64"), 256, 4096))


@pytest.fixture(scope="module")
def table(found: Found) -> tuple[Survivors, ...]:
    return survivors(found, least=16)


def test_there_is_a_plan_for_each_number_of_nodes(table: tuple[Survivors, ...]) -> None:
    assert [one.devices for one in table] == [64, 56, 48, 40, 32, 24, 16]
    assert all(one.best is not None for one in table)


def test_half_the_devices_are_the_floor_where_nobody_says(found: Found) -> None:
    assert [one.devices for one in survivors(found)] == [64, 56, 48, 40, 32]


def test_all_devices_use_the_plan_of_the_search(found: Found, table: tuple[Survivors, ...]) -> None:
    assert found.best is not None and table[0].best is not None
    assert table[0].best.plan == found.best.plan
    assert table[0].spares == 0


def test_devices_work_or_wait(table: tuple[Survivors, ...]) -> None:
    for one in table:
        assert one.best is not None
        assert one.best.task.devices + one.spares == one.devices
        assert one.best.plan.mesh.size == one.best.task.devices


def test_a_step_keeps_its_sequences(found: Found, table: tuple[Survivors, ...]) -> None:
    for one in table:
        assert one.best is not None
        assert one.best.plan.batch.sequences == found.task.sequences


def test_fewer_devices_are_never_faster(table: tuple[Survivors, ...]) -> None:
    rates = [tokens_per_s(one.best) for one in table]
    assert rates == sorted(rates, reverse=True)


def test_no_plan_for_as_many_devices_is_much_faster(
    found: Found, table: tuple[Survivors, ...]
) -> None:
    for one in table[1:]:
        task = found.task.on(found.task.cluster.at(one.devices))
        whole = search(task).best
        assert whole is not None
        assert tokens_per_s(one.best) >= 0.99 * tokens_per_s(whole)


def test_spares_are_kept_where_no_plan_for_more_devices_is_faster() -> None:
    # 31 is prime and does not divide 64 sequences, nor do 29 and 30: with tp=1 and pp=1 only a
    # divisor of the batch can work.
    task = Task(PRESETS["smollm2-135m"], find("l40sx32"), 64, 2048)
    demands = [Constraint.read(text) for text in ("pp=1", "tp=1", "cp=1")]
    table = survivors(search(task, constraints=demands), step=1, least=28)
    assert [one.best and one.best.task.devices for one in table] == [32, 16, 16, 16, 16]
    assert [one.spares for one in table] == [0, 15, 14, 13, 12]


def test_another_batch_is_told_only_if_it_is_near_and_faster() -> None:
    task = Task(PRESETS["smollm2-135m"], find("l40sx32"), 1024, 2048)
    demands = [Constraint.read(text) for text in ("pp=1", "tp=1", "cp=1")]
    table = survivors(search(task, constraints=demands), step=1, least=24)
    others = [one for one in table if one.other is not None]
    assert others
    for one in others:
        assert one.other is not None
        assert one.other.task.sequences != task.sequences
        assert abs(one.other.task.sequences - task.sequences) <= SLACK * task.sequences
        assert tokens_per_s(one.other) > tokens_per_s(one.best)


def test_where_nothing_fits_it_is_said() -> None:
    task = Task(PRESETS["llama-3-8b"], find("rtx4090x8"), 64, 4096)
    table = survivors(search(task), step=1, least=1)
    assert table[0].best is not None
    assert table[-1].best is None
    assert table[-1].spares == table[-1].devices == 1


def test_what_was_demanded_holds_for_survivors_too(found: Found) -> None:
    demand = Constraint.read("tp=2")
    table = survivors(search(found.task, constraints=[demand]))
    assert all(one.best is not None and one.best.plan.words.tp == 2 for one in table)
