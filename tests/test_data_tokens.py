from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretto.data.tokens import TokenSet, TokenWriter, unigram_loss, write
from stretto.errors import DataError

END = 3
DOCUMENTS = [[5, 1, END], [END], [7, 7, 7, 7, END], [0, END]]


@pytest.fixture
def tokens(tmp_path: Path) -> TokenSet:
    """Four documents in three shards."""
    path = tmp_path / "set"
    with TokenWriter(path, vocab_size=8, end_of_text=END, shard_tokens=4) as writer:
        for document in DOCUMENTS:
            writer.add(np.array(document))
    return TokenSet.open(path, verify=True)


def refusal(path: Path, *, verify: bool = False) -> list[tuple[str, str]]:
    with pytest.raises(DataError) as caught:
        TokenSet.open(path, verify=verify)
    assert {p.remedy for p in caught.value.problems} == {f"delete {path} and write it again"}
    return [(Path(p.field).name, p.rule) for p in caught.value.problems]


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((path / "index.json").read_text())
    edit(index)
    (path / "index.json").write_text(json.dumps(index))


@settings(deadline=None, max_examples=40)
@given(
    documents=st.lists(st.lists(st.integers(0, 99), max_size=9), min_size=1, max_size=20),
    shard_tokens=st.integers(1, 40),
    vocab_size=st.sampled_from([100, 2**16, 2**16 + 1, 2**32]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[list[int]],
    shard_tokens: int,
    vocab_size: int,
) -> None:
    path = tmp_path_factory.mktemp("tokens") / "set"
    end = vocab_size - 1
    with TokenWriter(
        path, vocab_size=vocab_size, end_of_text=end, shard_tokens=shard_tokens
    ) as writer:
        for document in documents:
            writer.add(np.array([*document, end]))
    found = TokenSet.open(path, verify=True)
    stream = [token for document in documents for token in (*document, end)]
    assert found.size == len(stream)
    assert found[np.arange(found.size)].tolist() == stream
    assert found[[[0, -1 + found.size]]].tolist() == [[stream[0], stream[-1]]]
    lengths = [len(document) + 1 for document in documents]
    assert found.documents.tolist() == [sum(lengths[:k]) for k in range(len(lengths))]


def test_the_files_hold_what_the_format_says(tokens: TokenSet) -> None:
    path = tokens.path
    assert sorted(file.name for file in path.iterdir()) == [
        "documents.bin",
        "index.json",
        "shard-00000.bin",
        "shard-00001.bin",
        "shard-00002.bin",
    ]
    assert (path / "shard-00000.bin").read_bytes() == bytes([5, 0, 1, 0, 3, 0, 3, 0])
    assert (path / "documents.bin").read_bytes() == b"".join(
        start.to_bytes(8, "little") for start in (0, 3, 4, 9)
    )
    index = json.loads((path / "index.json").read_text())
    assert index["dtype"] == "uint16"
    for shard in index["shards"]:
        data = (path / shard["name"]).read_bytes()
        assert shard["sha256"] == hashlib.sha256(data).hexdigest()
        assert shard["tokens"] * 2 == len(data)


def test_more_than_65536_tokens_take_four_bytes(tmp_path: Path) -> None:
    write(tmp_path / "two", [[65535]], vocab_size=65536, end_of_text=65535)
    write(tmp_path / "four", [[65536]], vocab_size=65537, end_of_text=65536)
    assert (tmp_path / "two" / "shard-00000.bin").read_bytes() == bytes([255, 255])
    assert (tmp_path / "four" / "shard-00000.bin").read_bytes() == bytes([0, 0, 1, 0])


def test_sets_have_one_fingerprint_if_and_only_if_they_hold_the_same(tmp_path: Path) -> None:
    def fingerprint(name: str, documents: list[list[int]]) -> str:
        return write(tmp_path / name, documents, vocab_size=8, end_of_text=END).fingerprint

    assert fingerprint("a", DOCUMENTS) == fingerprint("b", DOCUMENTS)
    assert fingerprint("c", [[5, 1, END, END], *DOCUMENTS[2:]]) != fingerprint("d", DOCUMENTS)


def test_a_set_that_is_not_finished_does_not_appear(tmp_path: Path) -> None:
    def broken() -> Any:
        yield [1, END]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", broken(), vocab_size=8, end_of_text=END)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_is_interrupted_leaves_no_index(tmp_path: Path) -> None:
    def interrupted() -> None:
        with TokenWriter(tmp_path / "set", vocab_size=8, end_of_text=END) as writer:
            writer.add(np.array([1, END]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert refusal(tmp_path / "set") == [
        ("index.json", "cannot be read: No such file or directory")
    ]


def test_nothing_and_something_that_exists_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without a document"):
        write(tmp_path / "set", [], vocab_size=8, end_of_text=END)
    write(tmp_path / "set", DOCUMENTS, vocab_size=8, end_of_text=END)
    with pytest.raises(DataError, match=r"set: exists; delete it, or name another"):
        write(tmp_path / "set", DOCUMENTS, vocab_size=8, end_of_text=END)


def test_missing_and_truncated_files_are_all_named_without_reading_them(tokens: TokenSet) -> None:
    (tokens.path / "shard-00000.bin").unlink()
    (tokens.path / "shard-00001.bin").write_bytes(b"123")
    (tokens.path / "documents.bin").write_bytes(bytes(40))
    assert refusal(tokens.path) == [
        ("shard-00000.bin", "cannot be read: No such file or directory"),
        ("shard-00001.bin", "3 bytes long, not 10"),
        ("documents.bin", "40 bytes long, not 32"),
    ]


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_any_flipped_bit_is_found_when_bytes_are_verified(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("flip") / "set"
    write(path, DOCUMENTS, vocab_size=8, end_of_text=END)
    name = data.draw(st.sampled_from(["shard-00000.bin", "documents.bin"]))
    raw = bytearray((path / name).read_bytes())
    at = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[at // 8] ^= 1 << at % 8
    (path / name).write_bytes(raw)
    assert refusal(path, verify=True) == [(name, "damaged: not the SHA-256 of the index")]


def test_document_starts_that_do_not_increase_are_refused(tokens: TokenSet) -> None:
    raw = np.array([0, 4, 4, 9], "<u8").tobytes()
    (tokens.path / "documents.bin").write_bytes(raw)
    digest = hashlib.sha256(raw).hexdigest()
    change(tokens.path, lambda index: index["documents"].update(sha256=digest))
    assert refusal(tokens.path, verify=True) == [
        ("documents.bin", "document starts do not increase from 0 to less than 11 tokens")
    ]


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"\xff", "not JSON: 'utf-8' codec can't decode byte 0xff"),
        (b"{", "not JSON: "),
        (b'{"version": 1, "version": 1}', "not JSON: a key stands twice"),
        (b'{"version": NaN}', "not JSON: NaN is no number"),
        (b"[]", "the index is not an object"),
    ],
)
def test_an_index_that_is_no_json_object_is_refused(
    tokens: TokenSet, raw: bytes, rule: str
) -> None:
    (tokens.path / "index.json").write_bytes(raw)
    ((name, found),) = refusal(tokens.path)
    assert name == "index.json"
    assert found.startswith(rule)


def test_an_index_of_another_form_is_refused_with_all_that_is_wrong(tokens: TokenSet) -> None:
    def edit(index: dict[str, Any]) -> None:
        index["color"] = "blue"
        del index["dtype"]
        index["vocab_size"] = True

    change(tokens.path, edit)
    assert [rule for _, rule in refusal(tokens.path)] == [
        "the index has an unknown field 'color'",
        "the index lacks 'dtype'",
        "the index: vocab_size is True, not of type int",
    ]


def test_an_index_whose_shards_have_another_form_is_refused(tokens: TokenSet) -> None:
    def edit(index: dict[str, Any]) -> None:
        index["documents"]["count"] = "4"
        index["shards"][1] = 7
        index["shards"][2]["tokens"] = 2.0

    change(tokens.path, edit)
    assert [rule for _, rule in refusal(tokens.path)] == [
        "documents: count is '4', not of type int",
        "shard 1 is not an object",
        "shard 2: tokens is 2.0, not of type int",
    ]


def test_an_index_with_impossible_values_is_refused_with_all_that_is_wrong(
    tokens: TokenSet,
) -> None:
    def edit(index: dict[str, Any]) -> None:
        index["version"] = 2
        index["dtype"] = "uint32"
        index["end_of_text"] = 8
        index["shards"][0]["name"] = "../../etc/passwd"
        index["shards"][1]["tokens"] = 0
        index["documents"]["count"] = 0

    change(tokens.path, edit)
    assert [rule for _, rule in refusal(tokens.path)] == [
        "version is 2, and 1 is read here",
        "dtype is 'uint32', and 8 tokens take uint16",
        "end_of_text is 8, outside a vocabulary of 8",
        "shard 0 is named '../../etc/passwd', not 'shard-00000.bin'",
        "shard 1 has 0 tokens, not one at least",
        "documents: count is 0, not one at least",
    ]

    def empty(index: dict[str, Any]) -> None:
        index |= {"version": 1, "vocab_size": 0, "end_of_text": -1, "shards": []}
        index["documents"]["count"] = 1

    change(tokens.path, empty)
    assert [rule for _, rule in refusal(tokens.path)] == [
        "vocab_size is 0, not in 1 … 2³²",
        "end_of_text is -1, outside a vocabulary of 0",
        "there is no shard",
    ]


def test_the_unigram_loss_is_that_of_counts_plus_one(tmp_path: Path) -> None:
    train = write(tmp_path / "a", [[0, 0, 1, END], [0, END]], vocab_size=4, end_of_text=END)
    valid = write(tmp_path / "b", [[0, 2, END]], vocab_size=4, end_of_text=END)
    # Six tokens: 0 three times, 1 once, the end twice; of 6 + 4 with one added to each of four.
    expected = -(math.log(4 / 10) + math.log(1 / 10) + math.log(3 / 10)) / 3
    assert unigram_loss(train, valid) == pytest.approx(expected, rel=1e-12)
