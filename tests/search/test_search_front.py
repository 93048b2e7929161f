"""What no other beats."""

from __future__ import annotations

import numpy as np
from cases import task
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stretto.search import against_energy, against_memory, search, staircase, thinned

NUMBERS = arrays(np.float64, st.integers(0, 30), elements=st.integers(0, 6).map(float))


@given(st.data())
def test_a_place_is_on_the_stairs_if_no_other_is_as_good_in_both(data: st.DataObject) -> None:
    first = data.draw(NUMBERS)
    second = data.draw(arrays(np.float64, len(first), elements=st.integers(0, 6).map(float)))
    stairs = staircase(first, second)
    for i in range(len(first)):
        beaten = any(
            first[j] <= first[i]
            and second[j] <= second[i]
            and (first[j], second[j]) != (first[i], second[i])
            for j in range(len(first))
        )
        values = {(first[j], second[j]) for j in stairs}
        assert ((first[i], second[i]) in values) == (not beaten)
    assert (np.diff(first[stairs]) > 0).all()
    assert (np.diff(second[stairs]) < 0).all()


@given(NUMBERS, st.integers(2, 8))
def test_few_places_of_many_keep_both_ends(values: np.ndarray, most: int) -> None:
    places = np.argsort(values, kind="stable")
    kept = thinned(places, by=values, most=most)
    assert len(kept) <= max(most, 0) or len(places) <= most
    if len(places):
        assert values[kept[0]] == values.min()
        assert values[kept[-1]] == values.max()


def test_fronts_begin_with_the_fastest_and_end_with_the_least() -> None:
    found = search(task())
    candidates = found.candidates
    for front, least in (
        (against_memory(found), candidates.memory_bytes),
        (against_energy(found), candidates.energy_j),
    ):
        assert candidates.time_s[front[0]] == candidates.time_s.min()
        assert least[front[-1]] == least.min()
