"""A schedule as a grid of text: time to the right, a pipeline rank a line."""

from __future__ import annotations

from stretto.schedule.schedule import Action, Pass, Schedule

_SLOTS = dict.fromkeys(Pass, 1.0) | {Pass.BACKWARD: 2.0}


def grid(schedule: Schedule) -> str:
    """Draw `schedule` with every pass as long as another, a whole backward twice, and its cost.

    ``0`` to the right of ``F`` and ``B`` is the micro-batch; ``.1`` after it, the second of a
    rank's stages; dots are the bubble. ``I`` and ``W`` are input and weight gradient; ``S`` and
    ``T`` the vocabulary passes (Yeung et al., 2024).
    """
    times = schedule.times(_SLOTS)
    total = int(max(stop for _, stop in times.values()))
    width = 1 + max(len(_label(action, schedule)) for action in times)
    lines = []
    for r, rank in enumerate(schedule.ranks):
        cells = ["·".center(width)] * total
        for action in rank:
            start, stop = (int(t) for t in times[action])
            cells[start:stop] = [
                _label(action, schedule).ljust(width),
                *["─" * (width - 1) + " "] * (stop - start - 1),
            ]
        lines.append(f"rank {r:<3}" + "".join(cells).rstrip())
    held = ", ".join(
        f"{schedule.in_flight(r) / schedule.chunks:g}" for r in range(len(schedule.ranks))
    )
    lines.append(f"bubble {schedule.bubble(_SLOTS):.1%}; micro-batches in flight by rank: {held}")
    return "\n".join(lines)


def _label(action: Action, schedule: Schedule) -> str:
    chunk = action.stage // len(schedule.ranks)
    return f"{action}.{chunk}" if schedule.chunks > 1 else f"{action}"
