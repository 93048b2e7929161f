"""A schedule as a grid of text: time to the right, a pipeline rank a line."""

from __future__ import annotations

from stretto.schedule.schedule import Pass, Schedule

_SLOTS = {Pass.FORWARD: 1.0, Pass.BACKWARD: 2.0}


def grid(schedule: Schedule) -> str:
    """Draw `schedule` with backward twice as long as forward, and say what it costs.

    ``0`` to the right of ``F`` and ``B`` is the micro-batch; dots are the bubble.
    """
    times = schedule.times(_SLOTS)
    total = int(max(stop for _, stop in times.values()))
    width = len(str(schedule.micro_batches - 1)) + 2
    lines = []
    for r, rank in enumerate(schedule.ranks):
        cells = ["·".center(width)] * total
        for action in rank:
            start, stop = (int(t) for t in times[action])
            label = f"{action}"
            cells[start:stop] = [
                label.ljust(width),
                *["─" * (width - 1) + " "] * (stop - start - 1),
            ]
        lines.append(f"rank {r:<3}" + "".join(cells).rstrip())
    held = ", ".join(str(schedule.in_flight(r)) for r in range(len(schedule.ranks)))
    lines.append(f"bubble {schedule.bubble(_SLOTS):.1%}; micro-batches in flight by rank: {held}")
    return "\n".join(lines)
