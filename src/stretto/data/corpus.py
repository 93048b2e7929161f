"""Text in files, streamed as documents.

* ``.txt``: UTF-8. A form feed, or two or more blank lines, end a document; a file with neither is
  one document. A single blank line ends a paragraph and stays. Blank lines before a document and
  white space after it are not part of it.
* ``.jsonl``: one JSON object per line, its field ``text`` a document, taken as it stands.
* ``.parquet``: one document per row of the column ``text`` (needs pyarrow).

``.txt`` and ``.jsonl`` may be compressed (``.gz``, ``.xz``). A directory stands for all such files
in and below it, in the order of their names. Documents of nothing but white space are passed over.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from stretto.errors import DataError, Problem

LONGEST = 2**20
"""Characters after which a document is cut, unless something else is asked for."""

_READ_BYTES = 2**20
_SHOWN = 10  # after so many problems a file is read no further
_END = re.compile(r"\f|\n(?:[ \t]*\n){2,}")
_BLANK_LINES = re.compile(r"\A(?:[ \t]*\n)+")
_Stream = BinaryIO | gzip.GzipFile | lzma.LZMAFile
_KINDS = (".txt", ".jsonl", ".parquet", ".txt.gz", ".jsonl.gz", ".txt.xz", ".jsonl.xz")


def shipped() -> Path:
    """Give the path of the corpus that comes with Stretto: the King James Bible, 4.2 MB."""
    return Path(__file__).parent / "corpora" / "kjv.txt.gz"


def kind_of(file: Path) -> str:
    """Give the suffixes of a readable file, such as ``.txt.gz``, else nothing."""
    return next((kind for kind in _KINDS if file.name.lower().endswith(kind)), "")


def files(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Give the files that `paths` stand for.

    Args:
        paths: Files, and directories that are searched.

    Returns:
        The files in the order of `paths`, those of a directory sorted by name.

    Raises:
        DataError: Paths that are missing, empty, of no readable kind, or directories with nothing
            to read in them; all of them.
    """
    found: list[Path] = []
    problems: list[Problem] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and kind_of(p))
            found += inside
            if not inside:
                rule = "a directory with no text in it"
                problems.append(Problem(str(path), rule, f"put in {', '.join(_KINDS)}"))
        elif not path.is_file():
            problems.append(Problem(str(path), "no such file", "name a file or a directory"))
        elif not kind_of(path):
            rule = f"{path.suffix or 'a name without suffix'} is no kind of text known here"
            problems.append(Problem(str(path), rule, f"name it {', '.join(_KINDS)}"))
        else:
            found.append(path)
    problems += [
        Problem(str(file), "an empty file", "leave it out")
        for file in found
        if not file.stat().st_size
    ]
    if not found and not problems:
        problems.append(Problem("data", "nothing was named", "name a file or a directory"))
    if problems:
        raise DataError(problems)
    return tuple(found)


def documents(
    paths: Iterable[Path], *, field: str = "text", longest: int = LONGEST
) -> Iterator[str]:
    """Give the documents of `paths` one by one, in order, holding a few of them at most.

    A document of more than `longest` characters is cut after the last line end within them, else
    after the last space, else right there, and each part is a document. So a text of any length
    streams.

    Args:
        paths: Files, and directories that are searched.
        field: The field of JSON lines, the column of Parquet.
        longest: The most characters of a document, at least 1.

    Yields:
        Documents, none of them blank.

    Raises:
        DataError: Before the first document: what `files` finds. After the last: every document
            that cannot be read, with file and line, about ten of one file; files without any.
    """
    problems: list[Problem] = []
    for file in files(paths):
        wrong: list[Problem] = []
        some = False
        for item in _read(file, field=field, longest=longest):
            if isinstance(item, Problem):
                wrong.append(item)
                if len(wrong) == _SHOWN:
                    rule = f"read no further after {_SHOWN} problems"
                    wrong.append(Problem(str(file), rule, "mend those first"))
                    break
            else:
                parts, rest = _cut(item, longest)
                texts = [text for text in (*parts, rest) if text and not text.isspace()]
                some = some or bool(texts)
                yield from texts
        if not some and not wrong:
            wrong.append(Problem(str(file), "nothing but white space", "leave it out"))
        problems += wrong
    if problems:
        raise DataError(problems)


