"""What a decision needs of the others."""

from __future__ import annotations

import random

import pytest
from cases import TASKS, task

from stretto.search import Constraint, search, why_not, words
from stretto.search.needs import unmet


def demands(*texts: str) -> tuple[Constraint, ...]:
    return tuple(Constraint.read(text) for text in texts)


@pytest.mark.parametrize("number", range(len(TASKS)))
def test_a_plan_that_can_be_lacks_nothing_that_its_words_need(number: int) -> None:
    found = search(TASKS[number])
    for place in random.Random(number).sample(range(len(found.candidates)), k=12):
        own = (f"{key}={value}" for key, value in words(found.at(place).row).items())
        assert unmet(TASKS[number], demands(*own)) == ()


@pytest.mark.parametrize(
    ("texts", "field", "expected"),
    [
        (("pp=2", "tp=8", "zero=1"), "zero", "shards over dp × cp, which must be above 1"),
        (("pp=1", "schedule=interleaved"), "schedule", "needs pp above 1"),
        (("schedule=1f1b", "interleave=2"), "interleave", "and 1 with all others"),
        (("schedule=zb-v", "interleave=3"), "interleave", "2 with zb-v"),
        (("tp=1", "tensor_overlap=true"), "tensor_overlap", "tp above 1"),
        (("tp=1", "sequence=true"), "sequence", "over tp"),
        (("zero=0", "shard=4"), "shard", "needs zero above 0"),
        (("zero=2", "regather=false"), "regather", "zero=3 alone"),
        (("recompute=selective", "recompute_layers=4"), "recompute_layers", "recompute=full"),
        (("pp=4", "recompute_layers=20"), "recompute_layers", "fewer than a stage has"),
        (("order=dp-pp-cp-tp", "cp=2"), "order", "cp=1"),
        (("ep=2",), "ep", "must divide the model's experts (0)"),
        (("ep=1", "tp=4", "etp=2"), "etp", "is tp without ep"),
        (("pp=16", "two_level=true"), "two_level", "more than fits a node"),
        (("dp=2", "micro_batches=3"), "micro_batches", "the batch over dp × micro_batch"),
    ],
)
def test_a_decision_that_others_leave_nothing_to_decide_is_told_what_it_needs(
    texts: tuple[str, ...], field: str, expected: str
) -> None:
    why = why_not(task(), demands(*texts))
    assert why.priced is None
    (problem,) = why.problems
    assert problem.field == field
    assert expected in problem.rule
    assert texts[-1] in problem.rule


def test_only_the_demands_that_matter_are_told() -> None:
    (problem,) = unmet(task(), demands("dp=16", "zero=2", "micro_batch=2", "regather=false"))
    assert "zero=2 regather=false is demanded" in problem.rule


def test_plans_that_are_not_demanded_break_no_rule() -> None:
    # Without stages there is no schedule to choose: cp 4, which breaks a rule, is not the reason.
    found = search(task(), constraints=demands("pp=1", "schedule=interleaved"))
    assert found.least is None
    assert {r.reason for r in found.rejections} == {
        "constraint pp=1", "constraint schedule=interleaved",
    }  # fmt: skip
