"""The runs that a live page shows: where they lie, and what was read of them."""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stretto.page.curves import PATIENCE_S
from stretto.page.head import RECENT, typical
from stretto.page.head import now as standing
from stretto.page.incidents import plain
from stretto.page.metrics import Metrics, parsed
from stretto.page.sections import Data, Section
from stretto.page.standing import begun, changed, state, wrote
from stretto.page.subject import Subject
from stretto.timeline.recorded import recorded_steps

Make = Callable[[Path, Metrics, Sequence[tuple[str, Metrics]]], Subject]
"""Gives a run at a path as its page reads it, with its metrics and those of other runs."""

_DECIDING = ("plan.toml", "recipe.toml", "config.json", "cluster.toml")
_TAIL = 2 * RECENT  # records of which something is the usual
_TAIL_BYTES = 1024 * _TAIL
_LAST = ("step", "steps", "loss", "valid_loss", "eta_s")
_USUAL = ("step_s", "tokens_per_s", "mfu")


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
        """Give every run by its name, the one that began or wrote last first."""
        paths: list[Path] = []
        for place in self._places:
            if _is_run(place):
                paths.append(place)
            elif place.is_dir():
                paths += (path for path in place.iterdir() if _is_run(path))
        paths = list(dict.fromkeys(path.resolve() for path in paths))
        paths.sort(key=wrote, reverse=True)
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
        return self._read(self.runs()[name])

    def _read(self, path: Path) -> Metrics:
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
            others = tuple((k, self._read(other)) for k, other in runs.items() if k != name)
            if kept is None or kept[0] != now:
                kept = self._subjects[name] = (now, self._make(path, self.metrics(name), others))
            elif {*kept[1].others} != {*others}:  # one was begun since, or deleted
                kept = self._subjects[name] = (now, kept[1].among(others))
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
                return table.rows, table.share, standing(subject).state

    def listed(self) -> list[dict[str, Any]]:
        """Give a line on every run."""
        return [
            {"name": name, "changed": wrote(path), **line(path)}
            for name, path in self.runs().items()
        ]


def decided(path: Path) -> object:
    """Give something that changes when what decides a run does."""
    return tuple(changed(path / file) for file in _DECIDING)


def _is_run(path: Path) -> bool:
    return (path / "recipe.toml").is_file()


def line(path: Path) -> dict[str, Any]:
    """Give what a list says of a run: how far it is, its model and its plan."""
    last, told = _figures(path, _written(path)), _told(path, decided(path))
    steps = int(told.get("steps") or last.get("steps", 0))
    done, step_s = int(last.get("step", 0)), float(last.get("step_s", 0.0))
    now = state(path, step=done, steps=steps, step_s=step_s)
    return {**last, **told, "steps": steps, "state": now}


@lru_cache(maxsize=4096)
def _told(path: Path, decided: object) -> dict[str, Any]:
    """Give of a run its steps, its model and its plan, in words; less where less can be read.

    Args:
        path: Its directory.
        decided: What changes when these do.
    """
    plan, recipe = (_tree(path / name, tomllib.loads) for name in ("plan.toml", "recipe.toml"))
    mesh, batch = _part(plan, "mesh"), _part(plan, "batch")
    axes = [f"{k} {v}" for k, v in mesh.items() if type(v) is int and v > 1]
    words = [" × ".join(axes) or "one rank"] if mesh else []
    sequences, seq = batch.get("sequences"), batch.get("seq")
    if type(sequences) is int and type(seq) is int:
        words.append(f"{sequences:,} sequences × {seq:,} tokens")
    steps, model = _part(recipe, "recipe").get("steps"), _tree(path / "config.json", json.loads)
    return {
        "steps": steps if type(steps) is int else 0,
        "model": plain(model.get("_name_or_path") or ""),
        "plan": plain("; ".join(words)),
    }


def _tree(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Give what is in a file; nothing if it is broken."""
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _part(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = tree.get(name)
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=4096)
def _figures(path: Path, written: object) -> dict[str, Any]:
    """Give the numbers of the last record, and what usually holds as the page of the run says.

    Args:
        path: Its directory.
        written: What changes when it begins or writes.
    """
    records = _latest(path)
    if not records:
        return {}
    last = {name: records[-1].get(name) for name in _LAST}
    since = begun(path)
    recent = [record for record in records if record["step"] > since]
    usual = {name: typical(_column(recent, name)) for name in _USUAL}
    return {name: value for name, value in (last | usual).items() if type(value) in (int, float)}


def _written(path: Path) -> object:
    file = path / "metrics.jsonl"
    try:
        size = file.stat().st_size
    except OSError:
        size = 0
    return size, changed(file), begun(path)


def _column(records: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    values = [record.get(name) for record in records]
    return np.array([value if type(value) in (int, float) else np.nan for value in values])


def _latest(path: Path) -> list[dict[str, Any]]:
    """Give the last records, as many as are looked at, without reading those before them."""
    try:
        with (path / "metrics.jsonl").open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return []
    found = [record for line in lines[-_TAIL:] for record in parsed(line)]
    return [record for record in found if type(record.get("step")) is int]
