"""Where a run stands: its starts, and whether it goes on.

A run that wrote a moment ago goes on. Of one that has been silent for longer its process says more,
where this machine can see it; elsewhere only the length of the silence does.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

State = Literal["", "starting", "running", "stopped", "finished"]
"""Of a run; nothing of a plan."""

_SILENT_S = 120.0  # after which a run that nobody can see is taken to have stopped
_BREATH_S = 10.0  # in which a run that goes on need not have written
_STEPS = 20  # that a step may take longer than usual
_WRITTEN = ("metrics.jsonl", "environment.json")  # after every step, and at every start


def starts(run: Path) -> tuple[Mapping[str, Any], ...]:
    """Give what a run kept of every start, the first one first; none where nothing can be read."""
    try:
        found = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return tuple(s for s in found if isinstance(s, dict)) if isinstance(found, list) else ()


def begun(run: Path) -> int:
    """Give the steps that were done before the last start."""
    step = (starts(run) or ({},))[-1].get("step")
    return step if type(step) is int else 0


def changed(path: Path) -> float:
    """Give the time of the last change of a file; 0 for what is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def wrote(run: Path) -> float:
    """Give when a run began or wrote last."""
    return max(changed(run / name) for name in _WRITTEN)


def state(run: Path, *, step: int, steps: int, step_s: float) -> State:
    """Give whether a run is done, goes on, or has stopped.

    Args:
        run: Its directory.
        step: Steps that it has done.
        steps: Steps that it is to do.
        step_s: What a step usually takes.
    """
    if 0 < steps <= step:
        return "finished"
    silent_s, patience_s = time.time() - wrote(run), _STEPS * step_s
    there = True if silent_s < _BREATH_S + patience_s else _there(run)
    if there is None:
        there = silent_s < max(_SILENT_S, patience_s)
    if not there:
        return "stopped"
    return "running" if step else "starting"


def process() -> Mapping[str, int] | None:
    """Give by what this process is known again; None where the system does not tell."""
    pid = os.getpid()
    ticks = _ticks(pid)
    return None if ticks is None else {"pid": pid, "ticks": ticks}


def _there(run: Path) -> bool | None:
    """Give whether the process of the last start is there; None where it cannot be seen."""
    start = (starts(run) or ({},))[-1]
    machine, known = start.get("machine"), start.get("process")
    host = machine.get("name") if isinstance(machine, dict) else None
    if host != (platform.node() or "localhost") or not isinstance(known, dict):
        return None
    if _ticks(os.getpid()) is None:
        return None
    return _ticks(known.get("pid")) == known.get("ticks")


def _ticks(pid: object) -> int | None:
    """Give when a process began, in ticks of the kernel: another that has its number did later."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
