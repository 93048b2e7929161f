"""What one rank saw of a step, in memory and on disk: one safetensors file for each rank."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from stretto.errors import InputError, Problem
from stretto.timeline.value import Floats, Ints

FOLDER = "timeline"
"""The directory of all recordings within that of a run."""

COLUMNS = {
    "instruction": np.int32,
    "kind": np.uint8,
    "start_s": np.float64,
    "asked_s": np.float64,
    "stop_s": np.float64,
    "memory_bytes": np.int64,
}
"""Arrays of a file, with an element for each row, and their types there."""

HEAD = ("step", "world", "plan", "clock", "zero_s", "resting_bytes")
"""What a file says besides, with its counters."""

FIRST, NEWEST = 4, 8
"""Recordings that all are kept: the first ones, and the newest; between them ever fewer."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What a rank counted during a step.

    Attributes:
        rank: Which.
        host: Name of its machine.
        major_faults: Pages that had to be read from disk.
        minor_faults: Pages that had to be mapped.
        alloc_retries: How often the device's allocator had to give back memory and try again.
        data_s: Seconds of waiting for micro-batches.
        host_s: Seconds of what a run does between two steps: telling, evaluating, saving.
    """

    rank: int
    host: str
    major_faults: int
    minor_faults: int
    alloc_retries: int
    data_s: float
    host_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """What one rank saw of a step, in seconds since the end of the vote before.

    Rows stand in the order in which the rank came to them. A message begins where it was issued and
    ends where its end was seen; what that says of the message is for `recorded.join` to find.

    Attributes:
        step: Steps done with it.
        world: Number of ranks.
        plan: The plan, as TOML.
        clock: Which machine since which start; ranks with the same have the same clock.
        zero_s: What that clock said at second 0.
        counters: What the rank counted, and who it is.
        resting_bytes: What its process or device held at second 0.
        instruction: Of each row the index of the instruction; -1 for waits for data, and for what
            is done between two steps.
        kind: An index into `KINDS`.
        start_s: When it began: a compute once what it reads was there, a message when issued.
        asked_s: When the rank began to wait for a message; NaN if it never did.
        stop_s: When it was done; NaN if that was not seen within the step.
        memory_bytes: What the process or device held after its instruction.
    """

    step: int
    world: int
    plan: str
    clock: str
    zero_s: float
    counters: Counters
    resting_bytes: int
    instruction: Ints
    kind: Ints
    start_s: Floats
    asked_s: Floats
    stop_s: Floats
    memory_bytes: Ints


def write(directory: Path, track: Track) -> None:
    """Write what a rank saw; the file is there as a whole or not at all.

    Args:
        directory: That of the run.
        track: What the rank saw.

    Raises:
        OSError: The disk refuses.
    """
    path = _place(directory, track.step) / f"rank-{track.counters.rank:05}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {k: getattr(track, k) for k in HEAD}
    about = json.dumps(head | {"counters": asdict(track.counters)})
    arrays = {k: np.ascontiguousarray(getattr(track, k), dtype=t) for k, t in COLUMNS.items()}
    growing = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(arrays, growing, metadata={"track": about})
        os.replace(growing, path)
    except SafetensorError as error:  # it wraps what the disk says
        raise OSError(str(error)) from None
    finally:
        with contextlib.suppress(OSError):
            growing.unlink(missing_ok=True)


def load(path: Path) -> Track:
    """Give what a rank saw.

    Raises:
        InputError: The file is missing, damaged, or none of these.
    """
    with _reading(path):
        head = _head(path)
        with safe_open(path, framework="numpy") as file:
            arrays = {k: file.get_tensor(k) for k in COLUMNS}
        shapes = {array.shape for array in arrays.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError("its columns differ in length")
        times = {k: np.asarray(v, dtype=np.float64) for k, v in arrays.items()}
        whole = {k: np.asarray(v, dtype=np.int64) for k, v in arrays.items() if k[-2:] != "_s"}
        return Track(
            head["step"],
            head["world"],
            head["plan"],
            head["clock"],
            head["zero_s"],
            Counters(**head["counters"]),
            head["resting_bytes"],
            whole["instruction"],
            whole["kind"],
            times["start_s"],
            times["asked_s"],
            times["stop_s"],
            whole["memory_bytes"],
        )


def _head(path: Path) -> dict[str, Any]:
    with _reading(path), safe_open(path, framework="numpy") as file:
        head = json.loads(file.metadata()["track"])
        return {k: head[k] for k in (*HEAD, "counters")}


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        rule = f"cannot be read: {error}"
        raise InputError(Problem(str(path), rule, "remove it, or read another step")) from None


def files(directory: Path, step: int) -> dict[int, Path]:
    """Give the files of a step by rank."""
    found = _place(directory, step).glob("rank-*.safetensors")
    return {int(path.stem.removeprefix("rank-")): path for path in sorted(found)}


def recorded_steps(directory: Path) -> tuple[int, ...]:
    """Give the steps of which there are recordings, but for a newest one that is being written."""
    steps = sorted(_steps(directory))
    whole = steps and _whole(directory, steps[-1])
    return tuple(steps if whole else steps[:-1])


def _whole(directory: Path, step: int) -> bool:
    """Say whether every rank has written what it saw of a step."""
    found = files(directory, step)
    with contextlib.suppress(InputError):
        return bool(found) and len(found) >= _head(next(iter(found.values())))["world"]
    return False


def plan_of(directory: Path, step: int) -> str:
    """Give the plan under which a step was recorded, as TOML.

    Raises:
        InputError: There is no recording of the step, or it is damaged.
    """
    found = files(directory, step)
    if not found:
        raise InputError(no_recording(directory, step))
    return str(_head(next(iter(found.values())))["plan"])


def no_recording(directory: Path, step: int) -> Problem:
    """Give what is wrong with asking for a step that was not recorded."""
    steps = recorded_steps(directory)
    rule = f"step {step} was not recorded"
    some = spans(steps) if steps else "a run with record_every above 0"
    return Problem(str(directory), rule, f"choose {some}")


def spans(steps: Sequence[int]) -> str:
    """Give ascending numbers, those at even distances together: ``3, 50, 100 to 400 by 100``."""
    told, first = [], 0
    while first < len(steps):
        last = min(first + 1, len(steps) - 1)
        by = steps[last] - steps[first]
        while last + 1 < len(steps) and steps[last + 1] - steps[last] == by:
            last += 1
        if last - first < 3:
            told.append(str(steps[first]))
            first += 1
            continue
        told.append(f"{steps[first]} to {steps[last]}" + (f" by {by}" if by > 1 else ""))
        first = last + 1
    return ", ".join(told)


def thin(directory: Path, *, every: int) -> None:
    """Remove recordings so that few stay however many were made.

    Raises:
        OSError: The disk refuses.
    """
    steps = sorted(_steps(directory))
    for step in set(steps) - kept(steps, every=every):
        shutil.rmtree(_place(directory, step))


def kept(steps: Iterable[int], *, every: int) -> set[int]:
    """Give the recorded steps that stay: the first, the newest, and between ever fewer.

    Of those between n and 2n recordings old half of `NEWEST` stay: the older they are, the more
    often their number must be even. So none that was removed would be wanted later.
    """
    ordered = sorted(steps)
    newest = ordered[-1] if ordered else 0

    def stays(step: int) -> bool:
        age = (newest - step) // max(every, 1)
        return age < NEWEST or step % (every << (age // NEWEST).bit_length()) == 0

    return {*ordered[:FIRST], *(step for step in ordered if stays(step))}


def forget(directory: Path, *, after: int) -> None:
    """Remove recordings of later steps, which a run that goes on from here will make anew.

    Raises:
        OSError: The disk refuses.
    """
    for step in _steps(directory):
        if step > after:
            shutil.rmtree(_place(directory, step))


def _place(directory: Path, step: int) -> Path:
    return directory / FOLDER / f"step-{step:08}"


def _steps(directory: Path) -> set[int]:
    found = (directory / FOLDER).glob("step-*")
    names = (path.name.removeprefix("step-") for path in found if path.is_dir())
    return {int(name) for name in names if name.isdecimal()}
