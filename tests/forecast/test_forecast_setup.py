"""What a forecast refuses."""

from __future__ import annotations

import pytest

from stretto.errors import InputError
from stretto.forecast import Checkpoint, Elastic, Job, Recovery, Setup, Spares

JOB = Job(1000, 1.0, 64)


def fields(**parts: object) -> list[str]:
    with pytest.raises(InputError) as caught:
        Setup(**{"job": JOB, "checkpoint": Checkpoint(100.0)} | parts)  # type: ignore[arg-type]
    return [p.field for p in caught.value.problems]


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = fields(
        job=Job(0, -1.0, 0, 0),
        checkpoint=Checkpoint(100.0, blocking_s=-1.0, background_s=101.0, memory_every_s=200.0),
        recovery=Recovery(hang_s=float("inf")),
        spares=Spares(hot=-1),
    )
    assert found == [
        "steps", "devices", "per_node", "step", "blocking", "hang", "hot", "checkpoint", "memory",
    ]  # fmt: skip


def test_a_checkpoint_cannot_begin_before_the_last_one_is_stored() -> None:
    assert fields(checkpoint=Checkpoint(100.0, background_s=100.1)) == ["checkpoint"]
    Setup(JOB, Checkpoint(100.0, background_s=100.0))


def test_some_nodes_must_stay() -> None:
    assert fields(elastic=Elastic(4, (1.0, 0.5, 0.1))) == ["elastic"]
    Setup(JOB, Checkpoint(100.0), elastic=Elastic(4, (1.0, 0.5)))


@pytest.mark.parametrize("speeds", [(), (0.9,), (1.0, 0.0), (1.0, 1.1)])
def test_speeds_begin_with_all_units_and_stay_below(speeds: tuple[float, ...]) -> None:
    assert fields(elastic=Elastic(1, speeds)) == ["elastic"]


@pytest.mark.parametrize(
    ("devices", "replicas", "unit", "most"),
    [(64, 4, 2, 2), (64, 8, 1, 4), (64, 32, 1, 4), (96, 8, 3, 2), (128, 1, 16, 0)],
)
def test_units_are_the_fewest_nodes_that_hold_whole_replicas(
    devices: int, replicas: int, unit: int, most: int
) -> None:
    # 96 devices are 12 nodes: 8 replicas of 1.5 nodes leave by twos, 3 nodes at a time.
    found = Elastic.proportional(Job(10, 1.0, devices), replicas=replicas)
    assert (found.unit_nodes, len(found.speeds) - 1) == (unit, most)
    assert found.speeds[-1] >= 0.5


def test_a_run_is_refused_in_words() -> None:
    with pytest.raises(InputError, match="every 5 s, but one takes 9 s to be stored; use 9 s or"):
        Setup(JOB, Checkpoint(5.0, background_s=9.0))
