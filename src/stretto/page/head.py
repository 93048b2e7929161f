"""The head of the page: what the rest of it comes to, in words and figures."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stretto.diagnose.compare import compare
from stretto.diagnose.diagnose import diagnose
from stretto.diagnose.sentence import brief
from stretto.errors import InputError
from stretto.page import step_read
from stretto.page.metrics import Column, Table
from stretto.page.origin import lost, origins, predicted_bytes, predicted_mfu
from stretto.page.standing import State, begun, state
from stretto.page.subject import Subject
from stretto.quantities import change, count, money, number, seconds, share, size, span
from stretto.report.quantities import counted
from stretto.timeline.recorded import recorded_steps

Tone = Literal["", "good", "warn", "bad"]

RECENT = 200
"""Steps at the end of a run of which the median is what a step takes."""

_WARM_UP = 3  # first steps of a run, which take longer
_CLOSE, _FAR = 0.05, 0.20  # shares by which a prediction may be off
_CAUSES = 2  # that a verdict names


@dataclass(frozen=True, slots=True)
class Now:
    """How far a run is.

    Attributes:
        table: All its metrics.
        recent: Those of the steps since its last start, which its plan is of.
        begun: Steps that were done before that.
        state: Whether it goes on.
    """

    table: Table
    recent: Table
    begun: int
    state: State


def now(subject: Subject) -> Now:
    """Give how far a run is; of a plan, nothing."""
    if subject.metrics is None or subject.run is None:
        return Now(Table(), Table(), 0, "")
    table, since = subject.metrics.table(), begun(subject.run)
    recent = table.since(since)
    done = int(table.last.get("step", 0))
    slow_s = typical(recent["step_s"]) or typical(table["step_s"]) or 0.0
    standing = state(subject.run, step=done, steps=subject.steps, step_s=slow_s)
    return Now(table, recent, since, standing)


def data(subject: Subject) -> dict[str, Any]:
    """Give the head."""
    return _data(subject, finding(subject))


def still(subject: Subject, progress: Callable[[str], None]) -> dict[str, Any]:
    """Give the head as a file shows it, which cannot know whether a run still goes on.

    Args:
        subject: What it is of.
        progress: Told nothing: it is made at once.
    """
    written = f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    return _data(subject, finding(subject), written=written)


def answer(subject: Subject, query: Mapping[str, str]) -> dict[str, Any]:
    """Give the head as it is now.

    Args:
        subject: What it is of.
        query: ``known``: what was found before, where no step was recorded since.
    """
    known = query.get("known")
    return _data(subject, finding(subject) if known is None else known)


def _data(subject: Subject, found: str, *, written: str = "") -> dict[str, Any]:
    at = now(subject)
    going = at.state in ("starting", "running", "stopped")
    return {
        "title": heading(subject),
        "tab": _tab(subject, at),
        "state": at.state,
        "badge": f"not finished when this was written, {written}"
        if going and written
        else at.state,
        "verdict": verdict(subject, found),
        "finding": found,
        "figures": [
            {"label": label, "value": value, "note": note, "tone": tone}
            for label, value, note, tone in _figures(subject, at, live=not written)
        ],
        "facts": [list(fact) for fact in (*subject.words, *origins(subject))],
        "notes": [{"tone": tone, "text": text} for text, tone in _notes(subject, at)],
    }


def heading(subject: Subject) -> str:
    """Give what a page is called: the run or the plan, and the model unless that says it."""
    model = subject.model.name
    return subject.title if model in subject.title else f"{subject.title} — {model}"


def _tab(subject: Subject, at: Now) -> str:
    """Give what the browser's tab says: first what tells it from those beside it, which is cut."""
    match at.state:
        case "running":
            words = [f"{100 * int(at.table.last['step']) // subject.steps} %"]
        case "starting" | "stopped":
            words = [at.state]
        case "" | "finished":
            words = []
    return " · ".join([*words, heading(subject), "Stretto"])


def finding(subject: Subject) -> str:
    """Give in a sentence what costs the most in the newest recorded step; nothing if nothing does.

    It names the step: that one may be far from the median of all.
    """
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
    found = diagnose(compared, cluster=subject.cluster, stack=subject.stack, recording=recording)
    took_s = recording.timeline.step_s
    sign = 1.0 if took_s >= predicted.step_s else -1.0
    # As long as predicted a step may be because causes make up for each other.
    near = abs(took_s / predicted.step_s - 1.0) <= _CLOSE
    told = [one for one in found if near or sign * one.extra_s > 0]
    causes = [brief(one) for one in sorted(told, key=lambda one: -abs(one.extra_s))][:_CAUSES]
    return f"In step {steps[-1]:,} ({seconds(took_s)}): {'; '.join(causes)}." if causes else ""


