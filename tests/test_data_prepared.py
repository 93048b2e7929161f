from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from stretto.data.corpus import documents, shipped
from stretto.data.prepared import Prepared, prepare
from stretto.data.tokenizer import learn, load
from stretto.data.tokens import TokenSet, unigram_loss
from stretto.errors import DataError, InputError, MachineError

CHAPTERS = 400


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 400 chapters of the shipped text, 1.6 MB."""
    path = tmp_path_factory.mktemp("text") / "book.txt"
    chapters = list(documents([shipped()]))[:CHAPTERS]
    path.write_text("\n\n\n".join(chapters))
    return path


@pytest.fixture(scope="module")
def prepared(book: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare([book], tmp_path_factory.mktemp("data"), vocab_size=512)


def texts(tokens: TokenSet, tokenizer_path: Path) -> list[str]:
    """The documents of a set, in order."""
    tokenizer = load(tokenizer_path)
    bounds = [*tokens.documents.tolist(), tokens.size]
    found = [tokens[np.arange(start, stop)].tolist() for start, stop in pairwise(bounds)]
    assert all(ids[-1] == tokens.end_of_text == tokenizer.end_of_text for ids in found)
    assert all(ids.count(tokens.end_of_text) == 1 for ids in found)
    return [tokenizer.decode(ids) for ids in found]


def content(directory: Path) -> dict[str, bytes]:
    """All that lies in a directory, but for the empty lock."""
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file() and file.name != ".lock"
    }


def command(code: str, *args: Path) -> list[str]:
    head = "import os, signal, sys\nfrom pathlib import Path\nfrom stretto.data import prepared\n"
    return [sys.executable, "-c", head + code, *map(str, args)]


def test_the_two_sets_hold_every_document_once_and_in_order(book: Path, prepared: Prepared) -> None:
    train, valid = (texts(s, prepared.tokenizer_path) for s in (prepared.train, prepared.valid))
    chapters = list(documents([book]))
    assert len(train) + len(valid) == len(chapters) == CHAPTERS
    assert 3 <= len(valid) <= 30  # about 3 % of 400
    assert train == [chapter for chapter in chapters if chapter in set(train)]
    assert valid == [chapter for chapter in chapters if chapter in set(valid)]
    assert not set(train) & set(valid)


def test_the_tokenizer_is_trained_on_what_is_not_held_out(prepared: Prepared) -> None:
    train = texts(prepared.train, prepared.tokenizer_path)
    expected = learn(train, vocab_size=512).library.to_str()
    assert load(prepared.tokenizer_path).library.to_str() == expected


def test_what_is_prepared_is_sound_and_says_what_it_is(prepared: Prepared) -> None:
    for tokens in (prepared.train, prepared.valid):
        assert TokenSet.open(tokens.path, verify=True).vocab_size == 512
    assert 3 < unigram_loss(prepared.train, prepared.valid) < np.log(512)
    assert prepared.notes == ()


def test_a_second_call_reads_nothing_but_the_files_and_gives_the_same(
    book: Path, prepared: Prepared
) -> None:
    home = prepared.tokenizer_path.parent
    before = {file: file.stat().st_mtime_ns for file in home.rglob("*")}
    seen: list[str] = []
    again = prepare([book], home.parent, vocab_size=512, progress=lambda *_: seen.append("work"))
    assert (again.train.fingerprint, again.notes) == (prepared.train.fingerprint, ())
    assert {file: file.stat().st_mtime_ns for file in home.rglob("*")} == before
    assert seen == []


def test_other_text_or_settings_are_prepared_apart(tmp_path: Path) -> None:
    def home(body: str, name: str = "a.txt", **options: float) -> str:
        (tmp_path / name).write_text(body)
        options = {"vocab_size": 260, "valid_fraction": 0.1} | options
        return prepare([tmp_path / name], tmp_path / "out", **options).tokenizer_path.parent.name

    one = home("one\n\n\ntwo")
    others = {
        home("one\n\n\ntwo."),
        home("one\n\n\ntwo", vocab_size=261),
        home("one\n\n\ntwo", valid_fraction=0.2),
    }
    assert len(others | {one}) == 4
    assert home("one\n\n\ntwo", name="moved.txt") == one


def test_progress_runs_through_the_stages_up_to_all_characters(book: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    prepare([book], tmp_path, vocab_size=300, progress=lambda *call: seen.append(call))
    total = sum(map(len, documents([book])))
    assert [stage for stage, done, _ in seen if done == total] == ["read", "learn", "encode"]
    assert {whole for stage, _, whole in seen if stage != "read"} == {total}
    assert len(seen) == 6


@settings(deadline=None, max_examples=25)
@given(
    names=st.lists(st.integers(0, 30), min_size=2, max_size=40).filter(lambda n: len(set(n)) > 1),
    fraction=st.sampled_from([0.001, 0.03, 0.5]),
)
def test_something_is_held_out_and_not_all_and_equal_documents_go_the_same_way(
    tmp_path_factory: pytest.TempPathFactory, names: list[int], fraction: float
) -> None:
    path = tmp_path_factory.mktemp("few")
    lines = [json.dumps({"text": f"document {name}"}) for name in names]
    (path / "a.jsonl").write_text("\n".join(lines))
    found = prepare([path / "a.jsonl"], path / "out", vocab_size=257, valid_fraction=fraction)
    train, valid = (set(texts(s, found.tokenizer_path)) for s in (found.train, found.valid))
    assert train
    assert valid
    assert not train & valid
    assert len(found.train.documents) + len(found.valid.documents) == len(names)


def test_one_long_text_is_cut_so_that_a_part_can_be_held_out(tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    lines = [f"line {k} of a text without a blank line\n" for k in range(10_000)]
    path.write_text("".join(lines))
    found = prepare([path], tmp_path / "out", vocab_size=300, valid_fraction=0.05)
    held_out = texts(found.valid, found.tokenizer_path)
    share = sum(map(len, held_out)) / sum(map(len, lines))
    assert 0.01 < share < 0.15
    everything = [*texts(found.train, found.tokenizer_path), *held_out]
    assert sorted("\n".join(everything).split("\n")) == sorted(line[:-1] for line in lines)


def test_one_short_text_leaves_nothing_to_hold_out(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("word " * 20)
    with pytest.raises(
        DataError, match=r"one document of 99 characters leaves nothing to hold out"
    ):
        prepare([path], tmp_path / "out")
    assert content(tmp_path / "out") == {}


def test_a_tokenizer_that_saw_little_text_is_said_to_have(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n\n".join(f"the cat sat on the mat {k}" for k in range(40)))
    for _ in range(2):  # prepared, and found
        found = prepare([path], tmp_path / "out", vocab_size=1000)
        little, fewer = found.notes
        assert "fewer than 100 for each of 1,000 tokens" in little
        assert re.fullmatch(r"The text gives 2\d\d tokens of the 1,000 asked for\.", fewer)
        assert found.train.vocab_size == load(found.tokenizer_path).size < 300


def test_a_tokenizer_that_saw_a_part_is_said_to_have(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stretto.data.prepared._LEARNT", 500_000)
    found = prepare([book], tmp_path, vocab_size=300)
    assert found.notes == ("The tokenizer was trained on one document in 4.",)


def given_tokenizer(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    library = Library(models.WordLevel({"?": 0, "cat": 1, "mat": 70_000}, unk_token="?"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.add_special_tokens(["</s>", "<x>"])
    library.save(str(directory / "tokenizer.json"))
    return directory / "tokenizer.json"


def test_a_given_tokenizer_is_used_and_its_end_of_text_kept(tmp_path: Path) -> None:
    path = given_tokenizer(tmp_path / "model")
    (tmp_path / "a.txt").write_text("cat mat\n\n\nmat cat cat")
    found = prepare([tmp_path / "a.txt"], tmp_path / "out", tokenizer=path, end_of_text="<x>")
    assert found.train.vocab_size == 70_001
    end = load(path).library.token_to_id("<x>")
    assert found.train.end_of_text == load(found.tokenizer_path).end_of_text == end
    both = [s[np.arange(s.size)].tolist() for s in (found.train, found.valid)]
    assert sorted(both) == [[1, 70_000, end], [70_000, 1, 1, end]]
    # Another end of text beside it is another tokenizer.
    (path.parent / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    other = prepare([tmp_path / "a.txt"], tmp_path / "out", tokenizer=path.parent)
    assert other.train.end_of_text == load(path).library.token_to_id("</s>")


def test_bad_settings_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepare([tmp_path / "absent.txt"], tmp_path / "out", vocab_size=10, valid_fraction=0.6)
    assert [p.rule for p in caught.value.problems] == [
        "0.6 is not more than 0 and at most 0.5",
        "10 tokens cannot hold 256 bytes and the end of text",
        "no such file",
    ]
    with pytest.raises(DataError, match="no such tokenizer"):
        prepare([shipped()], tmp_path / "out", tokenizer=tmp_path)
    assert not (tmp_path / "out").exists()


def test_bad_text_and_a_bad_tokenizer_are_refused_together_and_leave_nothing(
    tmp_path: Path,
) -> None:
    path = given_tokenizer(tmp_path / "model")
    (tmp_path / "a.txt").write_bytes(b"text\0")
    (tmp_path / "b.jsonl").write_bytes(b"{}\n?")
    with pytest.raises(DataError) as caught:
        prepare(
            [tmp_path / "a.txt", tmp_path / "b.jsonl"],
            tmp_path / "out",
            tokenizer=path,
            end_of_text="<none>",
        )
    assert [Path(p.field).name for p in caught.value.problems] == [
        "tokenizer.json",
        "a.txt:1",
        "b.jsonl:1",
        "b.jsonl:2",
    ]
    assert content(tmp_path / "out") == {}


def test_text_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n\n\ntwo")

    def grow(stage: str, done: int, total: int | None) -> None:
        if stage == "learn":
            path.write_text("one\n\n\ntwo\n\n\nthree")

    with pytest.raises(DataError, match="6 characters at first, then 11; leave the files alone"):
        prepare([path], tmp_path / "out", vocab_size=260, progress=grow)
    assert content(tmp_path / "out") == {}


def test_damage_to_what_was_prepared_is_named_with_what_to_delete(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n\ntwo")
    home = prepare([tmp_path / "a.txt"], tmp_path / "out", vocab_size=260).tokenizer_path.parent
    (home / "train" / "shard-00000.bin").write_bytes(b"")
    (home / "valid" / "index.json").unlink()
    (home / "tokenizer.json").unlink()
    (home / "prepared.json").write_text("[]")
    with pytest.raises(InputError) as caught:
        prepare([tmp_path / "a.txt"], tmp_path / "out", vocab_size=260)
    assert [str(Path(p.field).relative_to(home)) for p in caught.value.problems] == [
        "train/shard-00000.bin",
        "valid/index.json",
        "tokenizer.json",
        "prepared.json",
    ]
    assert {p.remedy for p in caught.value.problems} == {f"delete {home}, and it is prepared again"}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A machine that refuses to write longer files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_refuses_is_the_machines_fault_and_nothing_is_left(
    book: Path, tmp_path: Path
) -> None:
    with files_of_at_most(100_000), pytest.raises(MachineError, match="File too large"):
        prepare([book], tmp_path / "out", vocab_size=300)
    assert content(tmp_path / "out") == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="Not a directory"):
        prepare([book], tmp_path / "file" / "out", vocab_size=300)


@pytest.mark.parametrize("moment", ["read", "learn", "encode", "publish"])
def test_a_preparation_that_is_killed_leaves_nothing_that_looks_complete(
    book: Path, prepared: Prepared, tmp_path: Path, moment: str
) -> None:
    code = f"""
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def progress(stage, done, total):
    if stage == {moment!r} and done > 1_000_000:
        die()
