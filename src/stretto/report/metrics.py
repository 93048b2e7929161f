"""Metrics on disk: every record as a line of JSON, and as scalars for TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from stretto.runtime.train import Record

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
    """Writes records as TensorBoard events into a directory."""

    def __init__(self, directory: Path) -> None:
        """Write into `directory`, once there is a record."""
        self._directory = directory
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def __call__(self, record: Record) -> None:
        """Write a record; steps that are done again replace those before."""
        if self._writer is None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(self._directory), purge_step=record.step)
        for name, value in as_json(record).items():
            if name in SCALARS and value is not None:
                self._writer.add_scalar(SCALARS[name], value, record.step)


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
