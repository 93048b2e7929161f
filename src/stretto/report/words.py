"""A record in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stretto.report.quantities import step
from stretto.units import show_bytes, show_count, show_seconds

if TYPE_CHECKING:
    from stretto.runtime.train import Record


def cells(record: Record, valid_loss: float | None) -> tuple[str, ...]:
    """Give what there is to say after a step, in parts; the ones to leave out first are last.

    Args:
        record: What there is to say.
        valid_loss: The held-out loss that was found last, if one was.
    """
    held_out = () if valid_loss is None else (f"held-out {valid_loss:.3f}",)
    width = len(str(record.steps))
    return (
        f"step {record.step:{width}}/{record.steps}",
        f"loss {record.loss:.3f}",
        *held_out,
        f"{show_count(round(record.tokens_per_s))} tok/s",
        f"ETA {show_seconds(record.eta_s)}" if record.step < record.steps else "done",
        *_foretold(record),
        f"MFU {record.mfu:.0%}",
        f"memory {show_bytes(record.memory_bytes)}",
        f"data wait {record.data_wait:.1%}",
    )


def _foretold(record: Record) -> tuple[str, ...]:
    """Give how long the step took beside what was predicted, if anything was."""
    if record.predicted_s is None:
        return ()
    return (f"{step(record.step_s)}, predicted {step(record.predicted_s)}",)


def line(record: Record, valid_loss: float | None) -> str:
    """Give all there is to say in a line, with what only a log has room for."""
    more = [f"lr {record.lr:.2e}", f"gradient norm {record.norm:.3g}"]
    return "  ".join([*cells(record, valid_loss), *more])


def fitted(parts: Sequence[str], width: int) -> str:
    """Give as many parts, from the first on, as fit into `width` characters."""
    text = ""
    for part in parts:
        longer = f"{text}  {part}" if text else part
        if len(longer) > width:
            break
        text = longer
    return text


def bar(share: float, width: int) -> str:
    """Give a bar of `width` characters, `share` of it full."""
    full = math.floor(min(1.0, max(0.0, share)) * width)
    return "━" * full + "─" * (width - full)


def events(record: Record) -> tuple[str, ...]:
    """Give what a step brought besides learning: a loss that was not finite, a checkpoint."""
    found = []
    if not record.applied:
        found.append(
            f"step {record.step}: loss {record.loss:g}, gradient norm {record.norm:g}: "
            "not finite, so the step was skipped"
        )
    if record.saved is not None:
        found.append(f"step {record.step}: saved {record.saved.name}")
    return tuple(found)
