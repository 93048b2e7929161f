"""The documentation: it builds, its links lead somewhere, and it says what the commands take."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from stretto.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

PAGES = {"plan": ("planning.md", "planning-more.md", "emit.md"), "ui": ("report.md",)}
"""Commands whose pages are called otherwise."""

LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")


def options(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Give the options that the help of a command lists."""
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code in (0, None)
    told = capsys.readouterr().out
    listed = re.findall(r"^\s{2,6}(?:-\w, )?(--[a-z][\w-]*)", told, flags=re.MULTILINE)
    return set(listed) - {"--help"}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_page_that_names_all_its_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = PAGES.get(command, (f"{command}.md",))
    told = "\n".join((DOCS / name).read_text(encoding="utf-8") for name in names)
    assert f"stretto {command}" in told
    missing = {o for o in options(command, capsys) if not re.search(rf"{o}(?![\w-])", told)}
    assert missing == set()


def test_every_page_is_in_the_menu_and_every_picture_is_shown() -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))

    def pages(menu: list[Any]) -> set[str]:
        found: set[str] = set()
        for item in menu:
            for where in item.values() if isinstance(item, dict) else (item,):
                found |= pages(where) if isinstance(where, list) else {where}
        return found

    assert pages(config["project"]["nav"]) == {path.name for path in DOCS.glob("*.md")}
    told = "\n".join(
        path.read_text(encoding="utf-8") for path in (*DOCS.glob("*.md"), ROOT / "README.md")
    )
    assert {path.name for path in (DOCS / "img").iterdir() if path.name not in told} == set()


@pytest.mark.parametrize(
    "path",
    [
        p.relative_to(ROOT).as_posix()
        for p in (*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("*/README.md"))
    ],
)
def test_links_within_the_repository_lead_to_files(path: str) -> None:
    """Those between pages are checked again, with their anchors, when the site is built."""
    page = ROOT / path
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copyfile(ROOT / "zensical.toml", tmp_path / "zensical.toml")
    build = [Path(sys.executable).parent / "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    front = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "<title>" in front
    fetched = re.findall(r'(?:src|href)="(https?://[^"]+)"', front)
    assert [url for url in fetched if re.search(r"\.(js|css|woff2?)\b|fonts\.", url)] == []
