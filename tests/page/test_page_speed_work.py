"""What a page that is opened for the first time takes: nothing is made twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from runs import a_run
from steps import a_recording, a_subject, known, on_disk

from stretto.cli.shown import of_run
from stretto.page import subject as subject_module
from stretto.page.sections import SECTIONS
from stretto.page.shelf import Shelf
from stretto.timeline import rows as rows_module


def counted(patch: pytest.MonkeyPatch, module: Any, name: str) -> Counter[tuple[Any, ...]]:
    """Count the calls of a function by the arguments that are no objects."""
    calls: Counter[tuple[Any, ...]] = Counter()
    real: Callable[..., Any] = getattr(module, name)

    def call(*arguments: Any, **words: Any) -> Any:
        calls[tuple(a for a in (*arguments, *words.values()) if isinstance(a, int))] += 1
        return real(*arguments, **words)

    patch.setattr(module, name, call)
    return calls


def test_sections_that_are_asked_for_at_once_make_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path / "a", steps=4)
    on_disk(of_run(run), a_recording(of_run(run), step=4))
    curves, books, reads = (
        counted(monkeypatch, subject_module, name) for name in ("curve", "book", "recording")
    )
    shelf = Shelf([run], make=lambda path, own, others: of_run(path, metrics=own, others=others))
    with ThreadPoolExecutor(2 * len(SECTIONS)) as pool:
        list(pool.map(lambda section: shelf.data("a", section), [*SECTIONS, *SECTIONS]))
    players = len(known(shelf.subject("a"))[1].alike)
    assert curves == {(player,): 1 for player in range(players)}
    assert (books, reads) == ({(): 1}, {(4,): 1})


def test_messages_are_priced_once_however_many_micro_batches_send_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = counted(monkeypatch, rows_module, "messages")
    counts = []
    for micro_batches in (4, 16):
        program, _ = known(a_subject(micro_batches=micro_batches))
        calls.clear()
        found = [rows_module.rows(program, stage) for stage in program.stages]
        counts.append((calls.total(), sum(len(one.kind) for one in found)))
    (few, short), (many, long) = counts
    assert few == many and short < long
