"""What is new of a run, while somebody looks at its page."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from stretto.page.shelf import Shelf, decided
from stretto.timeline.recorded import recorded_steps

LOOK_S = 0.5
"""Seconds between two looks at what a run has written."""

BEAT_S = 15.0
"""Seconds without news after which a word shows that somebody still listens."""


def news(
    shelf: Shelf, name: str, *, stopping: threading.Event
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give what is new of a run, (kind, what), as it comes, until it is deleted.

    The kinds: ``begin``; ``metrics``, steps that were written; ``recordings``, steps that were
    recorded; ``plan``, another plan; ``beat``, nothing.

    Args:
        shelf: The runs.
        name: Which.
        stopping: Set when there is to be no more.

    Raises:
        KeyError: There is no such run.
    """
    metrics = shelf.metrics(name)
    path, rows, heard = shelf.runs()[name], metrics.table().rows, time.monotonic()
    before, recorded = decided(path), recorded_steps(path)
    yield "begin", {}
    while not stopping.wait(LOOK_S):
        if not path.is_dir():
            return
        table = metrics.read(within_s=LOOK_S)
        told: dict[str, Mapping[str, Any]] = {}
        if table.rows != rows:
            rows, told["metrics"] = table.rows, {"rows": table.rows, "read": table.share}
        if (steps := recorded_steps(path)) != recorded:
            recorded, told["recordings"] = steps, {"steps": steps}
        if (now := decided(path)) != before:
            before, told["plan"] = now, {}
        if time.monotonic() - heard > BEAT_S:
            told = told or {"beat": {}}
        if told:
            heard = time.monotonic()
            yield from told.items()
