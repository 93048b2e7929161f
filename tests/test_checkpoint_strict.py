from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.checkpoint.strict import dump, parse, read
from stretto.errors import CheckpointError, Problem


@dataclass(frozen=True, slots=True)
class Inner:
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise CheckpointError(Problem("number", "is below 0", "use 0 or more"))


@dataclass(frozen=True, slots=True)
class Outer:
    text: str
    ratio: float
    flag: bool
    choice: Literal["a", "b"]
    inner: Inner | None
    pairs: tuple[tuple[int, int], ...]
    table: Mapping[str, Inner]
    free: Any


GOOD = (
    '{"text": "t", "ratio": 2, "flag": true, "choice": "a", "inner": null, "pairs": [[1, 2]], '
    '"table": {"x": {"number": 1}}, "free": [1, {"y": null}]}'
)


def rules(tree: Any) -> list[str]:
    with pytest.raises(CheckpointError) as caught:
        read(Outer, tree, where="o")
    return [f"{p.field}: {p.rule}" for p in caught.value.problems]


inners = st.builds(Inner, st.integers(0, 9))
finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e18, max_value=1e18)


@given(
    st.builds(
        Outer,
        st.text(),
        finite,
        st.booleans(),
        st.sampled_from(["a", "b"]),
        st.none() | inners,
        st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), max_size=3).map(tuple),
        st.dictionaries(st.text(), inners, max_size=3),
        st.recursive(
            st.none() | st.booleans() | finite | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_what_is_dumped_is_read_as_it_was(value: Outer) -> None:
    assert read(Outer, parse(dump(value), where="o"), where="o") == value


def test_a_whole_number_is_a_float_where_one_is_wanted() -> None:
    value = read(Outer, parse(GOOD, where="o"), where="o")
    assert value.ratio == 2.0
    assert isinstance(value.ratio, float)
    assert value.free == [1, {"y": None}]


def test_everything_that_is_wrong_is_listed_with_its_place() -> None:
    assert rules(
        {
            "text": 1,
            "ratio": "1",
            "flag": 0,
            "choice": "c",
            "inner": {"number": True, "more": 1},
            "pairs": [[1], [1, 2.0]],
            "table": {"x": {"number": -1}, "y": []},
            "extra": 1,
        }
    ) == [
        "o.extra: there is no such key",
        "o.free: is missing",
        "o.text: is 1, not of type str",
        "o.ratio: is '1', not of type float",
        "o.flag: is 0, not of type bool",
        "o.choice: is 'c', not one of ['a', 'b']",
        "o.inner.more: there is no such key",
        "o.inner.number: is True, not of type int",
        "o.pairs: is [1], not a list of 2",
        "o.pairs: is 2.0, not of type int",
        "number: is below 0",
        "o.table.y: is [], not an object",
    ]


@pytest.mark.parametrize("number", ["1e999", "-1e999", str(2**63), "1" * 400])
def test_a_number_that_no_array_holds_is_refused(number: str) -> None:
    tree = parse(GOOD.replace('"ratio": 2', f'"ratio": {number}'), where="o")
    (rule,) = rules(tree)
    assert rule.startswith("o.ratio: ")
    tree = parse(GOOD.replace("[1, 2]", f"[1, {2**63}]"), where="o")
    assert rules(tree) == [f"o.pairs: is {2**63}, not below 2⁶³"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ('{"a": 1, "a": 2}', "a key stands twice"),
        ('{"a": NaN}', "NaN is no number"),
        ("[" * 10**5, "recursion"),
        (b"\xff\xfe\xfd", "decode"),
        ("1" * 5000, "4300"),
    ],
)
def test_what_is_not_json_is_named_so(text: str | bytes, rule: str) -> None:
    with pytest.raises(CheckpointError, match=f"file: is not JSON: .*{rule}"):
        parse(text, where="file")


def test_a_top_that_is_no_object_is_refused() -> None:
    assert rules([]) == ["o: is [], not an object"]


def test_no_number_that_json_lacks_is_written() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        dump({"a": float("nan")})
