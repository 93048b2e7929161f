"""Metrics on disk: every record as a line of JSON, and as scalars for TensorBoard."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from stretto.runtime.train import Record

FLUSH_S = 5.0
"""Seconds after which a TensorBoard that watches sees what there is."""

SCALARS: Mapping[str, str] = MappingProxyType(
    {
        "loss": "loss/train",
        "valid_loss": "loss/held_out",
        "norm": "optimizer/gradient_norm",
        "lr": "optimizer/learning_rate",
        "tokens_per_s": "speed/tokens_per_s",
        "mfu": "speed/mfu",
        "data_wait": "speed/data_wait",
        "overhead": "speed/interpreter",
        "step_s": "speed/step_s",
        "predicted_s": "speed/predicted_s",
        "memory_bytes": "memory/bytes",
    }
)
"""Fields of a record and what TensorBoard calls them."""


class JsonLines:
    """Writes every record as a line of JSON, flushed at once.

    A run that goes on from a checkpoint does some steps again: the lines of those are dropped, so
    that the file has each step once.
    """

    def __init__(self, path: Path) -> None:
        """Write to the file `path`, after what it holds."""
        self._path = path
        self._begun = False

    def __call__(self, record: Record) -> None:
        """Write a record."""
        if not self._begun:
            self._drop(record.step)
            self._begun = True
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(as_json(record), allow_nan=False) + "\n")

    def _drop(self, step: int) -> None:
        """Keep only the lines of steps before `step`."""
        kept = [r for r in read(self._path) if r["step"] < step]
        text = "".join(json.dumps(r) + "\n" for r in kept)
        self._path.write_text(text, encoding="utf-8")


class Board:
    """Writes records as TensorBoard events into a directory, in the caller's thread."""

    def __init__(self, directory: Path) -> None:
        """Write into `directory`, once there is a record."""
        self._directory = directory
        self._writer: Any = None
        self._due_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # a disk that is full has been told of
                self._writer.close()

    def __call__(self, record: Record) -> None:
        """Write a record; steps that are done again replace those before."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        if self._writer is None:
            self._writer = EventsWriter(str(self._directory / "events"))
            started = SessionLog(status=SessionLog.START)
            self._writer.write_event(
                Event(wall_time=time.time(), step=record.step, session_log=started)
            )
        values = [
            Summary.Value(tag=SCALARS[name], simple_value=value)
            for name, value in as_json(record).items()
            if name in SCALARS and value is not None
        ]
        self._writer.write_event(
            Event(wall_time=time.time(), step=record.step, summary=Summary(value=values))
        )
        if time.monotonic() >= self._due_s:  # it synchronises the disk
            self._writer.flush()
            self._due_s = time.monotonic() + FLUSH_S


def as_json(record: Record) -> dict[str, Any]:
    """Give a record as JSON: None for what is not finite, and nothing for what there was not."""
    values = asdict(record) | {"saved": record.saved and record.saved.name}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
        if value is not None
    }


def read(path: Path) -> list[dict[str, Any]]:
    """Give the records in a file of JSON lines; a line that a crash cut short is left out."""
    if not path.exists():
        return []
    found = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(text))
        except ValueError:
            continue
    return [r for r in found if isinstance(r, dict) and isinstance(r.get("step"), int)]
