"""Runs as `train` leaves them on disk, without the training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from stretto.cli.keys import Settings
from stretto.cli.rundir import RunDirectory, Start
from stretto.page.server import Server
from stretto.plan import Batch, Plan
from stretto.presets import preset
from stretto.recipe import Recipe

Look = Callable[..., Page]
"""Opens an address in a browser."""
Serve = Callable[..., Server]
"""Serves the runs in some places."""
PLAN = Plan.of(dp=2, zero=1, batch=Batch(sequences=8, micro_batch=2, seq=64))


def record(step: int, *, steps: int = 60, **changes: Any) -> dict[str, Any]:
    """Give what a run writes after a step."""
    return {
        "step": step,
        "steps": steps,
        "loss": 6.0 - step / 100,
        "norm": 1.0,
        "lr": 1e-3,
        "tokens": 512 * step,
        "tokens_per_s": 25_000.0,
        "mfu": 0.01,
        "memory_bytes": 2**28,
        "data_wait": 0.001,
        "overhead": 0.02,
        "step_s": 0.02,
        "eta_s": 0.02 * (steps - step),
        "applied": True,
    } | changes


def a_run(
    path: Path,
    *,
    steps: int,
    loss: Callable[[int], float] = lambda s: 6.0,
    planned: int = 0,
    plan: Plan = PLAN,
) -> Path:
    """Write a run.

    Args:
        path: Where.
        steps: That it has done.
        loss: Of each step.
        planned: Steps that it is to do; 0 for `steps`.
        plan: Its plan.
    """
    start = Start(preset("tiny"), plan, Recipe(steps=planned or steps), Settings(), (path,))
    RunDirectory(path).write(start, command=["stretto", "train"])
    kept = path / "environment.json"
    begun = json.loads(kept.read_text(encoding="utf-8"))
    begun[-1]["process"]["ticks"] -= 1  # that of this process, which does not train: it is gone
    kept.write_text(json.dumps(begun), encoding="utf-8")
    append(path, *(record(s, steps=planned or steps, loss=loss(s)) for s in range(1, steps + 1)))
    return path


def append(path: Path, *records: dict[str, Any]) -> None:
    """Write what a run says after further steps."""
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(r) + "\n" for r in records))


def silent(path: Path, *, since: float = 1e9) -> Path:
    """Give a run as if it had written nothing `since`, in seconds after 1970."""
    for name in ("metrics.jsonl", "environment.json"):
        if (path / name).exists():
            os.utime(path / name, (since, since))
    return path


def restart(path: Path, *, step: int, plan: Plan = PLAN) -> None:
    """Let a run go on after a step, under another plan."""
    a_run(path, steps=0, planned=10 * step, plan=plan)
    RunDirectory(path).went_on(step)
