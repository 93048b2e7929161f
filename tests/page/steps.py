"""Steps to show: predicted, and recorded of ranks of which something may be wrong."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.diagnose.injected import Scene, measured
from tests.simulate.toy import cluster, model, modern, plan

from stretto.cost import cost
from stretto.page.subject import Subject
from stretto.program.instruction import Program
from stretto.program.lower import lower
from stretto.simulate import Fault, simulate
from stretto.timeline import Timeline
from stretto.timeline.recorded import Counters, Recording, Track, write
from stretto.timeline.rows import after_vote
from stretto.timeline.value import HEADS, Floats, Ints

PROCESS = 5000
"""Bytes of a process besides what its program holds."""


def a_subject(*, run: Path | None = None, layers: int = 2, **words: Any) -> Subject:
    """Give a small plan on the toy cluster: two stages of two replicas, if nothing else is said."""
    subject, chosen = model(layers=layers), plan(**({"pp": 2, "dp": 2, "zero": 1} | words))
    program, here, stack = lower(subject, chosen), cluster(chosen.mesh.size), modern()
    return Subject(
        "small",
        subject,
        chosen,
        here,
        stack,
        cost(subject, chosen, cluster=here, stack=stack),
        program=program,
        predicted=simulate(program, here, stack=stack),
        run=run,
    )


def known(subject: Subject) -> tuple[Program, Timeline]:
    """Give the program of a subject and what is predicted."""
    assert subject.program is not None and subject.predicted is not None
    return subject.program, subject.predicted


def a_recording(
    subject: Subject, *, faults: Sequence[Fault] = (), step: int = 50, noise: float = 0.0
) -> Recording:
    """Give a step as ranks of which something is wrong would have recorded it."""
    program, _ = known(subject)
    scene = Scene("small", program, subject.cluster, subject.stack)
    line = measured(scene, seed=1, noise=noise, faults=faults)
    counters = tuple(Counters(r[0], f"h{r[0] // 4}", 0, 0, 0, 0.0, 0.0) for r in line.alike)
    held = PROCESS + 10 * line.instruction
    return Recording(step, line, held, np.full(len(line.alike), PROCESS), counters)


def on_disk(subject: Subject, recording: Recording) -> None:
    """Write a recording as the ranks of a run do."""
    program, _ = known(subject)
    assert subject.run is not None
    line = recording.timeline
    for player, ranks in enumerate(line.alike):
        mine = np.flatnonzero(line.player == player)
        stage = program.of(ranks[0])
        turn = (line.instruction[mine] - after_vote(stage)) % len(stage.instructions)
        mine = mine[np.argsort(turn, kind="stable")]
        start, stop, asked = _seen(line, mine)
        track = Track(
            recording.step,
            len(line.alike),
            subject.plan.to_toml(),
            "one machine",
            0.0,
            recording.counters[player],
            int(recording.resting_bytes[player]),
            line.instruction[mine],
            line.kind[mine],
            start,
            asked,
            stop,
            recording.memory_bytes[mine],
        )
        write(subject.run, track)


def _seen(line: Timeline, mine: Ints) -> tuple[Floats, Floats, Floats]:
    """Give what a rank sees of its rows: begin or issue, end, and since when it waits for each."""
    start, stop = line.start_s[mine], line.stop_s[mine]
    heads, timed = np.isin(line.kind[mine], HEADS), line.kind[mine] > 0
    come = np.maximum.accumulate(np.where(heads, stop, 0.0))  # to this it has come in its list
    begun, done = np.append(start[heads], math.inf), np.append(0.0, stop[heads])
    idle = done[np.searchsorted(begun, stop - 1e-12)]  # since then the device has nothing to do
    message = timed & ~heads
    asked = np.where(message & (idle < stop), np.minimum(idle, stop), math.nan)
    return np.where(message, np.minimum(start, come), start), stop, asked


def unpacked(value: dict[str, Any]) -> Any:
    """Give the array that a page would read."""
    raw = base64.b64decode(value["base64"])
    return np.frombuffer(raw, dtype=value["dtype"]).reshape(value["shape"])
