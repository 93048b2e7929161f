"""How what `forecast` is about is saved, and how it shrinks."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stretto.errors import InputError, Problem
from stretto.forecast import Checkpoint, Elastic, Job, Recovery, Setup, Spares
from stretto.forecast.spares import Price
from stretto.units import parse, show_count, show_seconds

# What ByteCheckpoint reached with 405 G parameters on 8,960 GPUs (Wan et al., 2025, table 8).
_DEVICES = 8960
PER_DEVICE_BYTES = 405e9 * 14 / _DEVICES
"""Of a checkpoint."""

_SNAPSHOT_BYTES_PER_S = PER_DEVICE_BYTES / 0.59
_WRITE_BYTES_PER_S = 405e9 * 14 / 51.06
_READ_BYTES_PER_S = 405e9 * 14 / 129.49

_LONGEST_S = 1e9
_NODE_BYTES_PER_S = 1e9  # to storage, where nobody says


@dataclass(frozen=True, slots=True)
class Trained:
    """What is trained.

    Attributes:
        title: It in words.
        job: Its steps.
        replicas: Data-parallel replicas.
        state_bytes: Of a checkpoint.
        holders: Devices that each hold their part of it.
        price: What time costs.
    """

    title: str
    job: Job
    replicas: int
    state_bytes: float
    holders: int
    price: Price | None


def setup_of(
    options: argparse.Namespace, what: Trained, recovery: Recovery, notes: list[str]
) -> Setup:
    """Give what is played; with the interval ``auto``, one that is allowed."""
    job = what.job
    if options.storage is None:
        write, read = (
            max(min(_NODE_BYTES_PER_S * job.nodes, reached), reached / _DEVICES * job.devices)
            for reached in (_WRITE_BYTES_PER_S, _READ_BYTES_PER_S)
        )
        notes.append(
            f"storage writes {show_count(write)}B/s, reads {show_count(read)}B/s (--storage)"
        )
    else:
        write = read = options.storage
    snapshot_s = what.state_bytes / what.holders / _SNAPSHOT_BYTES_PER_S
    memory_s = _seconds(options.memory_every, job, field="--memory-every")
    saved = Checkpoint(
        1.0,
        blocking_s=snapshot_s,
        background_s=what.state_bytes / write,
        load_s=what.state_bytes / read,
        memory_every_s=memory_s,
        survives="nothing" if memory_s is None else "node",
        memory_load_s=snapshot_s,
    )
    least = max(saved.background_s, memory_s or 0.0, job.step_s)
    own = options.checkpoint_every
    every_s = None if own == "auto" else _seconds(own, job, field="--checkpoint-every")
    if every_s is not None and every_s < least * (1 - 1e-9):
        shortest = f"{math.ceil(least / job.step_s)}steps"
        rule = f"is {show_seconds(every_s)}, but storing one takes {show_seconds(least)}"
        raise InputError(Problem("--checkpoint-every", rule, f"use {shortest} or more, or auto"))
    steps = math.ceil((every_s or least) / job.step_s - 1e-9)
    saved = replace(saved, every_s=every_s or steps * job.step_s)
    spares = Spares(options.spares or 0, options.warm_spares)
    return Setup(job, saved, recovery, spares, _elastic(options.elastic, what, notes))


def _seconds(text: str | None, job: Job, *, field: str) -> float | None:
    """Give an interval: a time of steps, or a number of them."""
    if text is None:
        return None
    if text.endswith(("steps", "step")):
        number = text.removesuffix("s").removesuffix("step").strip()
        if not number.isdigit() or not int(number):
            raise InputError(Problem(field, f"{text!r} is no number of steps", "write 500steps"))
        return int(number) * job.step_s
    seconds = parse(text, "s", field=field, example="30min or 500steps")
    if not 0 < seconds <= _LONGEST_S:
        raise InputError(Problem(field, f"is {text}", "use a time above 0s and up to 1e9s"))
    return seconds


def _elastic(file: str | None, what: Trained, notes: list[str]) -> Elastic | None:
    """Give how a run shrinks: none, by whole replicas, or as the plans of a file do."""
    if file is None:
        return None
    if file:
        return _survivors(Path(file), what.job)
    notes.append("with fewer replicas steps take longer in proportion (--elastic FILE)")
    return Elastic.proportional(what.job, replicas=what.replicas)


def _survivors(path: Path, job: Job) -> Elastic:
    """Give speeds from what ``stretto plan … --survivors --json`` printed.

    Raises:
        InputError: The file is no such thing, or is about other devices.
    """
    remedy = "write there what stretto plan … --survivors --json prints"
    try:
        rows: list[Any] = json.loads(path.read_text(encoding="utf-8"))["survivors"]
        pairs = [(int(r["devices"]), float(r["plan"]["tokens_per_s"])) for r in rows if r["plan"]]
    except FileNotFoundError:
        raise InputError(Problem(str(path), "there is no such file", remedy)) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(Problem(str(path), "holds no survivors' plans", remedy)) from None
    if len(pairs) < 2 or pairs[0][0] != job.devices:
        rule = f"begins with {pairs[0][0] if pairs else 0} devices, but {job.devices} train"
        raise InputError(Problem(str(path), rule, remedy))
    unit = (pairs[0][0] - pairs[1][0]) / job.per_node
    best = pairs[0][1]
    speeds = tuple(min(1.0, rate / best) for _, rate in pairs)
    return Elastic(max(1, round(unit)), speeds)
