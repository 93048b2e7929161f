"""Makes ``kjv.txt.gz`` from Debian's packages bible-kjv and bible-kjv-text.

Run it anywhere those packages are installed (``apt-get install bible-kjv``); the file comes out
beside this script, the same bytes every time. `PROVENANCE.md` says what it is.
"""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

# What `bible` calls a book, and what a chapter of it is headed with.
BOOKS = {
    "Ge": "Genesis",
    "Exo": "Exodus",
    "Lev": "Leviticus",
    "Num": "Numbers",
    "Deu": "Deuteronomy",
    "Josh": "Joshua",
    "Jdgs": "Judges",
    "Ruth": "Ruth",
    "1Sm": "1 Samuel",
    "2Sm": "2 Samuel",
    "1Ki": "1 Kings",
    "2Ki": "2 Kings",
    "1Chr": "1 Chronicles",
    "2Chr": "2 Chronicles",
    "Ezra": "Ezra",
    "Neh": "Nehemiah",
    "Est": "Esther",
    "Job": "Job",
    "Psa": "Psalm",
    "Prv": "Proverbs",
    "Eccl": "Ecclesiastes",
    "SSol": "Song of Solomon",
    "Isa": "Isaiah",
    "Jer": "Jeremiah",
    "Lam": "Lamentations",
    "Eze": "Ezekiel",
    "Dan": "Daniel",
    "Hos": "Hosea",
    "Joel": "Joel",
    "Amos": "Amos",
    "Obad": "Obadiah",
    "Jonah": "Jonah",
    "Mic": "Micah",
    "Nahum": "Nahum",
    "Hab": "Habakkuk",
    "Zep": "Zephaniah",
    "Hag": "Haggai",
    "Zec": "Zechariah",
    "Mal": "Malachi",
    "Mat": "Matthew",
    "Mark": "Mark",
    "Luke": "Luke",
    "John": "John",
    "Acts": "Acts",
    "Rom": "Romans",
    "1Cor": "1 Corinthians",
    "2Cor": "2 Corinthians",
    "Gal": "Galatians",
    "Eph": "Ephesians",
    "Phi": "Philippians",
    "Col": "Colossians",
    "1Th": "1 Thessalonians",
    "2Th": "2 Thessalonians",
    "1Tim": "1 Timothy",
    "2Tim": "2 Timothy",
    "Titus": "Titus",
    "Phmn": "Philemon",
    "Heb": "Hebrews",
    "Jas": "James",
    "1Pet": "1 Peter",
    "2Pet": "2 Peter",
    "1Jn": "1 John",
    "2Jn": "2 John",
    "3Jn": "3 John",
    "Jude": "Jude",
    "Rev": "Revelation",
}


def chapters(lines: Iterable[str]) -> Iterator[str]:
    """Give one document per chapter: its title, a blank line, and its verses as one paragraph.

    Args:
        lines: One verse each, as ``bible -f`` writes them: ``Ge1:1 In the beginning …``.

    Yields:
        The chapters in the order of `lines`, without a line end after the last word.
    """
    verses = (line.split(maxsplit=1) for line in lines)
    for chapter, group in groupby(verses, key=lambda verse: verse[0].partition(":")[0]):
        book = chapter.rstrip("0123456789")
        words = " ".join(text for _, text in group).split()
        yield f"{BOOKS[book]} {chapter.removeprefix(book)}\n\n{' '.join(words)}"


def main() -> None:
    """Write the corpus beside this script."""
    verses = subprocess.run(
        ["bible", "-p", "/usr/lib", "-f", "Gen1:1-Rev22:21"],
        check=True,
        capture_output=True,
        encoding="ascii",
    ).stdout
    text = "\n\n\n".join(chapters(verses.splitlines())) + "\n"
    path = Path(__file__).with_name("kjv.txt.gz")
    # No name and no date in the header: the same text gives the same bytes.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(text.encode("ascii"))


if __name__ == "__main__":
    main()
