"""The plan explorer as a section of the page: what it begins with, and what it is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from stretto.errors import InputError, MachineError, Problem
from stretto.page.explorer.asked import Asked
from stretto.page.explorer.explore import detail, explore, problems, searched
from stretto.page.explorer.grid import grid
from stretto.page.explorer.pins import DECISIONS, WORDS
from stretto.page.explorer.plans import MOMENTS, NAMES
from stretto.page.explorer.start import MOST_DEVICES, MOST_SEQUENCES, MOST_TIMES, Start
from stretto.page.subject import Subject

_REMEMBERED = 16  # answers, of some 2 MB each
_WAITING = 8  # searches that run or wait; a page asks for one at a time

# One search fills the machine's cores, whoever asks for it.
_places, _turn = threading.BoundedSemaphore(_WAITING), threading.Lock()


def data(subject: Subject) -> dict[str, Any]:
    """Give what the explorer begins with: what can be chosen, and what things are called.

    Args:
        subject: What the page is about.
    """
    start = Start.of(subject)
    asked = Asked.of(start)
    try:
        asked.task(start)
    except InputError as error:
        return {"problems": problems(error.problems)}
    return {
        "problems": [],
        "start": asked.tree,
        "values": {
            "devices": start.devices,
            "sequences": start.sequences,
            "seq": start.seqs,
            "links": start.links,
            "objective": start.objectives,
        },
        "limits": {
            "devices": (1, min(start.system.devices, MOST_DEVICES)),
            "sequences": (1, MOST_SEQUENCES),
            "seq": (1, start.most_positions),
            "network": (1 / MOST_TIMES, MOST_TIMES),
        },
        "names": {**NAMES, "moments": MOMENTS},
        "decisions": DECISIONS,
        "words": dict(WORDS),
        "notes": [*start.notes],
    }


def still(subject: Subject, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Give the same for a page that can ask nobody, with answers made beforehand.

    Args:
        subject: What the page is about.
        progress: Told how far it is.
    """
    begin = data(subject)
    return (
        begin if begin["problems"] else begin | {"grid": grid(Start.of(subject), progress=progress)}
    )


def answer(subject: Subject, query: Mapping[str, str]) -> dict[str, Any]:
    """Give what a live page asks: an answer to `Asked`, or one plan of it.

    Args:
        subject: What the page is about.
        query: Fields of `Asked`; with ``plan``, see `detail`.

    Raises:
        InputError: All that is wrong with it.
        MachineError: Too many searches wait already.
    """
    start = Start.of(subject)
    asked = Asked.read(query, start)
    if not _places.acquire(blocking=False):
        rule = f"{_WAITING} searches run or wait already"
        raise MachineError(Problem("explorer", rule, "ask again in a moment"))
    try:
        with _turn:
            if "plan" in query:
                return detail(start, asked, plan=query["plan"])
            return _remembered(start, asked)
    finally:
        _places.release()


@lru_cache(maxsize=_REMEMBERED)
def _remembered(start: Start, asked: Asked) -> dict[str, Any]:
    return explore(start, asked, whole=searched(start, asked))
