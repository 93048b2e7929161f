"""The runs that a live page shows: where they lie, and what was read of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from stretto.page.curves import PATIENCE_S
from stretto.page.head import state
from stretto.page.metrics import Metrics
from stretto.page.sections import Data, Section
from stretto.page.subject import Subject
from stretto.timeline.recorded import recorded_steps

Make = Callable[[Path, Metrics, Sequence[tuple[str, Metrics]]], Subject]
"""Gives a run at a path as its page reads it, with its metrics and those of other runs."""

_DECIDING = ("plan.toml", "recipe.toml", "config.json", "cluster.toml")
_TAIL_BYTES = 64 * 2**10


class Shelf:
    """Runs by name. What is read of one is kept until the files that decide it change.

    A name that comes from outside is only ever looked up here: it never becomes a path.
    """

    def __init__(self, places: Sequence[Path], *, make: Make) -> None:
        """Show the runs in `places`: each a run, or a directory of runs."""
        self._places, self._make = tuple(places), make
        self._lock = threading.Lock()
        self._locks: dict[tuple[str, ...], threading.Lock] = {}
        self._metrics: dict[Path, Metrics] = {}
        self._subjects: dict[str, tuple[object, Subject]] = {}
        self._drawn: dict[tuple[str, str], tuple[object, Data]] = {}

    def runs(self) -> Mapping[str, Path]:
        """Give every run by its name, the one that wrote last first."""
        paths: list[Path] = []
        for place in self._places:
            if _is_run(place):
                paths.append(place)
            elif place.is_dir():
                paths += (path for path in place.iterdir() if _is_run(path))
        paths = list(dict.fromkeys(path.resolve() for path in paths))
        paths.sort(key=lambda path: _changed(path / "metrics.jsonl"), reverse=True)
        for parts in (1, 2):  # of a path make its name, if they tell all runs apart
            named = {"/".join(path.parts[-parts:]): path for path in paths}
            if len(named) == len(paths):
                return named
        return {str(path): path for path in paths}

    def metrics(self, name: str) -> Metrics:
        """Give the metrics of a run.

        Raises:
            KeyError: There is no such run.
        """
        path = self.runs()[name]
        with self._lock:
            return self._metrics.setdefault(path, Metrics(path / "metrics.jsonl"))

    def subject(self, name: str) -> Subject:
        """Give a run as its page reads it.

        Raises:
            KeyError: There is no such run.
            StrettoError: What is wrong with it.
        """
        runs = self.runs()
        path, now = runs[name], decided(runs[name])
        with self._one_at_a_time(name):  # sections are asked for side by side; one of them makes it
            kept = self._subjects.get(name)
            if kept is None or kept[0] != now:
                others = [(other, self.metrics(other)) for other in runs if other != name]
                kept = (now, self._make(path, self.metrics(name), others))
                self._subjects[name] = kept
        return kept[1]

    def data(self, name: str, section: Section) -> Data:
        """Give what a section of a run's page draws, made again only if what it reads has gone on.

        Raises:
            KeyError: There is no such run.
            StrettoError: What is wrong with it.
        """
        subject, key = self.subject(name), (name, section.name)
        with self._one_at_a_time(*key):
            now = [
                decided(self.runs()[name]),
                *(self._far(name, what, subject) for what in section.follows),
            ]
            kept = self._drawn.get(key)
            if kept is None or kept[0] != now:
                kept = self._drawn[key] = (now, section.data(subject) or {"absent": True})
        return kept[1]

    def prepare(self, name: str, sections: Iterable[Section]) -> None:
        """Make what sections of a run's page draw, then read on in its metrics to their end.

        Raises:
            KeyError: There is no such run.
            StrettoError: What is wrong with it.
        """
        for section in sections:
            self.data(name, section)
        self.metrics(name).read()

    def _one_at_a_time(self, *key: str) -> threading.Lock:
        """Give the lock of what is made under a key."""
        with self._lock:
            return self._locks.setdefault(key, threading.Lock())

    def _far(self, name: str, what: Literal["metrics", "recordings"], subject: Subject) -> object:
        """Give how far a run has gone on."""
        match what:
            case "recordings":
                return recorded_steps(self.runs()[name])
            case "metrics":
                table = self.metrics(name).read(within_s=PATIENCE_S)
                return table.rows, table.share, state(subject, table)

    def listed(self) -> list[dict[str, Any]]:
        """Give a line on every run."""
        return [
            {"name": name, "changed": _changed(path / "metrics.jsonl"), **_last(path)}
            for name, path in self.runs().items()
        ]


def decided(path: Path) -> object:
    """Give something that changes when what decides a run does."""
    return tuple(_changed(path / file) for file in _DECIDING)


def _is_run(path: Path) -> bool:
    return (path / "recipe.toml").is_file()


def _changed(path: Path) -> float:
    """Give the time of the last change; 0 for what is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _last(path: Path) -> dict[str, Any]:
    """Give the numbers and words of the last record, without reading those before it."""
    try:
        with (path / "metrics.jsonl").open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            wanted = ("step", "steps", "loss", "valid_loss", "tokens_per_s", "mfu", "eta_s")
            numbers = {k: record.get(k) for k in wanted}
            return {k: v for k, v in numbers.items() if type(v) in (int, float)}
    return {}
