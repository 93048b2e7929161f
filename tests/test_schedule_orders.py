"""Each schedule is that of its paper: its figure, its formulas, its tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.schedule import (
    SCHEDULES,
    Pass,
    Schedule,
    breadth_first,
    interleaved,
    one_f_one_b,
    vocabulary,
    zb_1p,
    zb_2p,
    zb_v,
)


def written(schedule: Schedule) -> list[str]:
    """Write each rank as papers do: micro-batches from 1, ' for the second of two stages."""
    return [
        " ".join(
            f"{a.direction.letter}{a.micro_batch + 1}{chr(39) * (a.stage >= len(schedule.ranks))}"
            for a in rank
        )
        for rank in schedule.ranks
    ]


def test_zb_1p_is_the_figure_of_zb_h1() -> None:
    """(Qi et al., 2023), figure 3, top: the paper's B is the input gradient, here I."""
    assert written(zb_1p(4, 8)) == [
        "F1 F2 F3 F4 I1 W1 F5 I2 W2 F6 I3 W3 F7 I4 W4 F8 I5 W5 I6 W6 I7 W7 I8 W8",
        "F1 F2 F3 I1 F4 I2 W1 F5 I3 W2 F6 I4 W3 F7 I5 W4 F8 I6 W5 I7 W6 I8 W7 W8",
        "F1 F2 I1 F3 I2 F4 I3 W1 F5 I4 W2 F6 I5 W3 F7 I6 W4 F8 I7 W5 I8 W6 W7 W8",
        "F1 I1 F2 I2 F3 I3 F4 I4 W1 F5 I5 W2 F6 I6 W3 F7 I7 W4 F8 I8 W5 W6 W7 W8",
    ]


def test_zb_2p_is_the_figure_of_zb_h2() -> None:
    """(Qi et al., 2023), figure 3, bottom."""
    assert written(zb_2p(4, 8)) == [
        "F1 F2 F3 F4 F5 F6 F7 I1 W1 F8 I2 W2 I3 W3 I4 W4 I5 W5 I6 W6 I7 W7 I8 W8",
        "F1 F2 F3 F4 F5 I1 F6 I2 F7 I3 W1 F8 I4 W2 I5 W3 I6 W4 I7 W5 I8 W6 W7 W8",
        "F1 F2 F3 I1 F4 I2 F5 I3 F6 I4 F7 I5 W1 F8 I6 W2 I7 W3 I8 W4 W5 W6 W7 W8",
        "F1 I1 F2 I2 F3 I3 F4 I4 F5 I5 F6 I6 F7 I7 W1 F8 I8 W2 W3 W4 W5 W6 W7 W8",
    ]


def test_zb_v_is_the_figure_of_its_paper() -> None:
    """(Qi et al., 2023), figure 8: the micro-batches of each device, from left to right."""
    ranks = zb_v(4, 8).ranks
    assert ["".join(str(a.micro_batch + 1) for a in rank) for rank in ranks] == [
        "123456711122233344481155522666337774488855667788",
        "123451621132243371154482265533766448775865788678",
        "123142531142261153372264483375544866576875876878",
        "112233441151152262263373374484485556677885667788",
    ]


def test_interleaved_takes_ranks_many_micro_batches_through_each_of_its_stages() -> None:
    """By hand, after (Narayanan et al., 2021), figure 4: 2·1 + 2 and 2 stages of warm-up."""
    assert written(interleaved(2, 4, chunks=2)) == [
        "F1 F2 F1' F2' F3 B1' F4 B2' F3' B1 F4' B2 B3' B4' B3 B4",
        "F1 F2 F1' B1' F2' B2' F3 B1 F4 B2 F3' B3' F4' B4' B3 B4",
    ]


@given(st.integers(1, 6), st.integers(1, 4))
def test_interleaved_with_one_stage_a_rank_is_1f1b(ranks: int, rounds: int) -> None:
    assert interleaved(ranks, ranks * rounds) == one_f_one_b(ranks, ranks * rounds)


def test_breadth_first_ends_a_stage_before_it_begins_the_next() -> None:
    assert written(breadth_first(2, 2, chunks=2)) == ["F1 F2 F1' F2' B1' B2' B1 B2"] * 2


@given(st.integers(1, 6), st.integers(1, 12))
def test_breadth_first_with_one_stage_a_rank_is_gpipe(ranks: int, micro_batches: int) -> None:
    assert breadth_first(ranks, micro_batches) == SCHEDULES["gpipe"](ranks, micro_batches)


def test_vocabulary_passes_come_with_every_forward_and_backward() -> None:
    """By hand: one forward, one output pass and one backward a round (Yeung et al., 2024)."""
    assert written(vocabulary(4, 4)) == [
        "F1 F2 S1 F3 S2 T1 F4 S3 T2 S4 T3 B1 T4 B2 B3 B4",
        "F1 F2 S1 F3 S2 T1 F4 S3 T2 B1 S4 T3 B2 T4 B3 B4",
        "F1 F2 S1 F3 S2 T1 B1 F4 S3 T2 B2 S4 T3 B3 T4 B4",
        "F1 S1 F2 S2 T1 B1 F3 S3 T2 B2 F4 S4 T3 B3 T4 B4",
    ]


@pytest.mark.parametrize(
    ("ranks", "micro_batches", "f", "b", "w", "transfer", "published"),
    [
        (8, 24, 18.522, 18.086, 9.337, 0.601, (0.2431, 0.1585, 0.1083)),
        (8, 64, 18.546, 18.097, 9.321, 0.762, (0.1240, 0.0674, 0.0444)),
        (8, 24, 29.718, 29.444, 19.927, 0.527, (0.2347, 0.1323, 0.0698)),
        (16, 48, 11.347, 11.248, 8.132, 0.377, (0.2552, 0.1397, 0.0672)),
        (32, 96, 10.419, 10.207, 7.715, 0.408, (0.2646, 0.1421, 0.0641)),
    ],
)
def test_bubbles_for_measured_times_are_those_of_the_paper(
    ranks: int,
    micro_batches: int,
    f: float,
    b: float,
    w: float,
    transfer: float,
    published: tuple[float, ...],
) -> None:
    """(Qi et al., 2023): bubble rates of table 5 from the times of table 9, to its four digits."""
    cost_s = {
        Pass.FORWARD: f, Pass.BACKWARD: b + w, Pass.INPUT_GRADIENT: b, Pass.WEIGHT_GRADIENT: w,
    }  # fmt: skip
    for make, expected in zip((one_f_one_b, zb_1p, zb_2p), published, strict=True):
        bubble = make(ranks, micro_batches).bubble(cost_s, transfer_s=transfer)
        assert bubble == pytest.approx(expected, abs=5.1e-5)


@given(st.integers(2, 6), st.integers(1, 14))
def test_an_update_that_waits_for_all_ranks_breaks_into_the_parallelogram(
    ranks: int, micro_batches: int
) -> None:
    """Of ZB-H2 the last rank ends (p - 1)·f after the first (Qi et al., 2023, figure 3)."""
    schedule = zb_2p(ranks, micro_batches + 2 * ranks - 2)
    cost_s = dict.fromkeys(Pass, 1.0)
    last = max(stop for _, stop in schedule.times(cost_s).values())
    assert last - schedule.step_s(cost_s) == ranks - 1
