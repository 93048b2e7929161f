"""The head of the page: what the rest of it comes to, in words and figures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from stretto.diagnose.compare import compare
from stretto.diagnose.diagnose import diagnose
from stretto.diagnose.finding import Cause
from stretto.errors import InputError
from stretto.page import step_read
from stretto.page.metrics import Table
from stretto.page.subject import Subject
from stretto.report.quantities import change, counted, money, step
from stretto.timeline.recorded import recorded_steps
from stretto.units import show_count, show_seconds

Tone = Literal["", "good", "warn", "bad"]

RECENT = 200
"""Steps at the end of a run of which the median is what a step takes."""

_WARM_UP = 3  # first steps of a run, which take longer
_CLOSE, _FAR = 0.05, 0.20  # shares by which a prediction may be off
_SILENT_S = 120.0  # after which a run that wrote nothing is taken to have stopped


def data(subject: Subject) -> dict[str, Any]:
    """Give the head."""
    return _data(subject, finding(subject))


def answer(subject: Subject, query: Mapping[str, str]) -> dict[str, Any]:
    """Give the head as it is now.

    Args:
        subject: What it is of.
        query: ``known``: what was found before, where no step was recorded since.
    """
    known = query.get("known")
    return _data(subject, finding(subject) if known is None else known)


def _data(subject: Subject, found: str) -> dict[str, Any]:
    table = Table() if subject.metrics is None else subject.metrics.table()
    return {
        "title": heading(subject),
        "tab": _tab(subject, table),
        "state": state(subject, table),
        "verdict": verdict(subject, found),
        "finding": found,
        "figures": [
            {"label": label, "value": value, "note": note, "tone": tone}
            for label, value, note, tone in _figures(subject, table)
        ],
        "facts": [list(fact) for fact in subject.words],
        "notes": [{"tone": tone, "text": text} for text, tone in _notes(subject, table)],
    }


def heading(subject: Subject) -> str:
    """Give what a page is called: the run or the plan, and the model unless that says it."""
    model = subject.model.name
    return subject.title if model in subject.title else f"{subject.title} — {model}"


def _tab(subject: Subject, table: Table) -> str:
    """Give what the browser's tab says: first what tells it from those beside it, which is cut."""
    match now := state(subject, table):
        case "running":
            words = [f"{100 * int(table.last['step']) // subject.steps} %"]
        case "stopped":
            words = [now]
        case _:
            words = []
    return " · ".join([*words, heading(subject), "Stretto"])


def finding(subject: Subject) -> str:
    """Give in words what costs the most in the newest recorded step; nothing if nothing does."""
    program, predicted = subject.program, subject.predicted
    if subject.run is None or program is None or predicted is None or not predicted.finished:
        return ""
    steps = recorded_steps(subject.run)
    rows = np.bincount(predicted.player) @ [len(ranks) for ranks in predicted.alike]
    if not steps or rows > step_read.WHOLE:
        return ""
    try:
        recording = subject.recorded(steps[-1])
    except InputError:  # it ran under another plan then
        return ""
    if not recording.timeline.finished:
        return ""
    compared = compare(predicted, recording.timeline, program=program)
    for found in diagnose(
        compared, cluster=subject.cluster, stack=subject.stack, recording=recording
    ):
        if found.cause is Cause.UNEXPLAINED:
            return f"{step(abs(found.extra_s))} unexplained ({found.where})"
        if found.extra_s > 0:
            return f"{found.cause} {found.where} costs {step(found.extra_s)}"
        return f"{found.cause} {found.where}: {step(-found.extra_s)} less than predicted"
    return ""


def verdict(subject: Subject, found: str = "") -> str:
    """Give in a sentence what there is to say of a run or a plan.

    Args:
        subject: What it is of.
        found: What `finding` gives.
    """
    table = Table() if subject.metrics is None else subject.metrics.table()
    measured_s = typical(table["step_s"])
    told = step(subject.predicted_s)
    if measured_s is not None:
        off = change(measured_s / subject.predicted_s)
        why = f": {found}" if found else ""
        return f"Predicted {told} a step, measured {step(measured_s)} ({off}){why}."
    if subject.metrics is not None:
        return f"Predicted {told} a step; nothing is measured yet."
    estimate = subject.estimate
    has, needs = subject.cluster.memory_bytes, float(estimate.memory.total_bytes)
    room = "which fits" if needs <= has else "which does not fit"
    return (
        f"A step takes {told}: {show_count(subject.tokens / subject.predicted_s)} tokens a second "
        f"at {_mfu(subject):.1%} MFU, with {_bytes(needs)} of {_bytes(has)} on the fullest "
        f"rank, {room}."
    )


