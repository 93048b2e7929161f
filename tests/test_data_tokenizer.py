from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from stretto.data.corpus import documents, shipped
from stretto.data.tokenizer import Tokenizer, learn, load
from stretto.errors import DataError

FEW = "the cat sat on the mat and the cat ran "


@pytest.fixture(scope="module")
def bible() -> Tokenizer:
    return learn(documents([shipped()]), vocab_size=2048)


def given_tokenizer(directory: Path, special: list[str]) -> Path:
    """A tokenizer.json such as a model comes with: words, and special tokens."""
    words = {word: k for k, word in enumerate(["?", "a", "b"])}
    library = Library(models.WordLevel(words, unk_token="?"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.add_special_tokens(special)
    library.save(str(directory / "tokenizer.json"))
    return directory / "tokenizer.json"


@settings(deadline=None, max_examples=200)
@given(text=st.text())
def test_every_text_comes_back_from_its_tokens(bible: Tokenizer, text: str) -> None:
    (ids,) = bible.encode_documents([text])
    assert bible.decode(ids.tolist()[:-1]) == text
    assert ids[-1] == bible.end_of_text
    assert all(id_ < bible.size for id_ in ids)


def test_a_vocabulary_has_the_size_that_is_asked_for_and_serves_the_text(bible: Tokenizer) -> None:
    assert bible.size == 2048
    assert len(bible.encode("In the beginning God created the heaven and the earth.")) < 16


def test_the_same_text_gives_the_same_tokenizer(bible: Tokenizer) -> None:
    again = learn(documents([shipped()]), vocab_size=2048)
    assert again.library.to_str() == bible.library.to_str()


def test_pairs_are_merged_by_how_often_they_occur() -> None:
    # " b" occurs 4 times, "ab" 2, "ba" once: spaces lead words, and a pair seen once is not merged.
    tokenizer = learn(["b b b b b", "ab", "ab", "ba"], vocab_size=300)
    assert tokenizer.size == 257 + 2
    assert [tokenizer.library.id_to_token(k) for k in (257, 258)] == ["Ġb", "ab"]


def test_a_small_text_gives_a_smaller_vocabulary_that_still_works() -> None:
    tokenizer = learn([FEW], vocab_size=50_000)
    assert 257 < tokenizer.size < 300
    assert tokenizer.decode(tokenizer.encode("Ω the cat")) == "Ω the cat"
    assert learn([], vocab_size=300).size == 257


def test_a_vocabulary_that_cannot_hold_every_byte_is_refused() -> None:
    with pytest.raises(DataError, match=r"vocab_size: 256 tokens cannot hold .* at least 257"):
        learn([FEW], vocab_size=256)


def test_an_error_of_the_text_reaches_the_caller() -> None:
    def texts() -> Iterator[str]:
        yield FEW
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        learn(texts(), vocab_size=300)


def test_only_the_last_token_of_a_document_is_an_end_of_text(bible: Tokenizer) -> None:
    text = "He wrote <|endoftext|> and went on."
    (ids,) = bible.encode_documents([text])
    assert ids.tolist().count(bible.end_of_text) == 1
    assert bible.decode(ids.tolist()[:-1]) == text
    assert bible.encode(text).count(bible.end_of_text) == 1  # a prompt may use it


def test_what_is_saved_is_loaded(bible: Tokenizer, tmp_path: Path) -> None:
    path = bible.save(tmp_path)
    for source in (path, tmp_path):
        found = load(source)
        assert found.library.to_str() == bible.library.to_str()
        assert (found.end_of_text, found.size) == (bible.end_of_text, bible.size)


def test_transformers_reads_what_is_saved(bible: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    bible.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "In the beginning God created\n\n  Grüße 你好"
    assert theirs.encode(text) == bible.encode(text)
    assert theirs.eos_token_id == bible.end_of_text


@pytest.mark.parametrize("token", ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"])
def test_the_end_of_text_is_known_by_its_name(tmp_path: Path, token: str) -> None:
    tokenizer = load(given_tokenizer(tmp_path, ["<pad>", token]))
    assert (tokenizer.end_of_text, tokenizer.size) == (4, 5)


def test_the_end_of_text_is_what_is_given_else_what_the_files_beside_say(tmp_path: Path) -> None:
    path = given_tokenizer(tmp_path, ["</s>", "<x>", "<y>", "<z>"])
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [4, 3]}')
    assert load(path).end_of_text == 4
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "<y>"}}')
    assert load(path).end_of_text == 5
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<z>"}')
    assert load(path).end_of_text == 6
    assert load(path, end_of_text="<x>").end_of_text == 4
    assert load(path, end_of_text=0).end_of_text == 0


def test_a_given_tokenizer_neither_truncates_nor_pads(tmp_path: Path) -> None:
    path = given_tokenizer(tmp_path, ["</s>"])
    library = Library.from_file(str(path))
    library.enable_truncation(2)
    library.enable_padding()
    library.save(str(path))
    tokenizer = load(path)
    found = tokenizer.encode_documents(["a b a b", "a"])
    assert [ids.tolist() for ids in found] == [[1, 2, 1, 2, 3], [1, 3]]


@pytest.mark.parametrize("wanted", ["<nothing>", 99, None])
def test_a_tokenizer_without_an_end_of_text_is_refused(
    tmp_path: Path, wanted: str | int | None
) -> None:
    path = given_tokenizer(tmp_path, ["<pad>"])
    what = "no end of text is named or known" if wanted is None else f"there is no token {wanted!r}"
    with pytest.raises(DataError, match=f"{what}; its special tokens: <pad>; name the token"):
        load(path, end_of_text=wanted)


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json: cannot be read: No such file"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": "?"}))
    with pytest.raises(DataError, match=r"tokenizer\.json: no tokenizer: "):
        load(tmp_path)
    given_tokenizer(tmp_path, ["</s>"])
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer_config\.json: cannot be read: "):
        load(tmp_path)
