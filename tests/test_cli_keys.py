"""Keys of the command line."""

from __future__ import annotations

from dataclasses import asdict, fields

import pytest

from stretto.cli.keys import MESH, RECIPE, RUN, Settings, every, read, sort
from stretto.errors import Problem
from stretto.recipe import Recipe

ALL = ("mesh", "recipe", "run", "plan")


def told(key: str, value: object) -> Problem:
    problems: list[Problem] = []
    sort([(key, value)], problems, kinds=ALL)
    (problem,) = problems
    return problem


def test_every_field_of_recipe_and_settings_is_a_key_that_takes_its_default() -> None:
    assert set(RECIPE) == {f.name for f in fields(Recipe)}
    assert set(RUN) == {f.name for f in fields(Settings)}
    assert read(asdict(Recipe()), Recipe, RECIPE, where="recipe") == Recipe()
    assert read(asdict(Settings()), Settings, RUN, where="run") == Settings()


def test_keys_are_sorted_by_kind_and_the_last_of_a_key_counts() -> None:
    problems: list[Problem] = []
    pairs = [("dp", 2), ("lr", 1), ("lr", 0.5), ("keep", 3), ("batch.seq", 8), ("seed", 7)]
    keys = sort(pairs, problems, kinds=ALL)
    assert problems == []
    assert dict(keys.mesh) == {"dp": 2}
    assert dict(keys.recipe) == {"lr": 0.5, "seed": 7}
    assert dict(keys.run) == {"keep": 3}
    assert keys.plan == (("batch.seq", 8),)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0), ("steps", 1.5), ("steps", True), ("steps", 2**70), ("steps", "many"),
        ("lr", 0), ("lr", -1), ("lr", float("nan")), ("lr", float("inf")), ("lr", "fast"),
        ("schedule", "linear"), ("warmup", 1.5), ("beta1", 1), ("eps", 0), ("clip", -1),
        ("seed", -1), ("dp", 0), ("zero", -1), ("sequence", 1), ("keep", 1), ("vocab", 100),
        ("valid_fraction", 0), ("valid_fraction", 0.6), ("mask_documents", "no"), ("field", ""),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_told_with_what_could(key: str, value: object) -> None:
    problem = told(key, value)
    assert problem.field == key
    assert repr(value) in problem.rule
    assert problem.remedy.startswith(("write", "choose"))


@pytest.mark.parametrize(
    ("key", "near"),
    [("lrr", "lr"), ("step", "steps"), ("seq", "batch.seq"), ("recompute", "memory.recompute"),
     ("dtype", "numerics.dtype"), ("wieght_decay", "weight_decay")],
)  # fmt: skip
def test_an_unknown_key_is_told_with_the_nearest_one(key: str, near: str) -> None:
    assert told(key, 1).remedy == f"did you mean {near}?"


def test_a_key_of_a_kind_that_a_command_does_not_take_is_unknown() -> None:
    problems: list[Problem] = []
    sort([("lr", 1)], problems, kinds=("mesh", "plan"))
    assert [p.field for p in problems] == ["lr"]


def test_words_for_a_mesh_are_those_of_the_plan() -> None:
    words = {"pp", "dp", "cp", "tp", "ep", "etp", "zero", "shard", "sequence"}
    assert set(MESH) == words


@pytest.mark.parametrize(
    ("asked", "steps", "expected"), [(0, 400, 0), (7, 400, 7), (-1, 400, 80), (-1, 10**6, 1000),
                                     (-1, 3, 1)],
)  # fmt: skip
def test_what_happens_every_so_often_does_so_five_times_or_each_thousand_steps(
    asked: int, steps: int, expected: int
) -> None:
    assert every(asked, steps=steps) == expected
