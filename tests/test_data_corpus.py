from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from stretto.data.corpus import documents, files, shipped
from stretto.errors import DataError

CORPORA = shipped().parent


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(*paths: Path, field: str = "text") -> list[tuple[str, str]]:
    """What is wrong, where and why, once all documents are read."""
    with pytest.raises(DataError) as caught:
        list(documents(paths, field=field))
    rules = ((Path(p.field).name, p.rule) for p in caught.value.problems)
    # What follows is Python's word on it, which differs from version to version.
    return [(name, re.sub("(not JSON|damaged): .*", r"\1", rule)) for name, rule in rules]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo\n\nthree\n", ["one\ntwo\n\nthree"]),
        ("one\n\n\ntwo\n\n\n\n\nthree", ["one", "two", "three"]),
        ("one\n \t\n  \ntwo", ["one", "two"]),
        ("one\ftwo\n\f\n\fthree", ["one", "two", "three"]),
        ("one\r\n\r\n\r\ntwo\r\nthree", ["one", "two\nthree"]),
        ("\ufeff\n\n\n\n  indented\nGrüße 你好\n\n\n", ["  indented\nGrüße 你好"]),
    ],
)
def test_a_text_ends_documents_at_form_feeds_and_at_two_blank_lines(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    assert list(documents([put(tmp_path / "a.txt", text)])) == expected


def test_json_lines_and_parquet_give_their_text_as_it_stands(tmp_path: Path) -> None:
    texts = [
        "a\n\n\n\nb\n",
        "  Grüße \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    ]
    lines = "\n\n".join(json.dumps({"id": 1, "body": t}) for t in [*texts, " \n"])
    jsonl = put(tmp_path / "a.jsonl", lines)
    table = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"id": [1, 2, 3], "body": [*texts, ""]}), table)
    assert list(documents([jsonl], field="body")) == texts
    assert list(documents([table], field="body")) == texts


def test_compressed_files_read_like_plain_ones(tmp_path: Path) -> None:
    plain = b"one\n\n\ntwo"
    put(tmp_path / "a.txt.gz", gzip.compress(plain))
    put(tmp_path / "b.txt.xz", lzma.compress(plain))
    put(tmp_path / "c.jsonl.gz", gzip.compress(b'{"text": "three"}'))
    assert list(documents([tmp_path])) == ["one", "two", "one", "two", "three"]


def test_a_directory_stands_for_the_texts_below_it_by_name_and_paths_keep_their_order(
    tmp_path: Path,
) -> None:
    (tmp_path / "b").mkdir()
    inner = put(tmp_path / "b" / "z.txt", "z")
    outer = put(tmp_path / "c.txt", "c")
    first = put(tmp_path / "a.TXT", "a")
    put(tmp_path / "notes.md", "not read")
    assert files([tmp_path]) == (first, inner, outer)
    assert files([outer, tmp_path / "b"]) == (outer, inner)


@settings(deadline=None)
@given(
    text=st.text(st.sampled_from("ab \n你"), min_size=1, max_size=60),
    longest=st.integers(1, 20),
)
def test_a_long_document_is_cut_into_parts_that_join_to_it(
    tmp_path_factory: pytest.TempPathFactory, text: str, longest: int
) -> None:
    body = f"x{text}x"
    line = json.dumps({"text": body})
    path = put(tmp_path_factory.mktemp("cut") / "a.jsonl", line)
    parts = list(documents([path], longest=longest))
    assert max(map(len, parts)) <= longest
    assert "".join("".join(parts).split()) == "".join(body.split())


def test_a_long_document_is_cut_after_a_line_end_else_after_a_space_else_anywhere(
    tmp_path: Path,
) -> None:
    path = put(tmp_path / "a.txt", "ab cd\nef gh ij klmnopqrstu")
    assert list(documents([path], longest=8)) == ["ab cd", "ef gh", "ij", "klmnopqr", "stu"]


