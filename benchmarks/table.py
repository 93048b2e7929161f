"""The table of a group, and its place in docs/benchmarks.md."""

from __future__ import annotations

import datetime
import os
import re
import shlex
import statistics
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.groups import Contender, Group
from benchmarks.ranks import Window

Windows = Mapping[str, tuple[Window, ...]]  # of each contender, one a round

_HEAD = """\
# Benchmarks

Stretto beside stock PyTorch, measured in one run and in turn. Absolute figures belong to the
machine; the ratios are what to look at. What is compared and how fairness is kept:
`benchmarks/README.md`. Each table is written by `make bench`.
"""


def rates(contender: Contender, windows: tuple[Window, ...], *, steps: int) -> tuple[float, ...]:
    """Tokens per second of each round."""
    return tuple(contender.config.tokens * steps / w.elapsed_s for w in windows)


def table(group: Group, windows: Windows, *, steps: int) -> str:
    """The rows of a group in Markdown; ratios are shown where a Stretto contender took part.

    Args:
        group: The group.
        windows: What was measured; as many rounds for each contender.
        steps: Steps in each window.
    """
    by_name = {c.name: rates(c, windows[c.name], steps=steps) for c in group.contenders}
    compared = any(name.startswith("stretto") for name in by_name)
    head = ["", "tokens/s", "lowest to highest", "peak memory of a rank"]
    rows = [head + ["stretto / this", "target"] * compared]
    for contender in group.contenders:
        own = by_name[contender.name]
        peak = max(w.peak_bytes for w in windows[contender.name])
        row = [contender.name, f"{statistics.median(own):,.0f}"]
        row += [f"{min(own):,.0f} to {max(own):,.0f}", f"{peak / 2**20:,.0f} MiB"]
        other = by_name.get(contender.against)
        if compared and other:
            ratio = statistics.median(b / a for a, b in zip(own, other, strict=True))
            met = "met" if ratio >= contender.target else "missed"
            row += [f"{ratio:.3f}", f"≥ {contender.target:.2f} {met}"]
        elif compared:
            row += ["", ""]
        rows.append(row)
    rule = ["---"] + ["---:"] * (len(rows[0]) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def section(group: Group, windows: Windows, *, steps: int, rounds: int) -> str:
    """The table of a group with its title, and when, where and how it was measured."""
    base = max(w.base_bytes for measured in windows.values() for w in measured)
    batch = sorted({c.config.tokens for c in group.contenders})
    others = max(w.others for measured in windows.values() for w in measured)
    command = shlex.join(["make", "bench", f"ARGS={group.name} --rounds {rounds} --steps {steps}"])
    return (
        f"## {group.title}\n\n"
        f"{datetime.date.today()}, {os.cpu_count()}-core CPU, torch {torch.__version__}; "
        f"{' or '.join(f'{b:,}' for b in batch)} tokens a step, "
        f"medians of {rounds} rounds of {steps} steps; "
        f"{base / 2**20:,.0f} MiB of each peak are Python with torch. Other processes took up to "
        f"{others:.0%} of the CPU in a window.\n\n"
        f"To repeat: `{command}`\n\n{table(group, windows, steps=steps)}\n"
    )


def write(page: Path, name: str, text: str) -> None:
    """Put a group's section between its markers in the page; make both if they are missing.

    Args:
        page: A Markdown file.
        name: Of the group.
        text: Its section.
    """
    old = page.read_text() if page.exists() else _HEAD
    begin, end = f"<!-- bench {name} -->", f"<!-- end of bench {name} -->"
    block = f"{begin}\n{text}{end}\n"
    between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}\n", re.DOTALL)
    new = between.sub(lambda _: block, old) if begin in old else f"{old}\n{block}"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(new)
