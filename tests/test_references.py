"""Whatever is cited, in code or in prose, is listed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

# (Dao, 2023), (Qi et al., 2023, section 4), (Luby and Rackoff, 1988; Huang et al., 2019)
CITED = re.compile(r"(?<![\w-])([A-Z][\w’'-]+)(?: et al\.| and [A-Z][\w’'-]+)?,\s(\d{4})[a-z]?\b")


def cited(text: str) -> Iterator[tuple[str, str]]:
    """Give surname and year of what a text cites, however its lines are broken."""
    plain = re.sub(r"\s*\n\s*(?:#\s*|\"\"\")?", " ", text)
    for group in re.findall(r"\(([^()]*\b(?:19|20)\d\d[a-z]?[^()]*)\)", plain):
        yield from CITED.findall(group)


def bare(name: str) -> str:
    """Give a name without its accents."""
    return "".join(c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c))


def listed() -> dict[str, set[str]]:
    """Give the surnames of all that is listed, by year."""
    found: dict[str, set[str]] = {}
    text = (ROOT / "docs" / "references.bib").read_text(encoding="utf-8")
    for entry in text.split("\n@"):
        plain = re.sub(r"\\\W?(?:[cvHu](?=\{))?\{?(\w)\}?", r"\1", entry)  # {\c{c}}, {\"a}, \'e
        plain = re.sub(r"[{}](?=\w)|(?<=\w)[{}]", "", plain).replace("year=", "year = ")
        year = re.search(r"year\s*=\s*(\d{4})", plain)
        if year:
            found.setdefault(year[1], set()).update(re.findall(r"[A-Z][\w’'-]+", bare(plain)))
    return found


def test_every_paper_that_is_cited_is_listed() -> None:
    known = listed()
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    missing = {
        f"{name}, {year}": path.relative_to(ROOT).as_posix()
        for path in files
        for name, year in cited(path.read_text(encoding="utf-8"))
        if bare(name) not in known.get(year, set())
    }
    assert missing == {}


def test_a_citation_is_found_across_lines_and_beside_others() -> None:
    text = "so it is (Dao, 2023; Luby and\n    Rackoff, 1988), and (Qi et al., 2023, section 4)"
    assert list(cited(text)) == [("Dao", "2023"), ("Luby", "1988"), ("Qi", "2023")]
