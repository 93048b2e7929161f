"""Closed forms: what they say is what the schedules do, and what the papers print."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.plan import ScheduleName
from stretto.schedule import (
    SCHEDULES,
    Pass,
    Schedule,
    bubble_slots,
    held,
    possible,
    problems,
    vocabulary,
)

CASES: list[tuple[ScheduleName, int]] = [
    ("gpipe", 1), ("1f1b", 1), ("interleaved", 1), ("interleaved", 2), ("interleaved", 3),
    ("breadth-first", 1), ("breadth-first", 2), ("breadth-first", 3), ("zb-1p", 1), ("zb-2p", 1),
    ("zb-v", 2), ("vocabulary", 1),
]  # fmt: skip
"""Schedules, and how many stages they run on a rank."""

SECONDS = st.floats(0.1, 10)


def shapes(name: ScheduleName, chunks: int, *, most: int) -> Iterator[tuple[int, int]]:
    """Give all numbers of ranks, up to `most`, and of micro-batches that a schedule takes."""
    for p in range(1, most + 1):
        for m in range(1, 3 * p + 3):
            if not problems(name, ranks=p, micro_batches=m, chunks=chunks):
                yield p, m


def idle(schedule: Schedule, f: float, b: float, w: float, s: float, t: float) -> float:
    """Play a schedule and give what a step takes beyond the work of a rank.

    Args:
        schedule: What is played.
        f: Forward of a micro-batch on a rank; its stages share it evenly.
        b: Input gradient.
        w: Weight gradient.
        s: Vocabulary pass.
        t: Its weight gradient.
    """
    v = schedule.chunks
    step = schedule.step_s(
        {
            Pass.FORWARD: f / v,
            Pass.BACKWARD: (b + w) / v,
            Pass.INPUT_GRADIENT: b / v,
            Pass.WEIGHT_GRADIENT: w / v,
            Pass.VOCABULARY: s,
            Pass.VOCABULARY_WEIGHT: t,
        }
    )
    shared = s + t if Pass.VOCABULARY in schedule.passes else 0.0
    return step - schedule.micro_batches * (f + b + w + shared)


@pytest.mark.parametrize(("name", "chunks"), CASES)
def test_with_equal_passes_a_played_schedule_idles_as_the_formula_says(
    name: ScheduleName, chunks: int
) -> None:
    """All shapes of up to 6 ranks."""
    for p, m in shapes(name, chunks, most=6):
        formula = bubble_slots(name, p=p, v=chunks, m=m, f=1, b=1, w=1)
        played = idle(SCHEDULES[name](p, m, chunks=chunks), 1, 1, 1, 1, 1)
        assert played == pytest.approx(formula, abs=1e-9), (p, m)


@pytest.mark.parametrize(("name", "chunks"), CASES)
def test_a_played_schedule_holds_as_many_activations_as_the_formula_says(
    name: ScheduleName, chunks: int
) -> None:
    for p, m in shapes(name, chunks, most=6):
        schedule = SCHEDULES[name](p, m, chunks=chunks)
        for kept in (0.0, 0.3, 1.0):
            played = [schedule.in_flight(r, kept=kept) / chunks for r in range(p)]
            formula = held(name, p=p, v=chunks, m=m, r=np.arange(p), kept=kept)
            assert played == pytest.approx(formula), (p, m, kept)


@pytest.mark.parametrize(("name", "chunks"), CASES)
@given(st.data(), SECONDS, SECONDS, SECONDS, SECONDS, SECONDS)
def test_whatever_the_passes_cost_a_played_schedule_idles_as_the_formula_says(
    name: ScheduleName, chunks: int, data: st.DataObject, x: float, y: float, z: float,
    s: float, t: float,
) -> None:  # fmt: skip
    """As a transformer's do, a weight gradient takes no longer than a forward, that than an input
    gradient (Qi et al., 2023, table 1); where none splits its backward, costs are free.
    """
    p, m = data.draw(st.sampled_from([*shapes(name, chunks, most=6)]))
    w, f, b = sorted((x, y, z)) if name.startswith("zb") else (x, y, z)
    more = {"backward": (b + w) / f} if name == "vocabulary" else {}
    make = vocabulary if name == "vocabulary" else SCHEDULES[name]
    played = idle(make(p, m, chunks=chunks, **more), f, b, w, s, t)
    formula = bubble_slots(name, p=p, v=chunks, m=m, f=f, b=b, w=w)
    assert played == pytest.approx(formula, rel=1e-6, abs=1e-6 * m)


@pytest.mark.parametrize("name", ["zb-1p", "zb-2p", "zb-v"])
@given(st.data(), SECONDS, SECONDS, SECONDS)
def test_a_zero_bubble_schedule_idles_no_more_than_the_formula_says(
    name: ScheduleName, data: st.DataObject, f: float, x: float, y: float
) -> None:
    """Whatever the forward takes, where a weight gradient takes no longer than an input's."""
    chunks, (w, b) = 1 + (name == "zb-v"), sorted((x, y))
    p, m = data.draw(st.sampled_from([*shapes(name, chunks, most=6)]))
    played = idle(SCHEDULES[name](p, m, chunks=chunks), f, b, w, 0, 0)
    formula = bubble_slots(name, p=p, v=chunks, m=m, f=f, b=b, w=w)
    assert played <= formula + 1e-6 * m
    assert name == "zb-v" or played == pytest.approx(formula, abs=1e-6 * m)