def verdict(subject: Subject, found: str = "") -> str:
    """Give in a sentence what there is to say of a run or a plan.

    Args:
        subject: What it is of.
        found: What `finding` gives.
    """
    told = seconds(subject.predicted_s)
    if subject.metrics is not None:
        at = now(subject)
        since = f" since step {at.begun:,}" if at.begun else ""
        if (measured_s := typical(at.recent["step_s"])) is None:
            return f"Predicted {told} a step; nothing is measured yet{since}."
        off = change(measured_s / subject.predicted_s)
        said = f"Predicted {told} a step, measured {seconds(measured_s)}{since} ({off})."
        return f"{said} {found}" if found else said
    needs, has = predicted_bytes(subject), subject.cluster.memory_bytes
    room = "which fits" if needs <= has else "which does not fit"
    return (
        f"A step takes {told}: {count(subject.tokens / subject.predicted_s)} tokens a second "
        f"at {share(predicted_mfu(subject, Table()))} MFU, with {size(needs)} of {size(has)} on "
        f"the fullest rank, {room}."
    )


def typical(values: Column) -> float | None:
    """Give the median of the last values, warm-up left out; None where there are none."""
    recent = _latest(values)
    return float(np.median(recent)) if len(recent) else None


def _latest(values: Column) -> Column:
    known = values[np.isfinite(values)]
    return known[_WARM_UP if len(known) > 2 * _WARM_UP else 0 :][-RECENT:]


def _figures(subject: Subject, at: Now, *, live: bool) -> Iterator[tuple[str, str, str, Tone]]:
    predicted_s, measured_s = subject.predicted_s, typical(at.recent["step_s"])
    told = "expected, with chance" if lost(subject) else ""
    yield "Predicted step", seconds(predicted_s), told, ""
    if measured_s is not None:
        off = abs(measured_s / predicted_s - 1)
        tone: Tone = "good" if off <= _CLOSE else "warn" if off <= _FAR else "bad"
        last = counted(len(_latest(at.recent["step_s"])), "step")
        told = f"{change(measured_s / predicted_s)}, median of the last {last}"
        yield "Measured step", seconds(measured_s), told, tone
    speed, mfu = typical(at.recent["tokens_per_s"]), typical(at.recent["mfu"])
    told = f"predicted {count(subject.tokens / predicted_s)}" if speed else "predicted"
    yield "Tokens a second", count(speed or subject.tokens / predicted_s), told, ""
    foretold = predicted_mfu(subject, at.recent)
    told = "predicted" if mfu is None else f"predicted {share(foretold)}"
    yield "MFU", share(mfu or foretold), told, ""
    needs, has = predicted_bytes(subject), subject.cluster.memory_bytes
    held = at.recent["memory_bytes"]
    tone = "bad" if needs > has else ""
    if len(held) and np.isfinite(held[-1]):
        yield "Memory of a rank", size(held[-1]), f"predicted {size(needs)}", tone
    else:
        yield "Memory of a rank", size(needs), f"of {size(has)}", tone
    yield from _progress(subject, at, live=live)
    price = float(subject.estimate.bill.money) / float(subject.estimate.time.total_s) * 3600
    if price > 0:
        yield "Price", money(price), "an hour, all devices", ""


def _progress(subject: Subject, at: Now, *, live: bool) -> Iterator[tuple[str, str, str, Tone]]:
    last = at.table.last
    if isinstance(loss := last.get("loss"), float):
        held, steps = at.table["valid_loss"], at.table["step"]
        known = np.flatnonzero(np.isfinite(held))
        told = f"held-out {number(float(held[known[-1]]))}" if len(known) else ""
        if told and known[-1] < at.table.rows - 1:
            told += f" (step {int(steps[known[-1]]):,})"
        yield "Loss", number(loss), told, ""
    if at.table.rows:
        done, eta_s = int(last["step"]), last.get("eta_s")
        left = f", {span(eta_s)} to go" if isinstance(eta_s, float) and eta_s else ""
        match at.state:
            case "finished":
                left = ", done"
            case "running" if live:
                pass
            case "" | "starting" | "running" | "stopped":
                left = ""
        yield "Step", f"{done:,}", f"of {subject.steps:,}{left}", ""


def _notes(subject: Subject, at: Now) -> Iterator[tuple[str, Tone]]:
    needs, has = predicted_bytes(subject), subject.cluster.memory_bytes
    if needs > has:
        more = size(needs - has)
        yield f"The fullest rank needs {more} more than its device has.", "bad"
    skipped = int((at.table["applied"] == 0).sum())
    if skipped:
        what = counted(skipped, "step")
        yield f"{what} did not count: loss or gradient was not finite.", "warn"
    yield from ((note.replace("`", ""), "") for note in subject.notes)
