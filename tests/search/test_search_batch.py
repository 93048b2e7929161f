"""Tokens as sequences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.errors import InputError
from stretto.search.batch import Sequences, count, sequences, usual


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("4194304", 4194304), ("4,194,304", 4194304), ("15T", 15 * 10**12), ("300B", 3 * 10**11),
     ("300G", 3 * 10**11), ("4Mi", 4 * 2**20), ("1.5k", 1500), ("2e6", 2_000_000)],
)  # fmt: skip
def test_a_count_is_read(text: str, tokens: int) -> None:
    assert count(text, field="--tokens") == tokens


@pytest.mark.parametrize(
    "text", ["", "four", "-4M", "0", "4X", "1.5", "4i", "0.0001k", "1e999", "1e18"]
)
def test_what_is_no_count_of_tokens_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--tokens"):
        count(text, field="--tokens")


def test_whole_sequences_need_no_note() -> None:
    assert sequences("4194304", seq=8192, field="b") == Sequences(512)
    assert sequences("4M", seq=1000, field="b") == Sequences(4000)


def test_a_binary_reading_is_told() -> None:
    found = sequences("4M", seq=8192, field="b")
    assert found.count == 512
    assert found.note == "4M tokens are read as 4,194,304 = 512 × 8,192"


def test_tokens_that_are_no_whole_sequences_are_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"5,000,000 % 8,192 = 2,880; use 4997120 .610 sequences"):
        sequences("5000000", seq=8192, field="b")


def test_fewer_tokens_than_a_sequence_are_refused_with_one() -> None:
    with pytest.raises(InputError, match=r"use 8192 .1 sequence[^s]"):
        sequences("100", seq=8192, field="b")


@given(st.integers(1, 5000), st.sampled_from([512, 1024, 2048, 4096, 8192, 32768]))
def test_where_nobody_says_the_batch_divides_over_what_is_odd_in_the_devices(
    devices: int, seq: int
) -> None:
    odd = devices
    while odd % 2 == 0:
        odd //= 2
    found = usual(seq=seq, devices=devices)
    assert found.count % odd == 0
    near = found.count * seq / (4 * 2**20)
    assert 0.7 <= near <= 1.5 or found.count == odd