def _read(file: Path, *, field: str, longest: int) -> Iterator[str | Problem]:
    """Give the documents of one file, and where one cannot be read, why."""
    kind = kind_of(file)
    try:
        if kind == ".parquet":
            yield from _read_parquet(file, field=field)
            return
        with _open(file) as stream:
            if kind.startswith(".jsonl"):
                yield from _read_jsonl(file, stream, field=field)
            else:
                yield from _read_txt(file, stream, longest=longest)
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        yield Problem(str(file), f"damaged: {error}", "compress it again")
    except OSError as error:
        yield Problem(str(file), f"cannot be read: {error.strerror or error}", "make it readable")


def _open(file: Path) -> _Stream:
    match file.suffix.lower():
        case ".gz":
            return gzip.open(file)
        case ".xz":
            return lzma.open(file)
        case _:
            return file.open("rb")


def _read_txt(file: Path, stream: _Stream, *, longest: int) -> Iterator[str | Problem]:
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder("utf-8-sig")(), translate=True
    )
    line = 1
    text = ""
    chunk = b"\n"
    while chunk:
        chunk = stream.read(_READ_BYTES)
        if b"\0" in chunk:
            line += chunk[: chunk.index(b"\0")].count(b"\n")
            yield Problem(f"{file}:{line}", "a NUL byte: binary, not text", "name a text file")
            return
        try:
            text += decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            line += error.object[: error.start].count(b"\n")
            yield _not_utf8(f"{file}:{line}", error)
            return
        line += chunk.count(b"\n")
        *whole, text = _END.split(text)
        parts, text = _cut(text, longest)
        yield from map(_trim, (*whole, *parts))
    yield _trim(text)


def _trim(text: str) -> str:
    return _BLANK_LINES.sub("", text).rstrip()


def _read_jsonl(file: Path, stream: _Stream, *, field: str) -> Iterator[str | Problem]:
    for number, line in enumerate(stream, 1):
        if not line.isspace():
            yield _jsonl_document(line.rstrip(b"\r\n"), field=field, where=f"{file}:{number}")


def _jsonl_document(line: bytes, *, field: str, where: str) -> str | Problem:
    remedy = f'write {{"{field}": "…"}}'
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return _not_utf8(where, error)
    except (ValueError, RecursionError) as error:
        return Problem(where, f"not JSON: {error}", remedy)
    if not isinstance(value, dict):
        return Problem(where, f"a JSON {type(value).__name__}, not an object", remedy)
    if field not in value:
        has = ", ".join(list(value)[:8]) or "none"
        return Problem(where, f"no field {field!r}; its fields: {has}", remedy)
    text = value[field]
    if not isinstance(text, str):
        return Problem(where, f"field {field!r} is {type(text).__name__}, not text", remedy)
    try:
        text.encode()
    except UnicodeEncodeError:
        return Problem(where, "half of a surrogate pair", "write the whole character")
    return text


def _read_parquet(file: Path, *, field: str) -> Iterator[str | Problem]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        rule = "Parquet is read with pyarrow, which is not installed"
        yield Problem(str(file), rule, "pip install 'stretto[parquet]'")
        return
    row = 0
    try:
        with parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            if field not in schema.names:
                rule = f"no column {field!r}; its columns: {', '.join(schema.names)}"
                yield Problem(str(file), rule, "name one of them")
                return
            kind = schema.field(field).type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                rule = f"column {field!r} is {kind}, not text"
                yield Problem(str(file), rule, "name a column of strings")
                return
            for batch in table.iter_batches(batch_size=256, columns=[field]):
                for value in batch.column(0):
                    row += 1
                    text = value.as_py()
                    yield Problem(f"{file}: row {row}", "null", "drop it") if text is None else text
    except UnicodeDecodeError as error:
        yield _not_utf8(f"{file}: row {row}", error)
    except pyarrow.ArrowException as error:
        yield Problem(str(file), f"damaged: {error}", "write it again")


def _not_utf8(where: str, error: UnicodeDecodeError) -> Problem:
    byte = error.object[error.start]
    return Problem(where, f"byte 0x{byte:02x} is not UTF-8: {error.reason}", "save it as UTF-8")


def _cut(text: str, longest: int) -> tuple[list[str], str]:
    """Cut parts of `longest` characters at most off a text, and give them and the rest."""
    parts = []
    start = 0
    while len(text) - start > longest:
        end = start + longest
        for sign in "\n ":
            at = text.rfind(sign, start, end)
            if at >= 0:
                end = at + 1
                break
        parts.append(text[start:end])
        start = end
    return parts, text[start:]