P = np.array([1, 2, 4, 8, 64])
COSTS = {"f": 1.0, "b": 1.2, "w": 0.9}


def test_bubbles_are_those_that_the_papers_print() -> None:
    """(Narayanan et al., 2021): (p - 1)(t_f + t_b), over v if interleaved. (Qi et al., 2023), table
    2: (p - 1)(T_F + T_B - T_W) and (p - 1)(T_F + T_B - 2 T_W).
    """  # fmt: skip
    many = {"p": P, "m": 128, **COSTS}
    for name in ("gpipe", "1f1b", "vocabulary"):
        assert bubble_slots(name, **many) == pytest.approx((P - 1) * 3.1)
    for name in ("interleaved", "breadth-first"):
        assert bubble_slots(name, v=4, **many) == pytest.approx((P - 1) * 3.1 / 4)
    assert bubble_slots("zb-1p", **many) == pytest.approx((P - 1) * 1.3)
    assert bubble_slots("zb-2p", **many) == pytest.approx((P - 1) * 0.4)


@pytest.mark.parametrize("name", ["zb-1p", "zb-2p"])
def test_few_micro_batches_take_what_the_paper_says(name: ScheduleName) -> None:
    """(Qi et al., 2023), appendix H: for m ≤ p a step takes (m + p - 1)(T_F + T_B) + T_W."""
    p, m = np.array([4, 8, 16, 16]), np.array([4, 2, 4, 16])
    step = m * sum(COSTS.values()) + bubble_slots(name, p=p, m=m, **COSTS)
    assert step == pytest.approx((m + p - 1) * 2.2 + 0.9)


def test_zero_bubble_is_zero_where_the_papers_say_so() -> None:
    """Of equal passes, ZB-H2 and ZB-V have none once 2p - 1 micro-batches fill the ranks."""
    equal = {"f": 1.0, "b": 1.0, "w": 1.0}
    for name, v in (("zb-2p", 1), ("zb-v", 2)):
        assert not bubble_slots(name, p=P, v=v, m=2 * P - 1, **equal).any()
        assert bubble_slots(name, p=P, v=v, m=2 * P - 2, **equal)[1:] == pytest.approx(1.0)


def test_a_bubble_is_never_less_than_none() -> None:
    """A weight gradient that outlasts the rest fills no more than there is."""
    assert not bubble_slots("zb-2p", p=P, m=256, f=1.0, b=0.5, w=0.9).any()


def test_activations_are_those_that_the_papers_print() -> None:
    p, r = 8, np.arange(8)
    many = {"p": p, "m": 64, "r": r}
    assert held("gpipe", **many) == pytest.approx(64)
    assert held("breadth-first", v=4, **many) == pytest.approx(64)
    assert held("1f1b", **many) == pytest.approx(p - r)
    # (Korthikanti et al., 2022): on the first rank 1 + (p - 1)/(p v) of what 1F1B holds.
    assert held("interleaved", v=4, **many)[0] == pytest.approx(p * (1 + (p - 1) / (p * 4)))
    # (Qi et al., 2023): (p - i + 1) M_B + (i - 1) M_W and (2p - 2i + 1) M_B + (2i - 2) M_W.
    i = r + 1
    assert held("zb-1p", kept=0.6, **many) == pytest.approx((p - i + 1) + (i - 1) * 0.6)
    assert held("zb-2p", kept=0.6, **many) == pytest.approx((2 * p - 2 * i + 1) + (2 * i - 2) * 0.6)
    # (Qi et al., 2023), section 6: p M_B on every rank.
    assert held("zb-v", v=2, **many) == pytest.approx(p)
    # (Yeung et al., 2024), section 5.2: one barrier, so one more than 1F1B.
    assert held("vocabulary", **many)[0] == p + 1


def test_no_rank_holds_more_than_all_micro_batches() -> None:
    for name, v in CASES:
        for m in (1, 2, 3):
            assert (held(name, p=4, v=v, m=m, r=np.arange(4)) <= m).all()


@pytest.mark.parametrize(("name", "chunks"), CASES)
def test_an_array_of_plans_has_what_each_plan_has(name: ScheduleName, chunks: int) -> None:
    p, m = np.arange(1, 9)[:, None], np.arange(1, 33)
    bubbles = bubble_slots(name, p=p, v=chunks, m=m, **COSTS)
    most = held(name, p=p, v=chunks, m=m, r=p - 1, kept=0.5)
    legal = possible(name, p=p, v=chunks, m=m)
    assert bubbles.shape == most.shape == legal.shape == (8, 32)
    for i, j in np.ndindex(8, 32):
        one = {"p": i + 1, "v": chunks, "m": j + 1}
        assert bubbles[i, j] == bubble_slots(name, **one, **COSTS)
        assert most[i, j] == held(name, **one, r=i, kept=0.5)
        assert legal[i, j] == possible(name, **one)
