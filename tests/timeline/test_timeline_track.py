"""Recordings on disk: whole or not at all, and few however long a run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.timeline.seconds import track

from stretto.errors import InputError
from stretto.timeline.track import (
    FIRST,
    FOLDER,
    NEWEST,
    Track,
    files,
    forget,
    kept,
    load,
    plan_of,
    recorded_steps,
    thin,
    write,
)


def equal(a: Track, b: Track) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name.endswith("_s"))
        if isinstance(getattr(a, name), np.ndarray)
        else getattr(a, name) == getattr(b, name)
        for name in Track.__slots__
    )


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    seen = track([(0, "device", 0.5, 1.5), (1, "vote", 1.5, 2.0)], rank=3, step=50, world=4)
    write(tmp_path, seen)
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()] == [
        Path("timeline/step-00000050/rank-00003.safetensors")
    ]
    assert equal(load(files(tmp_path, 50)[3]), seen)
    assert plan_of(tmp_path, 50) == seen.plan


def test_a_step_is_listed_once_all_its_ranks_have_written(tmp_path: Path) -> None:
    one = track([(0, "vote", 0.0, 1.0)], step=3, world=2)
    write(tmp_path, one)
    assert recorded_steps(tmp_path) == ()
    write(tmp_path, replace(one, counters=replace(one.counters, rank=1)))
    assert recorded_steps(tmp_path) == (3,)
    write(tmp_path, replace(one, step=50))
    assert recorded_steps(tmp_path) == (3,)
    write(tmp_path, replace(one, step=100))  # 50 will not be whole any more, but tells something
    assert recorded_steps(tmp_path) == (3, 50)


def test_of_a_write_that_fails_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, track([(0, "vote", 0.0, 1.0)]))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_where_the_disk_refuses_a_directory_that_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    with pytest.raises(OSError, match="timeline"):
        write(tmp_path, track([(0, "vote", 0.0, 1.0)]))


@pytest.mark.parametrize("damage", [b"", b"nothing of the kind", None])
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes | None) -> None:
    write(tmp_path, track([(0, "vote", 0.0, 1.0)], step=3))
    path = files(tmp_path, 3)[0]
    path.write_bytes(path.read_bytes()[:-8] if damage is None else damage)
    with pytest.raises(InputError, match=r"rank-00000\.safetensors: cannot be read"):
        load(path)


def test_a_step_that_was_not_recorded_names_those_that_were(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="step 7 was not recorded; choose a run with record_every"):
        plan_of(tmp_path, 7)
    write(tmp_path, track([(0, "vote", 0.0, 1.0)], step=3))
    with pytest.raises(InputError, match="step 7 was not recorded; choose 3"):
        plan_of(tmp_path, 7)


# ── how many stay ────────────────────────────────────────────────────────────────────────────────


def after(steps: int, *, every: int) -> list[int]:
    """Give what is left of the recordings of a run that removes some after each."""
    left: list[int] = []
    for step in (3, *range(every, steps + 1, every)):
        left = sorted(kept([*left, step], every=every))
    return left


def test_a_run_of_a_million_steps_keeps_fewer_than_a_hundred_recordings() -> None:
    left = after(1_000_000, every=50)
    assert len(left) < 70
    assert left[:3] == [3, 50, 100]
    assert left[-NEWEST:] == [*range(1_000_000 - 50 * (NEWEST - 1), 1_000_001, 50)]


@given(st.integers(1, 1000), st.integers(1, 60))
def test_what_lies_between_is_no_further_apart_than_a_quarter_of_its_age(
    count: int, every: int
) -> None:
    newest = count * every
    left = after(newest, every=every)
    assert left[:FIRST] == [3, *range(every, newest + 1, every)][:FIRST] or every <= 3
    for a, b in zip(left[FIRST:], left[FIRST + 1 :], strict=False):
        assert b - a <= max(every, (newest - a) / 4)


def test_what_is_kept_of_all_is_what_is_kept_of_what_was_left() -> None:
    assert set(after(20_000, every=50)) == kept([3, *range(50, 20_001, 50)], every=50)


def test_thinning_removes_the_steps_that_do_not_stay(tmp_path: Path) -> None:
    for step in range(1, 41):
        write(tmp_path, track([(0, "vote", 0.0, 1.0)], step=step))
    thin(tmp_path, every=1)
    assert set(recorded_steps(tmp_path)) == kept(range(1, 41), every=1)
    assert len(recorded_steps(tmp_path)) < 25


def test_going_on_from_a_step_forgets_those_after_it(tmp_path: Path) -> None:
    for step in (3, 50, 100):
        write(tmp_path, track([(0, "vote", 0.0, 1.0)], step=step))
    forget(tmp_path, after=50)
    assert recorded_steps(tmp_path) == (3, 50)
