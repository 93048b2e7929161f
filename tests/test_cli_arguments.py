"""The command line: options and words in any order, and what they are."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from stretto.cli.arguments import Parser, value
from stretto.errors import InputError


def parser() -> Parser:
    made = Parser("try", usage="[WORD …]", about="Tries.", examples="examples:")
    made.add_argument("words", nargs="*")
    made.add_argument("--data", nargs="+", action="extend")
    made.add_argument("--nproc", type=int)
    made.add_argument("--run")
    return made


def test_options_and_words_mean_the_same_in_any_order() -> None:
    parts = [["tiny"], ["lr=1"], ["--nproc", "2"], ["dp=2"], ["--data", "a.txt", "keep=3"]]
    for seed in range(40):
        random.Random(seed).shuffle(parts)
        words = [word for part in parts for word in part]
        options, keys, problems = parser().read(words)
        if {"tiny", "a.txt"} <= set(options.data):
            continue  # what follows --data is data, but for keys
        assert options.words == ["tiny"]
        assert options.data == ["a.txt"]
        assert keys == tuple((w[:-2], int(w[-1])) for w in words if "=" in w)
        assert (options.nproc, problems) == (2, [])


def test_unknown_options_are_told_with_the_nearest_ones() -> None:
    options, keys, problems = parser().read(["tiny", "--nprok", "3", "--fast", "lr=1"])
    assert [p.field for p in problems] == ["--nprok", "--fast"]
    assert "did you mean --nproc?" in problems[0].remedy
    assert (options.words, keys) == (["tiny", "3"], (("lr", 1),))


def test_a_value_that_an_option_cannot_have_is_raised_and_not_printed() -> None:
    with pytest.raises(InputError, match="--nproc"):
        parser().read(["--nproc", "two"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 0.001),
        ("512", 512),
        ("true", True),
        ("[0, 9]", [0, 9]),
        ("full", "full"),
        ('"full"', "full"),
        ("25MiB", "25MiB"),
        ("", ""),
        ("a=b", "a=b"),
    ],
)
def test_a_value_is_read_as_toml_else_as_text(text: str, expected: object) -> None:
    assert value(text) == expected


def test_a_word_with_an_equals_sign_is_a_key_unless_it_is_a_file_or_the_value_of_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=1.txt").touch()
    options, keys, _ = parser().read(
        ["--data", "a=1.txt", "a=2.txt", "batch.seq=8", "--run", "b=1"]
    )
    assert options.data == ["a=1.txt"]
    assert options.run == "b=1"
    assert keys == (("a", "2.txt"), ("batch.seq", 8))
