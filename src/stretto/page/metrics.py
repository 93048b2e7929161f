"""What a run said after every step, as columns that grow while it is written."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]

CHUNK_BYTES = 2**20
"""How much of a file is read at once: nobody waits longer than for one of these."""

_TAIL_BYTES = 256  # of what was read last, by which a file that was written anew is found out


@dataclass(frozen=True, slots=True)
class Table:
    """Metrics as far as they were read.

    Attributes:
        rows: Steps.
        columns: Every field whose values are numbers; NaN where it is absent or not finite.
        last: The last record, as the run wrote it; empty before there is one.
        saved: The steps that ended with a checkpoint, and its name.
        share: Of the file's bytes, how many were read.
    """

    rows: int = 0
    columns: Mapping[str, Column] = field(default_factory=dict)
    last: Mapping[str, Any] = field(default_factory=dict)
    saved: tuple[tuple[int, str], ...] = ()
    share: float = 1.0

    def __getitem__(self, name: str) -> Column:
        """Give a column; all NaN where no record has it."""
        column = self.columns.get(name)
        return np.full(self.rows, np.nan) if column is None else column

    def since(self, step: int) -> Table:
        """Give what was read of the steps after `step`."""
        first = int(np.searchsorted(self["step"], step, side="right"))
        columns = {name: column[first:] for name, column in self.columns.items()}
        saved = tuple(one for one in self.saved if one[0] > step)
        return replace(self, rows=self.rows - first, columns=columns, saved=saved)


class Metrics:
    """The file ``metrics.jsonl`` of a run: read once, then only where it has grown.

    Several threads may read it at once.
    """

    def __init__(self, path: Path) -> None:
        """Read the file `path`, once there is one."""
        self.path = path
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._at, self._size, self._rows = 0, 0, 0
        self._rest = self._tail = b""
        self._columns: dict[str, Column] = {}
        self._last: Mapping[str, Any] = {}
        self._saved: list[tuple[int, str]] = []

    def table(self) -> Table:
        """Give what was read."""
        with self._lock:
            columns = {name: column[: self._rows] for name, column in self._columns.items()}
            share = self._at / self._size if self._size else 1.0
            return Table(self._rows, columns, self._last, tuple(self._saved), share)

    def read(self, *, within_s: float = math.inf) -> Table:
        """Read what is new, and give all.

        Args:
            within_s: Seconds after which the rest is left for later.
        """
        until = time.monotonic() + within_s
        while self.advance() and time.monotonic() < until:
            pass
        return self.table()

    def advance(self) -> bool:
        """Read a piece of what is new; tell whether there is more.

        A run that goes on from a checkpoint writes its file anew without the steps after it: such a
        file is read from its beginning.
        """
        with self._lock:
            try:
                with self.path.open("rb") as file:
                    self._size = file.seek(0, 2)
                    file.seek(self._at - len(self._tail))
                    if self._size < self._at or file.read(len(self._tail)) != self._tail:
                        size = self._size
                        self._forget()
                        self._size = size
                        file.seek(0)
                    chunk = file.read(CHUNK_BYTES)
            except OSError:  # not there yet, or not any more
                self._forget()
                return False
            self._at += len(chunk)
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
            whole, _, self._rest = (self._rest + chunk).rpartition(b"\n")
            self._add([r for r in parsed(whole) if type(r.get("step")) is int])
            return bool(chunk) and self._at < self._size

    def _add(self, records: list[dict[str, Any]]) -> None:
        if not records:
            return
        start, stop = self._rows, self._rows + len(records)
        for name in dict.fromkeys(name for keys in {tuple(r) for r in records} for name in keys):
            try:
                values = np.array([r.get(name) for r in records], dtype=np.float64)
            except (TypeError, ValueError):  # words, or a list
                continue
            if name not in self._columns:
                self._columns[name] = np.full(max(stop, 1024), np.nan)
            elif len(self._columns[name]) < stop:
                more = np.full(max(stop, 2 * start) - len(self._columns[name]), np.nan)
                self._columns[name] = np.concatenate([self._columns[name], more])
            self._columns[name][start:stop] = values
        for name, column in self._columns.items():  # those that none of these has
            if len(column) < stop:
                self._columns[name] = np.concatenate([column, np.full(stop - len(column), np.nan)])
        self._saved += [(r["step"], str(r["saved"])) for r in records if r.get("saved")]
        self._last, self._rows = records[-1], stop


def parsed(lines: bytes) -> list[dict[str, Any]]:
    """Give the records in lines of JSON; a line that a crash cut short is left out."""
    texts = [text for text in lines.split(b"\n") if text.strip()]
    try:
        found = json.loads(b"[" + b",".join(texts) + b"]")  # all at once: twice as fast
    except ValueError:
        found = [value for text in texts for value in _value(text)]
    return [value for value in found if isinstance(value, dict)]


def _value(text: bytes) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        return []