@settings(deadline=None)
@given(text=st.text(st.sampled_from("a你 \t\n\f\r")), size=st.integers(1, 5))
def test_a_text_streams_alike_however_its_bytes_are_read(
    tmp_path_factory: pytest.TempPathFactory, text: str, size: int
) -> None:
    path = put(tmp_path_factory.mktemp("read") / "a.txt", f"{text}x")
    whole = list(documents([path]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stretto.data.corpus._READ_BYTES", size)
        assert list(documents([path])) == whole


def test_paths_that_cannot_be_text_are_refused_together(tmp_path: Path) -> None:
    (tmp_path / "hollow").mkdir()
    paths = [
        tmp_path / "absent.txt",
        tmp_path / "hollow",
        put(tmp_path / "a.pdf", "%PDF"),
        put(tmp_path / "noname", "x"),
        put(tmp_path / "empty.txt", ""),
    ]
    assert refusal(*paths) == [
        ("absent.txt", "no such file"),
        ("hollow", "a directory with no text in it"),
        ("a.pdf", ".pdf is no kind of text known here"),
        ("noname", "a name without suffix is no kind of text known here"),
        ("empty.txt", "an empty file"),
    ]
    assert refusal() == [("data", "nothing was named")]


def test_what_cannot_be_read_is_listed_with_file_and_line_after_the_good_documents(
    tmp_path: Path,
) -> None:
    lines = [
        b'{"text": "good"}',
        b'{"text": "cut off',
        b'{"title": "x", "id": 3}',
        b"[1, 2]",
        b'{"text": 7}',
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b"[" * 100_000,
    ]
    paths = [
        put(tmp_path / "binary.txt", b"one\ntwo\n\x00\x01"),
        put(tmp_path / "latin.txt", "eins\nzwei\nGrüße".encode("latin-1")),
        put(tmp_path / "cut.txt", "Grü".encode()[:-1]),
        put(tmp_path / "blank.txt", " \n\n\n\t\n"),
        put(tmp_path / "lines.jsonl", b"\n".join(lines)),
    ]
    assert refusal(*paths) == [
        ("binary.txt:3", "a NUL byte: binary, not text"),
        ("latin.txt:3", "byte 0xfc is not UTF-8: invalid start byte"),
        ("cut.txt:1", "byte 0xc3 is not UTF-8: unexpected end of data"),
        ("blank.txt", "nothing but white space"),
        ("lines.jsonl:2", "not JSON"),
        ("lines.jsonl:3", "no field 'text'; its fields: title, id"),
        ("lines.jsonl:4", "a JSON list, not an object"),
        ("lines.jsonl:5", "field 'text' is int, not text"),
        ("lines.jsonl:6", "byte 0xff is not UTF-8: invalid start byte"),
        ("lines.jsonl:7", "half of a surrogate pair"),
        ("lines.jsonl:8", "not JSON"),
    ]
    stream = documents(paths)
    assert next(stream) == "good"


def test_a_file_is_left_after_ten_problems(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", "{}\n" * 1000)
    found = refusal(path)
    assert len(found) == 11
    assert found[-1] == ("a.jsonl", "read no further after 10 problems")


def test_damaged_compression_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"text " * 1000)
    put(tmp_path / "a.txt.gz", whole[:-20])
    put(tmp_path / "b.txt.gz", b"plain text")
    put(tmp_path / "c.txt.xz", b"plain text")
    flipped = bytearray(whole)
    flipped[-6] ^= 1
    put(tmp_path / "d.txt.gz", bytes(flipped))
    names = ["a.txt.gz", "b.txt.gz", "c.txt.xz", "d.txt.gz"]
    assert refusal(tmp_path) == [(name, "damaged") for name in names]


def test_parquet_without_text_is_refused(tmp_path: Path) -> None:
    def table(name: str, **columns: list[object]) -> Path:
        parquet.write_table(pyarrow.table(columns), tmp_path / name)
        return tmp_path / name

    paths = [
        table("column.parquet", title=["a"], id=[1]),
        table("type.parquet", text=[1, 2]),
        table("null.parquet", text=["a", None, "b"]),
        put(tmp_path / "damaged.parquet", b"PAR1 not really"),
    ]
    assert refusal(*paths) == [
        ("column.parquet", "no column 'text'; its columns: title, id"),
        ("type.parquet", "column 'text' is int64, not text"),
        ("null.parquet: row 2", "null"),
        ("damaged.parquet", "damaged"),
    ]


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "a.parquet", b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=re.escape("pip install 'stretto[parquet]'")):
        list(documents([path]))


def test_the_shipped_text_is_the_one_of_its_provenance() -> None:
    said = (CORPORA / "PROVENANCE.md").read_text()
    for data in (shipped().read_bytes(), gzip.decompress(shipped().read_bytes())):
        assert hashlib.sha256(data).hexdigest() in said


def test_the_shipped_text_is_one_clean_document_per_chapter() -> None:
    chapters = list(documents([shipped()]))
    assert len(chapters) == 1189
    assert chapters[0].startswith("Genesis 1\n\nIn the beginning God created the heaven and the ea")
    assert chapters[-1].endswith("The grace of our Lord Jesus Christ be with you all. Amen.")
    pattern = r"(\d )?[A-Z][A-Za-z ]+ \d+\n\n[A-Za-z ,.;:?!()'-]+"
    assert all(re.fullmatch(pattern, chapter) for chapter in chapters)
    assert not any("  " in chapter for chapter in chapters)


def test_chapters_are_made_from_verses() -> None:
    chapters = runpy.run_path(str(CORPORA / "make_kjv.py"))["chapters"]
    lines = ["1Sm1:1 Now there was", "1Sm1:2 a man.  And", "1Sm2:1 Hannah prayed. ", "Ge1:1 In the"]
    assert list(chapters(lines)) == [
        "1 Samuel 1\n\nNow there was a man. And",
        "1 Samuel 2\n\nHannah prayed.",
        "Genesis 1\n\nIn the",
    ]


def test_importing_the_package_imports_no_library() -> None:
    code = (
        "import sys, stretto.data\n"
        "print(*{'numpy', 'tokenizers', 'pyarrow', 'torch'} & set(sys.modules))\n"
        "from stretto.data import *\n"
        "[getattr(stretto.data, name) for name in dir(stretto.data)]\n"
        "print(*{'tokenizers', 'pyarrow', 'torch'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
