"""The tutorial: its commands end well, and print what it shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stretto.cli import main

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
WORD = re.compile(r"[^\W\d_]{3,}")
RANKS = {"train", "verify"}
"""Commands that fork ranks, which a process that has run other tests should not."""
UNITS = {"days", "min", "KiB", "MiB", "GiB", "TiB", "USD", "kWh", "MWh", "GWh", "tok"}
"""Words that a number brings along: another number may bring another."""


def steps() -> Iterator[tuple[str, str]]:
    """Give every command of the tutorial with what it shows of its output."""
    blocks = BLOCK.findall(TUTORIAL.read_text(encoding="utf-8"))
    for (kind, command), (answer, shown) in zip(blocks[::2], blocks[1::2], strict=True):
        assert (kind, answer) == ("sh", "text"), command
        yield command.strip(), shown


def words(line: str) -> list[str]:
    """Give what stays the same from run to run: words; not numbers, units nor bars."""
    return [word for word in WORD.findall(line) if word not in UNITS]


def within(part: list[str], whole: list[str]) -> bool:
    """Tell whether `whole` has all of `part`, in that order."""
    rest = iter(whole)
    return all(word in rest for word in part)


def missing(shown: str, printed: str) -> list[str]:
    """List the lines that are shown, with … for some words, and were not printed in this order."""
    rest = iter([words(line) for line in printed.splitlines()])
    return [
        line
        for line in shown.splitlines()
        if (part := words(line)) and not any(within(part, whole) for whole in rest)
    ]


def test_the_commands_of_the_tutorial_print_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for command, shown in steps():
        name, *arguments = shlex.split(command)
        if arguments[0] in RANKS:
            alone = [sys.executable, "-m", "stretto", *arguments]
            status = subprocess.run(alone, check=False).returncode
        else:
            status = main(arguments)
        printed = capfd.readouterr()
        assert (name, status) == ("stretto", 0), f"{command}\n{printed.out}{printed.err}"
        assert missing(shown, printed.out) == [], f"{command}\n{printed.out}"


def test_a_line_that_was_not_printed_is_missed() -> None:
    printed = "step  9.1 s\nmemory  30 GiB of 80\nrank 3 waits\n"
    assert missing("step 12 ms\n…\nrank 37 waits\n", printed) == []
    assert missing("memory … free\n", printed) == ["memory … free"]
    assert missing("rank 3 waits\nstep 9 s\n", printed) == ["step 9 s"]
