"""The law that the project rests on: executed equals one rank equals the array reference.

Ranks are forked from a process that has imported torch and run nothing yet: each test starts one.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from stretto.plan import Batch, Plan
from stretto.presets import preset
from stretto.runtime.parity import Difference, Trace, alone, difference, invented, shrunk

BLOCKS = 3
EACH = 20


def stretto(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stretto", *arguments],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_plans_compute_what_one_rank_and_the_reference_compute(block: int) -> None:
    done = stretto("verify", "--random", str(EACH), "--seed", str(block * EACH))
    assert done.returncode == 0, done.stdout + done.stderr


BROKEN = """
import sys
from dataclasses import replace
from stretto.plan import Batch, Plan
from stretto.presets import preset
from stretto.program.instruction import Move
from stretto.program.lower import lower
from stretto.recipe import Recipe
from stretto.runtime import parity

model, plan = parity.shrunk(preset("tiny"), Plan.of(dp=2, batch=Batch(4, 1, 8)))
plan = parity.exact(plan)
program = lower(model, plan)
if sys.argv[1] == "forget":  # each rank keeps its own gradients
    program = replace(program, stages=tuple(
        replace(s, instructions=tuple(
            replace(i, legs=tuple(replace(leg, steps=()) for leg in i.legs))
            if isinstance(i, Move) else i for i in s.instructions))
        for s in program.stages))
recipe = Recipe(steps=2, lr=1e-2, warmup=0.5)
one = parity.alone(plan)
a = parity.run(program, parity.invented(model, plan, seed=0), recipe=recipe)
b = parity.run(lower(model, one), parity.invented(model, one, seed=0), recipe=recipe)
print(parity.difference(a, b).worst)
"""


@pytest.mark.parametrize(("what", "agrees"), [("nothing", True), ("forget", False)])
def test_a_program_that_forgets_to_reduce_gradients_is_found(what: str, agrees: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, what], capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    assert (float(done.stdout) < 1e-9) is agrees


def test_a_difference_is_relative_to_the_gradient_and_names_the_worst() -> None:
    ours = Trace((2.0,), ({"a": np.array([3.0, 4.0]), "b": np.array([1.0])},))
    other = Trace((2.0,), ({"a": np.array([3.0, 4.0]), "b": np.array([1.1])},))
    found = difference(ours, other)
    assert found == Difference(0.0, pytest.approx(0.1 / 1.1), "b")  # type: ignore[arg-type]


def test_a_gradient_that_is_not_a_number_differs_from_every_other() -> None:
    nothing = Trace((2.0,), ({"a": np.array([np.nan])},))
    one = Trace((2.0,), ({"a": np.array([1.0])},))
    assert difference(nothing, one).worst == np.inf
    assert difference(Trace((np.nan,), one.gradients), one).worst == np.inf


def test_rows_of_invented_batches_do_not_depend_on_how_they_are_dealt_out() -> None:
    model = preset("tiny")
    split = Plan.of(dp=2, batch=Batch(8, 2, 16))
    whole = alone(split)
    dealt, at_once = invented(model, split, seed=3), invented(model, whole, seed=3)
    rows = [dealt(1, r, m).tokens_BT for m in range(2) for r in range(2)]
    assert np.array_equal(np.concatenate(rows), at_once(1, 0, 0).tokens_BT)


def test_a_shrunk_model_keeps_what_its_plan_depends_on() -> None:
    model, plan = shrunk(preset("smollm2-135m"), Plan.of(tp=2, pp=4, batch=Batch(32, 4, 2048)))
    assert model.heads // model.kv_heads == 3
    assert model.kv_heads == 3
    assert model.tied
    assert model.layers == 4
    assert plan.check(model) == ()
