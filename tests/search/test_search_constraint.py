"""What a user demands."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TASKS
from hypothesis import given
from hypothesis import strategies as st

from stretto.errors import InputError
from stretto.search import KEYS, Constraint, line, search, words
from stretto.search.constraint import contradictions


@pytest.mark.parametrize(
    ("text", "key", "sign", "values"),
    [
        ("tp<=8", "tp", "<=", (8.0,)),
        ("batch.micro_batch = 2", "micro_batch", "=", (2.0,)),
        ("memory<=70GB", "memory", "<=", (70e9,)),
        ("memory < 64GiB", "memory", "<", (64 * 2.0**30,)),
        ("time<=1.5s", "time", "<=", (1.5,)),
        ("mfu>=40%", "mfu", ">=", (0.4,)),
        ("schedule=1f1b,gpipe", "schedule", "=", (1.0, 0.0)),
        ("recompute!=full", "recompute", "!=", (2.0,)),
        ("regather=false", "regather", "=", (0.0,)),
        ("recompute_layers=all", "recompute_layers", "=", (0.0,)),
        ("zero==3", "zero", "=", (3.0,)),
        ("order=dp-pp-cp-tp", "order", "=", (1.0,)),
        ("energy<=2kWh", "energy", "<=", (7.2e6,)),
        ("offload=50%", "offload", "=", (0.5,)),
        ("cost<=6.8", "cost", "<=", (6.8,)),
        ("runs=true", "runs", "=", (1.0,)),
    ],
)
def test_a_constraint_is_read(text: str, key: str, sign: str, values: tuple[float, ...]) -> None:
    found = Constraint.read(text)
    assert (found.key, found.sign) == (key, sign)
    assert found.values == pytest.approx(values)
    assert found.text == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tp", "is no constraint"),
        ("speed<=8", "no plan has a 'speed'"),
        ("tp<=many", "'many' is no value of tp"),
        ("memory<=70", "unit of bytes"),
        ("time<=2", "unit of s"),
        ("schedule<=1f1b", "schedule has no order"),
        ("schedule=dualpipe", "choose from gpipe, 1f1b"),
        ("regather=maybe", "choose from true, false"),
        ("zero=1.5", "write a whole number"),
        ("tp<=2.5", "write a whole number"),
        ("recompute_layers=few", "write a whole number or all"),
        ("micro_batch=nan", "'nan' is no value of micro_batch"),
        ("mfu>=inf", "write a share, as 40% or 0.4"),
        ("cost<=cheap", "write a number of USD"),
        ("energy<=5", "unit of j"),
        ("runs<=true", "runs has no order"),
    ],
)
def test_what_is_no_constraint_is_refused(text: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        Constraint.read(text)


WHOLE = st.integers(1, 6)
SIGNS = st.sampled_from(["<=", ">=", "<", ">", "=", "!="])


@given(st.lists(st.tuples(SIGNS, WHOLE), min_size=2, max_size=4))
def test_constraints_contradict_each_other_if_no_whole_number_meets_them(
    pairs: list[tuple[str, int]],
) -> None:
    demands = [Constraint.read(f"tp{sign}{value}") for sign, value in pairs]
    numbers = np.arange(0.0, 9.0)
    met = np.logical_and.reduce([d.holds({"tp": numbers}) for d in demands])
    assert bool([*contradictions(demands)]) == (not met.any())


def test_limits_of_what_a_plan_takes_contradict_each_other_only_where_no_number_is_between() -> (
    None
):
    between = [Constraint.read("mfu>0.3"), Constraint.read("mfu<0.31")]
    apart = [Constraint.read("mfu>0.31"), Constraint.read("mfu<0.3")]
    assert [*contradictions(between)] == []
    assert len([*contradictions(apart)]) == 1


@pytest.mark.parametrize("number", range(len(TASKS)))
def test_a_plan_meets_the_words_in_which_it_is_told(number: int) -> None:
    found = search(TASKS[number])
    rows = found.candidates.rows([*found.family_firsts, *found.mesh_firsts])
    for i in range(len(rows.pp)):
        row = rows.at(i)
        for key, value in words(row).items():
            assert key in KEYS
            assert Constraint.read(f"{key}={value}").holds({key: getattr(row, key)}), (key, value)


def test_beside_another_plan_only_what_differs_is_told() -> None:
    found = search(TASKS[0])
    rows = found.candidates.rows(found.family_firsts)
    first = rows.at(0)
    assert set(line(first, beside=first).replace("=", " ").split()[::2]) <= {
        "pp", "dp", "cp", "tp", "ep", "micro_batch",
    }  # fmt: skip
    for i in range(len(rows.pp)):
        other = words(rows.at(i))
        told = dict(part.split("=") for part in line(rows.at(i), beside=first).split())
        assert all(
            told[key] == value for key, value in other.items() if words(first).get(key) != value
        )