def typical(values: np.ndarray[Any, Any]) -> float | None:
    """Give the median of the last values, warm-up left out; None where there are none."""
    known = values[np.isfinite(values)]
    recent = known[_WARM_UP if len(known) > 2 * _WARM_UP else 0 :][-RECENT:]
    return float(np.median(recent)) if len(recent) else None


def _figures(subject: Subject, table: Table) -> Iterator[tuple[str, str, str, Tone]]:
    predicted_s, measured_s = subject.predicted_s, typical(table["step_s"])
    yield "Predicted step", step(predicted_s), "", ""
    if measured_s is not None:
        off = abs(measured_s / predicted_s - 1)
        tone: Tone = "good" if off <= _CLOSE else "warn" if off <= _FAR else "bad"
        yield "Measured step", step(measured_s), change(measured_s / predicted_s), tone
    speed, mfu = typical(table["tokens_per_s"]), typical(table["mfu"])
    told = f"predicted {show_count(subject.tokens / predicted_s)}" if speed else "predicted"
    yield "Tokens a second", show_count(speed or subject.tokens / predicted_s), told, ""
    told = f"predicted {_mfu(subject):.1%}" if mfu else "predicted"
    yield "MFU", f"{mfu or _mfu(subject):.1%}", told, ""
    needs, has = float(subject.estimate.memory.total_bytes), subject.cluster.memory_bytes
    held = table.last.get("memory_bytes")
    tone = "bad" if needs > has else ""
    if isinstance(held, int | float):
        yield "Memory of a rank", _bytes(held), f"predicted {_bytes(needs)}", tone
    else:
        yield "Memory of a rank", _bytes(needs), f"of {_bytes(has)}", tone
    yield from _progress(subject, table)
    price = float(subject.estimate.bill.money) / float(subject.estimate.time.total_s) * 3600
    if price > 0:
        yield "Price", money(price), "an hour, all devices", ""


def _progress(subject: Subject, table: Table) -> Iterator[tuple[str, str, str, Tone]]:
    last = table.last
    if isinstance(loss := last.get("loss"), float):
        held = table["valid_loss"]
        known = held[np.isfinite(held)]
        yield "Loss", f"{loss:.3f}", f"held-out {known[-1]:.3f}" if len(known) else "", ""
    if table.rows:
        at, eta_s = int(last["step"]), last.get("eta_s")
        left = f"{show_seconds(eta_s)} to go" if isinstance(eta_s, float) and eta_s else "done"
        yield "Step", f"{at:,}", f"of {subject.steps:,}, {left}", ""


def state(subject: Subject, table: Table) -> str:
    """Give whether a run is done, goes on, or has stopped; nothing for a plan."""
    if subject.metrics is None:
        return ""
    if not table.rows:
        return "not begun"
    if int(table.last["step"]) >= subject.steps:
        return "finished"
    try:
        silent_s = time.time() - subject.metrics.path.stat().st_mtime
    except OSError:
        silent_s = float("inf")
    slow = typical(table["step_s"]) or 0.0
    return "running" if silent_s < max(_SILENT_S, 20 * slow) else "stopped"


def _notes(subject: Subject, table: Table) -> Iterator[tuple[str, Tone]]:
    needs, has = float(subject.estimate.memory.total_bytes), subject.cluster.memory_bytes
    if needs > has:
        more = _bytes(needs - has)
        yield f"The fullest rank needs {more} more than its device has.", "bad"
    skipped = int((table["applied"] == 0).sum())
    if skipped:
        what = counted(skipped, "step")
        yield f"{what} did not count: loss or gradient was not finite.", "warn"
    yield from ((note, "") for note in subject.notes)


def _bytes(value: float) -> str:
    """Give bytes in three digits, which is what a figure has room for: ``1.4 GiB``."""
    for unit, size in (("TiB", 2.0**40), ("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def _mfu(subject: Subject) -> float:
    """Give the MFU of the predicted step."""
    return float(subject.estimate.mfu * subject.estimate.time.total_s) / subject.predicted_s
