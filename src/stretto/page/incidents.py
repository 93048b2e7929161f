"""What happened to a run besides learning: starts, checkpoints, steps that did not count."""

from __future__ import annotations

import json
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stretto.page.metrics import Table
from stretto.page.standing import changed, starts
from stretto.report.quantities import counted
from stretto.timeline.track import files, recorded_steps

MOST = 200
"""Incidents of a kind that a page lists; of more, evenly chosen ones."""

_LONGEST = 300  # characters of a text that came from elsewhere

Kind = Literal["start", "restart", "checkpoint", "skipped", "incident"]


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happened.

    Attributes:
        kind: What.
        step: At which step; None where nobody wrote it down.
        when: Date and time; empty where nobody wrote it down, and with ``about`` before it where
            it follows from what was written before and after it.
        text: What there is to say.
    """

    kind: Kind
    step: int | None
    when: str
    text: str


def incidents(run: Path, table: Table) -> list[dict[str, Any]]:
    """Give what happened to a run in the order of time, as JSON.

    Args:
        run: Its directory.
        table: Its metrics.
    """
    begun = [*_starts(starts(run))]
    found = [
        *_thinned(begun),
        *_thinned([*_told(run / "incidents.jsonl")]),
        *_thinned([*_skipped(table)]),
        *_thinned([*_saved(run, table)]),
    ]
    clock = _Clock(run, begun, table)
    found.sort(key=lambda incident: -1 if incident.step is None else incident.step)
    known = [clock.when(incident) for incident in found]
    times, after = list[float](), float("inf")
    for at in reversed(known):  # what has no time was before the next that has one
        after = after if at is None else at
        times.append(after)
    order = sorted(range(len(found)), key=times[::-1].__getitem__)
    return [asdict(_placed(found[i], known[i])) for i in order]


class _Clock:
    """When steps ended, as far as starts, files and the seconds of steps say.

    A run takes its time to begin and to save, which no step counts: between two files what lies
    between them is shared out by the seconds of steps, and before the first file they are counted
    back from it; only where there is none are they counted from the start.
    """

    def __init__(self, run: Path, begun: Sequence[Incident], table: Table) -> None:
        self.step, self.seconds = table["step"], np.nancumsum(table["step_s"])
        self.begun = [(s.step, at) for s in begun if s.step is not None and (at := _at(s.when))]
        self.files = sorted(_files(run, table))

    def when(self, incident: Incident) -> float | None:
        """Give when something happened, in seconds since 1970; None if nothing says it."""
        if (at := _at(incident.when)) is not None:
            return at
        if incident.step is None:
            return None
        before = [(step, at) for step, at in self.begun if step < incident.step]
        if not before:
            return None
        files = self._written(before)
        earlier = next((file for file in reversed(files) if file[0] < incident.step), None)
        later = next((file for file in files if file[0] >= incident.step), None)
        own_s = self._since_start(incident.step)
        if later is None:
            step, at = earlier or before[-1]
            return at + own_s - self._since_start(step)
        left_s, begun_at = self._since_start(later[0]) - own_s, before[-1][1]
        if earlier is None:
            return max(begun_at, later[1] - left_s)
        between_s = self._since_start(later[0]) - self._since_start(earlier[0])
        share = left_s / between_s if between_s > 0 else 0.0
        return later[1] - share * (later[1] - earlier[1])

    def _written(self, before: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
        """Give the files of steps that were done between the last of some starts and the next."""
        (step, begun_at), after = before[-1], self.begun[len(before) :]
        last, next_at = after[0] if after else (np.inf, np.inf)
        return [
            (done, at)
            for done, at in self.files
            if step < done <= last and begun_at <= at <= next_at
        ]

    def _since_start(self, step: int) -> float:
        row = int(np.searchsorted(self.step, step, side="right")) - 1
        return float(self.seconds[row]) if row >= 0 else 0.0


def _files(run: Path, table: Table) -> Iterator[tuple[int, float]]:
    """Give steps after which a file was written that is still there, and when it was."""
    paths = [(step, run / "checkpoints" / f"step-{step:08d}") for step, _ in table.saved]
    paths += [(step, p) for step in recorded_steps(run) for p in files(run, step).values()]
    if table.rows and table.share >= 1:
        paths.append((int(table["step"][-1]), run / "metrics.jsonl"))
    yield from ((step, at) for step, path in paths if (at := changed(path)))


def _at(when: str) -> float | None:
    try:
        at = datetime.fromisoformat(when)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _utc(seconds: float) -> str:
    at = datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)
    return at.isoformat(timespec="seconds")


def _placed(incident: Incident, at: float | None) -> Incident:
    """Give a checkpoint or a lost step with about the time at which it happened."""
    if incident.when or at is None:
        return incident
    return replace(incident, when=f"about {_utc(at)}")


def _saved(run: Path, table: Table) -> Iterator[Incident]:
    """Give the checkpoints; those that are still there say when they were written."""
    for step, name in table.saved:
        plainly = plain(name)
        at = changed(run / "checkpoints" / f"step-{step:08d}")
        yield Incident("checkpoint", step, _utc(at) if at else "", plainly)


def plain(value: object) -> str:
    """Give a text that came from elsewhere without control characters, and not endless."""
    text = "".join(" " if unicodedata.category(c).startswith("C") else c for c in str(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _starts(found: Sequence[Mapping[str, Any]]) -> Iterator[Incident]:
    for before, start in zip([None, *found], found, strict=False):
        machine, versions = _dict(start.get("machine")), _dict(start.get("versions"))
        ranks = start.get("ranks")
        size = f" with {counted(ranks, 'rank')}" if type(ranks) is int else ""
        here = start.get("cluster") or machine.get("name")
        where = f" on {here}" if here else ""
        torch = f", torch {versions['torch']}" if "torch" in versions else ""
        text = f"{'began' if before is None else 'went on'}{size}{where}{torch}"
        if before is not None and (changed := _changed(_plan(before), _plan(start))):
            text += f"; plan: {changed}"
        kind: Kind = "start" if before is None else "restart"
        yield Incident(kind, _step(start), plain(start.get("started", "")), plain(text))


def _plan(start: Mapping[str, Any]) -> dict[str, str]:
    """Give the plan of a start, each of its keys with its value; nothing where nobody kept it."""
    try:
        return dict(_flat(tomllib.loads(str(start.get("plan", "")))))
    except ValueError:
        return {}


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _changed(before: dict[str, str], now: dict[str, str]) -> str:
    """Give the keys of a plan that are others than before; of its rules, which are many, tables."""
    if not before or not now:
        return ""
    pairs = [(key, before.get(key, "none"), now.get(key, "none")) for key in before | now]
    words = [
        key.rpartition(".")[0] if key.startswith("rules.") else f"{key} {old} → {new}"
        for key, old, new in pairs
        if old != new
    ]
    return ", ".join(dict.fromkeys(words))


def _told(path: Path) -> Iterator[Incident]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:  # cut short by a crash
            continue
        if isinstance(told, dict):
            words = [f"{k} {v}" for k, v in told.items() if k not in ("step", "when")]
            yield Incident(
                "incident", _step(told), plain(told.get("when", "")), plain(", ".join(words))
            )


def _skipped(table: Table) -> Iterator[Incident]:
    text = "loss or gradient was not finite: the step did not count"
    for row in np.flatnonzero(table["applied"] == 0):
        yield Incident("skipped", int(table["step"][row]), "", text)


def _thinned(found: Sequence[Incident]) -> Sequence[Incident]:
    if len(found) <= MOST:
        return found
    return [found[i] for i in np.linspace(0, len(found) - 1, MOST).astype(int)]


def _step(tree: Mapping[str, Any]) -> int | None:
    step = tree.get("step")
    return step if type(step) is int else None


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