if {moment!r} == "publish":
    prepared.publish = die
prepared.prepare([Path(sys.argv[1])], Path(sys.argv[2]), vocab_size=512, progress=progress)
"""
    killed = subprocess.run(command(code, book, tmp_path), check=False)
    assert killed.returncode == -signal.SIGKILL
    home = tmp_path / prepared.tokenizer_path.parent.name
    assert not home.exists()
    if moment == "publish":  # the worst moment: all is there but for the name
        (work,) = (tmp_path / ".work").iterdir()
        assert content(work) == content(prepared.tokenizer_path.parent)
    prepare([book], tmp_path, vocab_size=512)
    assert content(tmp_path) == content(prepared.tokenizer_path.parent.parent)


def test_processes_that_prepare_the_same_at_once_give_the_same(
    book: Path, prepared: Prepared, tmp_path: Path
) -> None:
    code = """
found = prepared.prepare([Path(sys.argv[1])], Path(sys.argv[2]), vocab_size=512)
print(found.train.fingerprint, found.valid.fingerprint)
"""
    several = [
        subprocess.Popen(command(code, book, tmp_path), stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = {process.communicate()[0].strip() for process in several}
    assert [process.returncode for process in several] == [0, 0, 0]
    assert said == {f"{prepared.train.fingerprint} {prepared.valid.fingerprint}"}
    assert content(tmp_path) == content(prepared.tokenizer_path.parent.parent)
